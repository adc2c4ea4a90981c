"""The timing engine: warm up, sample, stop. Knows neither torch nor a real clock."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from dabench.timing.clock import Clock
from dabench.timing.samples import Sample
from dabench.timing.statistics import median_interval

STEADY_PASSES = 3
STEADY_SPREAD = 0.10
MAX_WARMUP = 50
MIN_SAMPLES = 5
MAX_SAMPLES = 10_000
WARMUP_SHARE = 0.25

UNLIMITED_WARMUP_S = 2.0

STEADY_RULE = (
    f"warm-up ends when the last {STEADY_PASSES} passes lie within {STEADY_SPREAD:.0%} of each "
    f"other, at the latest after {MAX_WARMUP} passes or a quarter of the time limit "
    f"({UNLIMITED_WARMUP_S:g} s where there is none), and is flagged if the last passes then "
    "still differ by more"
)


class DeviceTimer(Protocol):
    """A pair of marks on the device's own time line."""

    def start(self) -> None:
        """Marks the start behind the work queued so far."""

    def stop(self) -> None:
        """Marks the end behind the work queued so far."""

    def elapsed_s(self) -> float:
        """Seconds between the marks; both must have been reached."""


class TimedDevice(Protocol):
    """What the engine needs of a device."""

    def synchronize(self) -> None:
        """Returns when all queued work is done."""

    def timer(self) -> DeviceTimer | None:
        """A timer on the device's time line; None where there is none."""

    @property
    def queues_work(self) -> bool:
        """Whether asking for work returns before it is done."""


