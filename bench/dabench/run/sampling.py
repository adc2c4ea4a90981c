"""One phase of one launch: sampled under its protocol and watched meanwhile, as a message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from dabench.device.energy import EnergyMeter
from dabench.timing.clock import host_clock
from dabench.timing.engine import (
    PhaseSamples,
    Sample,
    StopRule,
    Work,
    measure,
    measure_once,
)

if TYPE_CHECKING:
    from dabench.device.base import Device

Message = dict[str, Any]


def sampled(
    phase: str,
    work: Work,
    device: Device,
    protocol: str,
    rule: StopRule,
    meter: EnergyMeter | None = None,
) -> Message:
    """Samples one phase; `phase_samples` reads the samples back.

    Args:
        phase: Its name.
        work: What is timed.
        device: Where it runs.
        protocol: How.
        rule: When to stop.
        meter: Counts the device's joules; None where nothing can.
    """
    steady = protocol == "steady"
    with _watched(device.throttle_events) as watch:
        if steady:
            result = measure(work, device, host_clock, rule, partial(_warmed_up, device, meter))
            watch["joules"] = _joules(meter, phase, result)
        else:
            result = measure_once(work, device, host_clock, device.paper_passes)
    return {
        "kind": "phase",
        "phase": phase,
        "warmup": _pairs(result.warmup),
        "samples": _pairs(result.samples),
        "steady": result.steady,
        "stop": result.stop,
        "spent_s": result.spent_s,
        "passes": 1 if steady else device.paper_passes,
        **watch,
    }


def phase_samples(message: Message) -> PhaseSamples:
    """Reads a ``phase`` message back."""
    return PhaseSamples(
        warmup=[Sample(*pair) for pair in message["warmup"]],
        samples=[Sample(*pair) for pair in message["samples"]],
        steady=message["steady"],
        stop=message["stop"],
    )


def _warmed_up(device: Device, meter: EnergyMeter | None) -> None:
    """Between warm-up and samples: autotuning's workspaces and energy are not the network's."""
    device.reset_peak()
    if meter is not None:
        meter.start()


def _joules(meter: EnergyMeter | None, phase: str, result: PhaseSamples) -> float | None:
    """Energy per pass, for phases that have nothing else to do between their passes."""
    seconds = sum(sample.wall_s for sample in result.samples)
    if meter is None or phase not in ("forward", "total") or seconds < meter.fewest_seconds:
        return None
    return meter.joules() / len(result.samples)


def _pairs(samples: list[Sample]) -> list[tuple[float, float | None]]:
    return [(sample.wall_s, sample.device_s) for sample in samples]


@contextmanager
def _watched(throttle_events: Callable[[], int | None]) -> Iterator[Message]:
    """Fills in how busy others kept the machine, and whether it slowed itself down."""
    watch: Message = {}
    events = throttle_events()
    own, busy, wall = _cpu_seconds()
    yield watch
    own_after, busy_after, wall_after = _cpu_seconds()
    # The system counts in ticks of 10 ms, per core, ours and its own.
    others = (busy_after - busy) - (own_after - own) - 0.02 * (psutil.cpu_count() or 1)
    watch["other_cores"] = max(others, 0.0) / max(wall_after - wall, 1e-9)
    after = throttle_events()
    watch["throttled"] = None if events is None or after is None else after > events


def _cpu_seconds() -> tuple[float, float, float]:
    """CPU time of this process and of the whole machine, and the wall clock."""
    mine = psutil.Process().cpu_times()
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    # Guest time is contained in user time.
    total = sum(machine) - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0)
    return mine.user + mine.system, total - idle, time.monotonic()
