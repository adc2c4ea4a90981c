"""One phase of one launch: sampled under its protocol and watched meanwhile, as a message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil

from dabench.device.energy import EnergyMeter
from dabench.timing.clock import host_clock
from dabench.timing.engine import (
    PhaseSamples,
    StopRule,
    Work,
    measure,
    measure_once,
)
from dabench.timing.loads import measure_stream, measure_throughput
from dabench.timing.samples import Sample

if TYPE_CHECKING:
    from dabench.device.base import Device
    from dabench.run.team import Team

Message = dict[str, Any]


def sampled(
    phase: str,
    work: Work,
    device: Device,
    protocol: str,
    rule: StopRule,
    meter: EnergyMeter | None = None,
    rate: float = 0.0,
    team: Team | None = None,
) -> Message:
    """Samples one phase; `phase_samples` reads the samples back.

    Args:
        phase: Its name.
        work: What is timed.
        device: Where it runs.
        protocol: How.
        rule: When to stop.
        meter: Counts the device's joules; None where nothing can.
        rate: Frames per second of a stream.
        team: The processes that do the same at once; None is this one alone.
    """
    once = protocol == "paper"
    start = began = _own_seconds()

    def warmed_up() -> None:
        nonlocal began
        # Autotuning's workspaces and energy are not the network's.
        device.reset_peak()
        if meter is not None:
            meter.start()
        if team is not None:
            team.begin()
        began = _own_seconds()

    with _watched(device, team.pids if team else ()) as watch:
        result = _by_protocol(work, device, protocol, rule, rate, warmed_up)
        if protocol == "throughput" and team is not None:
            result.alone.clear()  # the others were warming up meanwhile
        if protocol == "steady":
            watch["joules"] = _joules(meter, phase, result)
        # A pass longer than all the time there is was to warm up, and is the sample.
        watch.update(_used(began if result.warmup else start, _own_seconds()))
        if team is not None:
            team.end(work, device)
    return {
        "kind": "phase",
        "phase": phase,
        "warmup": _pairs(result.warmup),
        "samples": _pairs(result.samples),
        "alone": _pairs(result.alone),
        "queue": result.queue,
        "steady": result.steady,
        "stop": result.stop,
        "spent_s": result.spent_s,
        "passes": device.paper_passes if once else 1,
        **watch,
    }


def _by_protocol(
    work: Work,
    device: Device,
    protocol: str,
    rule: StopRule,
    rate: float,
    warmed_up: Callable[[], None],
) -> PhaseSamples:
    """What a protocol samples; arguments as of `sampled`."""
    if protocol == "paper":
        return measure_once(work, device, host_clock, device.paper_passes)
    if protocol == "stream":
        return measure_stream(work, device, host_clock, rule, rate, warmed_up)
    if protocol == "throughput":
        return measure_throughput(work, device, host_clock, rule, warmed_up)
    return measure(work, device, host_clock, rule, warmed_up)


def phase_samples(message: Message) -> PhaseSamples:
    """Reads a ``phase`` message back."""
    return PhaseSamples(
        warmup=[Sample(*pair) for pair in message["warmup"]],
        samples=[Sample(*pair) for pair in message["samples"]],
        alone=[Sample(*pair) for pair in message.get("alone", ())],
        queue=message.get("queue"),
        members=tuple(message.get("members", ())),
        steady=message["steady"],
        stop=message["stop"],
    )


def _joules(meter: EnergyMeter | None, phase: str, result: PhaseSamples) -> float | None:
    """Energy per pass, for phases that have nothing else to do between their passes."""
    seconds = sum(sample.wall_s for sample in result.samples)
    if meter is None or phase not in ("forward", "total") or seconds < meter.fewest_seconds:
        return None
    return meter.joules() / len(result.samples)


def _pairs(samples: Sequence[Sample]) -> list[tuple[float, float | None]]:
    return [(sample.wall_s, sample.device_s) for sample in samples]


@contextmanager
def _watched(device: Device, team: Sequence[int] = ()) -> Iterator[Message]:
    """Fills in how busy others kept the machine, whether it slowed itself down, and its heat.

    Args:
        device: What runs the work.
        team: Processes that are no others, but work with this one.
    """
    watch: Message = {}
    events = device.throttle_events()
    own, busy, wall = _cpu_seconds(team)
    yield watch
    own_after, busy_after, wall_after = _cpu_seconds(team)
    # The system counts in ticks of 10 ms, per core, ours and its own.
    others = (busy_after - busy) - (own_after - own) - 0.02 * (psutil.cpu_count() or 1)
    watch["other_cores"] = max(others, 0.0) / max(wall_after - wall, 1e-9)
    watch["celsius"] = device.temperature()
    after = device.throttle_events()
    watch["throttled"] = None if events is None or after is None else after > events


def _own_seconds() -> tuple[float, float]:
    """CPU time of this process: its own, and the system's on its behalf."""
    found = psutil.Process().cpu_times()
    return found.user, found.system


def _used(before: tuple[float, float], after: tuple[float, float]) -> Message:
    """The processor time between."""
    user, system = (end - start for start, end in zip(before, after, strict=True))
    return {"cpu_s": user + system, "system_s": system}


def _cpu_seconds(team: Sequence[int]) -> tuple[float, float, float]:
    """CPU time of this process and its team, and of the whole machine, and the wall clock."""
    own = []
    for pid in (None, *team):
        with suppress(psutil.Error):  # one of the team may have ended
            own.append(psutil.Process(pid).cpu_times())
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    # Guest time is contained in user time.
    total = sum(machine) - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0)
    return sum(each.user + each.system for each in own), total - idle, time.monotonic()