class Work(Protocol):
    """One pass, split into what is timed and what is not."""

    def prepare(self) -> None:
        """Untimed: whatever the pass needs, such as the forward before a backward."""

    def run(self) -> None:
        """Timed."""

    def release(self) -> None:
        """Untimed: drops graphs and gradients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRule:
    """When sampling one phase in one launch ends.

    Attributes:
        warmup: Fewest warm-up passes.
        repeat: Exact number of samples, or None.
        target_ci: Relative half-width of the interval of this launch's median
            that ends sampling, or None.
        max_time_s: Limit on warm-up and sampling together, or None.
    """

    warmup: int
    repeat: int | None
    target_ci: float | None
    max_time_s: float | None


@dataclass(slots=True)
class PhaseSamples:
    """What one launch gave for one phase.

    Attributes:
        warmup: Warm-up passes, kept apart from the samples.
        alone: Passes by themselves, from start to end, where a sample is something else
            (`dabench.timing.loads`).
        steady: Whether the last warm-up passes lay close together (`STEADY_RULE`).
        stop: Why sampling ended: ``repeat``, ``converged``, ``gave up``, or of a stream that has
            no number of frames ``time``.
        spent_s: Seconds that warm-up and samples took, the untimed parts of each pass included;
            None where it was not measured (`measure_once`).
        queue: Frames of a stream that were not done when it ended; None of what is no stream.
        members: How many of the samples are of each of the processes that ran at once, in order;
            empty where one ran alone.
    """

    warmup: MutableSequence[Sample] = field(default_factory=list)
    samples: MutableSequence[Sample] = field(default_factory=list)
    steady: bool = True
    stop: str = "repeat"
    spent_s: float | None = None
    alone: MutableSequence[Sample] = field(default_factory=list)
    queue: int | None = None
    members: tuple[int, ...] = ()

    @property
    def by_member(self) -> list[MutableSequence[Sample]]:
        """The samples of each process."""
        ends = list(itertools.accumulate(self.members)) or [len(self.samples)]
        return [self.samples[a:b] for a, b in itertools.pairwise([0, *ends])]

    def of_kind(self, kind: str) -> MutableSequence[Sample]:
        """The samples of one of `KINDS`."""
        found: MutableSequence[Sample] = getattr(self, KINDS[kind])
        return found


KINDS: Mapping[str, str] = MappingProxyType(
    {"warmup": "warmup", "sample": "samples", "alone": "alone"}
)
"""What a timed pass is recorded as -> attribute of `PhaseSamples`."""


def take_sample(work: Work, device: TimedDevice, timer: DeviceTimer | None, clock: Clock) -> Sample:
    """Times one pass.

    The device is idle before the clock starts and again before it stops, so
    the sample holds all of this pass's work and none of another's.
    """
    work.prepare()
    device.synchronize()
    if timer is not None:
        timer.start()
    start = clock()
    work.run()
    if timer is not None:
        timer.stop()
    device.synchronize()
    stop = clock()
    work.release()
    return Sample(stop - start, None if timer is None else timer.elapsed_s())


def measure(
    work: Work,
    device: TimedDevice,
    clock: Clock,
    rule: StopRule,
    warmed_up: Callable[[], None] = lambda: None,
) -> PhaseSamples:
    """Warms up, then samples until the rule ends it, with garbage collection off.

    Args:
        work: What is timed.
        device: Where it runs.
        clock: The host's.
        rule: When to stop.
        warmed_up: Called once between warm-up and sampling.
    """
    result = PhaseSamples()
    timer = device.timer()
    with garbage_collection_off():
        begin = clock()
        warm_up(result, work, device, timer, clock, rule)
        warmed_up()
        if _has_no_time_left(result, clock() - begin, rule):
            # A single pass is longer than the limit: it is the sample, and flagged as cold.
            result.samples.append(result.warmup.pop())
            result.steady = False
            stop: str | None = "gave up"
        else:
            stop = None
        while stop is None:
            result.samples.append(take_sample(work, device, timer, clock))
            stop = _stop(result, clock() - begin, rule)
        result.spent_s = clock() - begin
    result.stop = stop
    return result


def warm_up(
    result: PhaseSamples,
    work: Work,
    device: TimedDevice,
    timer: DeviceTimer | None,
    clock: Clock,
    rule: StopRule,
) -> None:
    """Runs passes until they are steady (`STEADY_RULE`) and keeps their times apart."""
    begin = clock()
    while not _warm(result, clock() - begin, rule):
        result.warmup.append(take_sample(work, device, timer, clock))


def measure_once(work: Work, device: TimedDevice, clock: Clock, passes: int) -> PhaseSamples:
    """Times as the paper did: cold, a host clock around all passes, no synchronisation.

    The one sample is of all passes together: ``wall_s`` is what the paper's method reads.
    Where the device queues work, ``device_s`` is the time until the work was really done.
    """
    work.prepare()
    device.synchronize()
    with garbage_collection_off():
        start = clock()
        for _ in range(passes):
            work.run()
        printed = clock() - start
        device.synchronize()
        done = clock() - start
    work.release()
    return PhaseSamples(samples=[Sample(printed, done if device.queues_work else None)])


def _warm(result: PhaseSamples, elapsed_s: float, rule: StopRule) -> bool:
    """Whether to stop warming up; notes when it was not for steadiness."""
    times = [sample.wall_s for sample in result.warmup]
    late = rule.max_time_s is not None and elapsed_s >= rule.max_time_s
    if len(times) < max(rule.warmup, 1) and not (times and late):
        return False
    last = times[-STEADY_PASSES:]
    steady = len(last) > 1 and max(last) <= (1 + STEADY_SPREAD) * min(last)
    if steady and len(last) == STEADY_PASSES:
        return True
    limit_s = UNLIMITED_WARMUP_S if rule.max_time_s is None else WARMUP_SHARE * rule.max_time_s
    if len(times) >= MAX_WARMUP or elapsed_s > limit_s:
        result.steady = steady
        return True
    return False


def _has_no_time_left(result: PhaseSamples, elapsed_s: float, rule: StopRule) -> bool:
    """Whether the first pass took all the time there is."""
    return rule.max_time_s is not None and len(result.warmup) == 1 and elapsed_s >= rule.max_time_s


def _stop(result: PhaseSamples, elapsed_s: float, rule: StopRule) -> str | None:
    """Why sampling is over, or None while it is not."""
    samples = result.samples
    n = len(samples)
    if rule.repeat is not None and n >= rule.repeat:
        return "repeat"
    if has_converged(samples, rule):
        return "converged"
    one_more_s = elapsed_s / (len(result.warmup) + n)
    late = rule.max_time_s is not None and elapsed_s + one_more_s > rule.max_time_s
    return "gave up" if late or (rule.repeat is None and n >= MAX_SAMPLES) else None


def has_converged(samples: Sequence[Sample], rule: StopRule) -> bool:
    """Whether the interval of a launch's median is as narrow as was asked for."""
    if rule.target_ci is None or not _is_checkpoint(len(samples)):
        return False
    interval = median_interval([sample.wall_s for sample in samples])
    return interval.relative_half_width <= rule.target_ci


def _is_checkpoint(n: int) -> bool:
    """Checks the interval at 5, 6, ... 20 samples, then ever more rarely.

    Sorting after every sample would disturb short ones; testing often would
    also stop on a lucky streak.
    """
    if n < MIN_SAMPLES:
        return False
    return n <= 20 or n % (1 << (n.bit_length() - 4)) == 0


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Collects once, then keeps the collector out of the samples."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
