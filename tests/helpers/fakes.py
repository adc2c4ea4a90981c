"""A clock that tests set, and a device on which work is queued and ends later."""

from dataclasses import dataclass, field

from dabench.plan.cases import Case
from dabench.records.measurements import LaunchRecord, PhaseRecord
from dabench.timing.engine import PhaseSamples
from dabench.timing.samples import Sample


@dataclass
class FakeClock:
    """Returns the time that tests and devices have let pass, and logs each reading."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        self.log.append("clock")
        return self.now


class AsyncDevice:
    """Queues work: asking costs the host little, the device ends it later.

    ``launch`` is what work calls; ``synchronize`` lets the clock run until the
    queue is empty. Everything is written to the clock's log, in order.
    """

    ASK_S = 1e-5

    def __init__(self, clock: FakeClock, *, timed: bool = True) -> None:
        self.clock = clock
        self.timed = timed
        self.queues_work = timed
        self.busy_until = 0.0

    def launch(self, seconds: float, name: str = "run") -> None:
        self.clock.log.append(name)
        self.busy_until = max(self.busy_until, self.clock.now) + seconds
        self.clock.now += self.ASK_S

    def synchronize(self) -> None:
        self.clock.log.append("sync")
        self.clock.now = max(self.clock.now, self.busy_until)

    def timer(self):
        return DeviceMarks(self) if self.timed else None


class DeviceMarks:
    """Marks on the device's own time line, like CUDA events."""

    def __init__(self, device: AsyncDevice) -> None:
        self.device = device

    def _mark(self, name: str) -> float:
        self.device.clock.log.append(name)
        return max(self.device.busy_until, self.device.clock.now)

    def start(self) -> None:
        self.begin = self._mark("start")

    def stop(self) -> None:
        self.end = self._mark("stop")

    def elapsed_s(self) -> float:
        return self.end - self.begin


@dataclass
class FakeWork:
    """Takes the given times on the device, one after the other, the last for ever."""

    device: AsyncDevice
    times: list[float]
    prepare_s: float = 0.0
    runs: int = 0
    released: int = 0

    def prepare(self) -> None:
        if self.prepare_s:
            self.device.launch(self.prepare_s, "prepare")

    def run(self) -> None:
        self.device.launch(self.times[min(self.runs, len(self.times) - 1)])
        self.runs += 1

    def release(self) -> None:
        self.released += 1


def make_case(**changes) -> Case:
    """A small case; keyword arguments change its fields."""
    fields = {
        "model": "dw-disc", "family": "discriminator", "device": "cpu", "batch": 2,
        "channels": 19, "height": 64, "width": 64, "mode": "eval", "dtype": "fp32",
        "memory_format": "nchw", "threads": 0, "protocol": "steady", "phases": ("forward",),
    }  # fmt: skip
    return Case(**{**fields, **changes})


def make_launch(
    case: Case,
    times,
    *,
    launch: int = 0,
    phase: str = "forward",
    stop: str = "repeat",
    **changes,
) -> LaunchRecord:
    """A launch whose one phase took the given wall times."""
    phases = PhaseRecord(
        phase=phase,
        samples=PhaseSamples(
            warmup=[Sample(9.0, None)], samples=[Sample(t, None) for t in times], stop=stop
        ),
        passes=changes.pop("passes", 1),
        peak_bytes=changes.pop("peak_bytes", 1 << 20),
        other_cores=changes.pop("other_cores", 0.0),
        throttled=changes.pop("throttled", None),
        celsius=changes.pop("celsius", None),
        cpu_s=changes.pop("cpu_s", None),
        system_s=changes.pop("system_s", None),
    )
    defaults = {
        "launch": launch,
        "case_id": case.case_id,
        "status": "ok",
        "started_at": "2026-01-02T03:04:05.678+00:00",
        "seconds": 1.5,
        "device": {"device_name": "Test CPU", "threads": 2, "precision": "as is", "loss": None},
        "phases": (phases,),
    }
    return LaunchRecord(**{**defaults, **changes})
