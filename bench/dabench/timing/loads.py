"""Loads other than one pass after the other: streams of frames, and passes queued back to back.

In a stream frames arrive at a constant rate whether or not the last one is done,
and what is timed runs from a frame's arrival: who starts the next frame only when
the last is done does not see the frames that would have had to wait (coordinated
omission).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median

from dabench.base.errors import OverloadError
from dabench.base.units import format_seconds, significant
from dabench.timing.clock import Clock, host_clock
from dabench.timing.engine import (
    MAX_SAMPLES,
    DeviceTimer,
    PhaseSamples,
    StopRule,
    TimedDevice,
    Work,
    garbage_collection_off,
    has_converged,
    take_sample,
    warm_up,
)
from dabench.timing.samples import Sample

ALONE = 10
"""Passes by themselves that stand beside a throughput."""

BLOCK_S = 0.25
"""About how long passes are queued back to back between two synchronisations."""

MAX_BLOCK = 1_000

SPIN_S = 0.002
"""Of a wait, what is not left to the system: it wakes a process up late."""

LOAD_RULE = (
    "stream: frames arrive at a constant rate whether the last is done or not; times run from a "
    "frame's arrival to its end; on time are those done before the next arrives, an overrun is a "
    "pass that by itself takes longer than the period. throughput: as many passes as take about "
    f"{format_seconds(BLOCK_S)} are queued back to back and synchronised once; a sample is their "
    f"time over their number, beside {ALONE} passes synchronised one by one"
)


def wait_until(due: float, clock: Clock = host_clock) -> None:
    """Returns when the clock says so: sleeps at first, then looks again and again."""
    left = due - clock()
    if left > SPIN_S:
        time.sleep(left - SPIN_S)
    while clock() < due:
        pass


def measure_stream(
    work: Work,
    device: TimedDevice,
    clock: Clock,
    rule: StopRule,
    rate: float,
    warmed_up: Callable[[], None] = lambda: None,
    wait: Callable[[float], None] = wait_until,
) -> PhaseSamples:
    """Times frames that arrive at a constant rate.

    A sample is a frame's time from arrival to end; ``alone`` holds what its pass took by itself.
    There are ``repeat`` frames, or as many as arrive in the time there is.

    Args:
        work: What is done with a frame.
        device: Where it runs.
        clock: The host's.
        rule: Warm-up, number of frames and time.
        rate: Frames per second.
        warmed_up: Called once between warm-up and the first frame.
        wait: Returns when the clock says so.

    Raises:
        OverloadError: A pass takes longer than the period: the queue would grow without end.
    """
    result = PhaseSamples()
    period = 1 / rate
    with garbage_collection_off():
        begin = clock()
        warm_up(result, work, device, None, clock, rule)
        _check_holds(result, rate)
        warmed_up()
        frames = _frames(rule, clock() - begin, rate)
        first = clock()
        ends: list[float] = []
        for number in range(frames):
            due = first + number * period
            work.prepare()
            wait(due)
            start = clock()
            work.run()
            device.synchronize()
            end = clock()
            work.release()
            ends.append(end)
            result.samples.append(Sample(end - due, None))
            result.alone.append(Sample(end - start, None))
            if _is_lost(rule, end - begin, number, frames):
                result.stop = "gave up"
                break
        over = ends[-1] if result.stop == "gave up" else first + len(ends) * period
        arrived = min(frames, math.floor((over - first) / period + 1e-9) + 1)
        result.queue = arrived - sum(end <= over for end in ends)
        if result.stop == "repeat" and frames != rule.repeat:
            result.stop = "time"
        result.spent_s = clock() - begin
    return result


def _check_holds(result: PhaseSamples, rate: float) -> None:
    """Checks that a pass fits into the period, as the warm-up tells.

    Raises:
        OverloadError: It does not.
    """
    # The fastest: what is slow while it warms up may hold the rate afterwards.
    fastest = min(sample.wall_s for sample in result.warmup)
    if fastest > 1 / rate:
        raise OverloadError(
            f"--rate: {rate:g} frames per second cannot be held: a pass takes "
            f"{format_seconds(fastest)}, the period is {format_seconds(1 / rate)}; at most "
            f"{significant(1 / fastest)} can"
        )


def _frames(rule: StopRule, spent_s: float, rate: float) -> int:
    """How many frames there are: what was asked for, or as many as arrive in the time left."""
    if rule.max_time_s is None:
        return rule.repeat or MAX_SAMPLES
    fit = max(math.floor((rule.max_time_s - spent_s) * rate), 1)
    return min(fit, rule.repeat or MAX_SAMPLES)


def _is_lost(rule: StopRule, elapsed_s: float, number: int, frames: int) -> bool:
    """Whether the queue has used up all the time, with frames still to come."""
    return _is_late(rule, elapsed_s) and number + 1 < frames


def measure_throughput(
    work: Work,
    device: TimedDevice,
    clock: Clock,
    rule: StopRule,
    warmed_up: Callable[[], None] = lambda: None,
) -> PhaseSamples:
    """Times passes that are queued back to back.

    A sample is the time of a block of passes over their number; ``alone`` holds passes that were
    synchronised one by one.

    Args:
        work: One pass; what prepares it belongs to the block.
        device: Where it runs.
        clock: The host's.
        rule: Warm-up, number of blocks and time.
        warmed_up: Called once before the first block.
    """
    result = PhaseSamples()
    timer = device.timer()
    with garbage_collection_off():
        begin = clock()
        warm_up(result, work, device, timer, clock, rule)
        while len(result.alone) < ALONE and not (result.alone and _is_late(rule, clock() - begin)):
            result.alone.append(take_sample(work, device, timer, clock))
        single = median(sample.wall_s for sample in result.alone)
        passes = min(max(math.ceil(BLOCK_S / single), 2), MAX_BLOCK)
        warmed_up()
        stop: str | None = None
        while stop is None:
            start = clock()
            result.samples.append(_block(work, device, timer, clock, passes))
            end = clock()
            if rule.repeat is not None and len(result.samples) >= rule.repeat:
                stop = "repeat"
            elif has_converged(result.samples, rule):
                stop = "converged"
            elif _is_late(rule, 2 * end - start - begin) or len(result.samples) >= MAX_SAMPLES:
                stop = "gave up"
        result.spent_s = clock() - begin
    result.stop = stop
    return result


def _is_late(rule: StopRule, elapsed_s: float) -> bool:
    return rule.max_time_s is not None and elapsed_s > rule.max_time_s


def _block(
    work: Work, device: TimedDevice, timer: DeviceTimer | None, clock: Clock, passes: int
) -> Sample:
    """Seconds per pass of passes that were queued back to back."""
    device.synchronize()
    if timer is not None:
        timer.start()
    start = clock()
    for _ in range(passes):
        work.prepare()
        work.run()
    if timer is not None:
        timer.stop()
    device.synchronize()
    stop = clock()
    work.release()
    return Sample((stop - start) / passes, None if timer is None else timer.elapsed_s() / passes)
