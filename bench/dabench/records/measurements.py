"""Launches of a case to measurements: one row per phase, in the vocabulary's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean, median, stdev
from typing import Any

from dabench.plan.axes import ALL, BY_DEFAULT, KEEP, NO_CALIBRATION
from dabench.plan.cases import OWN, STREAM, Case
from dabench.plan.variants import why_impossible
from dabench.timing.engine import MIN_SAMPLES, PhaseSamples
from dabench.timing.samples import as_columns, wall_seconds
from dabench.timing.statistics import Interval, drift, launch_interval, quantile

DRIFT_LIMIT = 0.05
SPREAD_LIMIT = 0.25
LAUNCH_LIMIT = 0.10
BUSY_LIMIT = 0.10
SYSTEM_LIMIT = 0.10
FEWEST_CPU_S = 1.0
"""Of processor time: less of it is not divided, since Linux tells whose it was by ticks of 4 ms."""

FLAG_RULES = (
    f"drift: first and last third of a launch differ by over {DRIFT_LIMIT:.0%} and by more than "
    "chance; "
    f"spread: the 5th to 95th percentile spans over {SPREAD_LIMIT:.0%} of the median; "
    f"launches differ: their medians span over {LAUNCH_LIMIT:.0%}; "
    f"busy: other programs used over {BUSY_LIMIT:g} cores; "
    f"system: over {SYSTEM_LIMIT:.0%} of the processor's time was the operating system's, as where "
    f"memory that was given back is taken anew (--allocator {KEEP} tells); "
    "unsteady warm-up: it ended before passes were steady; "
    "emulated: the device does not compute in this precision, which says nothing of one that does"
)

WITHIN_ONE_LAUNCH = "within one launch"
OVER_LAUNCHES = "over launches"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseRecord:
    """One phase of one launch, as its worker sent it.

    Attributes:
        joules: Energy per pass, where the machine can tell.
        spent_s: Seconds of its warm-up and samples together.
        queue: Frames of a stream that were not done when it ended.
        celsius: The device's temperature at the end, where it tells.
        cpu_s: Processor time of the worker from its warm-up to its last sample, what is not timed
            between samples included.
        system_s: Of that, the operating system's.
    """

    phase: str
    samples: PhaseSamples
    passes: int
    peak_bytes: int | None
    other_cores: float
    throttled: bool | None
    joules: float | None = None
    spent_s: float | None = None
    queue: int | None = None
    celsius: float | None = None
    cpu_s: float | None = None
    system_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchRecord:
    """One worker process and what came of it.

    Attributes:
        launch: Number of the launch within the run, in the order they ran.
        round: Number of the round it belongs to; in a round every interleaved case runs once.
            None for blocked cases.
        status: ``ok``, ``oom``, ``unsupported``, ``overloaded``, ``crashed``, ``timeout``
            or ``error``; the reason says more.
        device: What the worker said of its device and settings.
    """

    launch: int
    case_id: str
    status: str
    reason: str = ""
    started_at: str = ""
    seconds: float = 0.0
    device: dict[str, Any] = field(default_factory=dict)
    phases: tuple[PhaseRecord, ...] = ()
    round: int | None = None

    @property
    def spent_s(self) -> float:
        """Seconds of warm-up and samples over all phases; of the launch where nobody noted them."""
        known = [phase.spent_s for phase in self.phases if phase.spent_s is not None]
        return sum(known) if known else self.seconds


def compacted(record: LaunchRecord) -> LaunchRecord:
    """The same launch, whose samples take a fifth of the memory."""
    return replace(
        record,
        phases=tuple(
            replace(
                phase,
                samples=replace(
                    phase.samples,
                    warmup=as_columns(phase.samples.warmup),
                    samples=as_columns(phase.samples.samples),
                    alone=as_columns(phase.samples.alone),
                ),
            )
            for phase in record.phases
        ),
    )


def seconds_of(record: PhaseRecord, protocol: str) -> list[float]:
    """Seconds of each sample of a launch by the host's clock.

    Under the paper's protocol on a device that queues work, for which that clock does not wait,
    the seconds until the work was done. Of several processes at once the median of each: the
    fastest must not have the largest say.
    """
    if record.samples.members:
        return [median(each) for each in seconds_by_member(record)]
    if protocol != "paper":
        return wall_seconds(record.samples.samples)
    return [
        sample.wall_s if sample.device_s is None else sample.device_s
        for sample in record.samples.samples
    ]


def seconds_by_member(record: PhaseRecord) -> list[list[float]]:
    """Seconds of each sample of each process of a launch, by the host's clock."""
    return [wall_seconds(each) for each in record.samples.by_member if each]


def worst_drift(record: PhaseRecord) -> float:
    """The largest drift within a process of a launch."""
    return max((drift(each) for each in seconds_by_member(record)), key=abs, default=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """All samples of one phase of one case, or the reason why there are none.

    Times are seconds per pass (of the whole sample where ``passes`` > 1),
    sizes bytes. Fields that could not be measured are None.

    Attributes:
        compile_s: Seconds until the first pass of a compiled or exported
            network was done, in the first launch.
        difference: Relative L2 distance of its output from the plain network's.
        joules_per_image: Energy, the machine's idle draw included.
        energy: What measured it, or why nothing could.
        alone_s: Median over launches of passes by themselves, where a sample is something else:
            of a stream from start to end, beside a throughput synchronised one by one.
        latency_images_per_s: Images of one pass over `alone_s`, beside a throughput.
        on_time: Share of a stream's frames that were done before the next arrived.
        overruns: Frames whose pass by itself took longer than the period.
        queue: Most frames that were not done when a launch's stream ended.
        allocator: ``keep``: memory that was freed stayed with the process.
        system_share: Of the processor time from warm-up to the last sample, over all launches, the
            operating system's; None of a stream, which waits busily, and of less than a second.
    """

    case_id: str
    model: str
    family: str
    device: str
    device_name: str | None = None
    batch: int
    channels: int
    height: int
    width: int
    mode: str
    dtype: str
    precision: str | None = None
    memory_format: str
    threads: int | None
    protocol: str
    phase: str
    passes: int = 1
    status: str
    reason: str = ""
    n: int = 0
    launches: int = 0
    median_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None
    ci_scope: str | None = None
    mean_s: float | None = None
    std_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    p05_s: float | None = None
    p95_s: float | None = None
    device_median_s: float | None = None
    images_per_s: float | None = None
    macs: int | None = None
    flops: int | None = None
    executed_flops: int | None = None
    flops_per_s: float | None = None
    peak_bytes: int | None = None
    warmup_n: int = 0
    stop: str | None = None
    loss: str | None = None
    flags: str = ""
    compile: str = "off"
    fuse: str = "off"
    runtime: str = "eager"
    input: str = "device"
    compile_s: float | None = None
    difference: float | None = None
    joules_per_image: float | None = None
    energy: str | None = None
    rate: float = 0.0
    concurrency: int = 1
    alone_s: float | None = None
    latency_images_per_s: float | None = None
    on_time: float | None = None
    overruns: int | None = None
    queue: int | None = None
    calibration: str = NO_CALIBRATION
    keep_float: str = ALL
    allocator: str = BY_DEFAULT
    system_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A flat JSON document with the vocabulary's column names."""
        return asdict(self)


COLUMNS = tuple(column.name for column in fields(Measurement))
"""Columns of ``measurements.csv`` and keys of the JSON output."""

SINCE_SCHEMA_2 = COLUMNS[COLUMNS.index("compile") :]
"""Columns that records of schema 1 lack; in those everything was as usual."""

SINCE_SCHEMA_4 = COLUMNS[COLUMNS.index("rate") :]
"""Columns that records of schemas 2 and 3 lack, too; likewise."""

SINCE_SCHEMA_5 = COLUMNS[COLUMNS.index("calibration") :]
"""Columns that records of schema 4 lack, too; likewise."""

SINCE_SCHEMA_6 = COLUMNS[COLUMNS.index("allocator") :]
"""Columns that records of schema 5 lack, too; nobody had looked at the system's share."""


def _identity(case: Case) -> dict[str, Any]:
    document = {"case_id": case.case_id, **case.to_dict()}
    del document["phases"]
    document["threads"] = case.threads or None
    return document


def failed(case: Case, status: str, reason: str) -> list[Measurement]:
    """Rows for a case that was not measured."""
    return [
        Measurement(**_identity(case), phase=phase, status=status, reason=reason)
        for phase in case.phases
    ]


def summarise(
    case: Case,
    launches: Sequence[LaunchRecord],
    macs: dict[str, tuple[int, int] | None],
    target_ci: float | None,
) -> list[Measurement]:
    """One measurement per phase of a case.

    A launch that failed in a later phase still gave its earlier ones.

    Args:
        case: The case.
        launches: All its launches, failed ones too; at least one.
        macs: Phase -> (algorithmic, executed) multiply-adds of one pass, or
            None where they are not counted.
        target_ci: The relative half-width that was asked for, if any.
    """
    last = launches[-1]
    without = {row.phase: row for row in failed(case, last.status, last.reason)}
    return [
        _measurement(case, phase, launches, macs, target_ci) or without[phase]
        for phase in case.phases
    ]


def _measurement(
    case: Case,
    phase: str,
    launches: Sequence[LaunchRecord],
    macs: dict[str, tuple[int, int] | None],
    target_ci: float | None,
) -> Measurement | None:
    records = [record for launch in launches for record in launch.phases if record.phase == phase]
    if not records:
        return None
    times = [seconds_of(record, "steady") for record in records]
    device_times = [
        median(sample.device_s for sample in record.samples.samples if sample.device_s is not None)
        for record in records
        if record.samples.samples[0].device_s is not None
    ]
    device_median = median(device_times) if device_times else None
    interval = launch_interval(times)
    pooled = sorted(s for record in records for s in wall_seconds(record.samples.samples))
    passes = records[0].passes
    # The paper's clock stops before queued work is done: no rate follows from it.
    unsynchronised = case.protocol == "paper" and device_median is not None
    rate_s = device_median if unsynchronised and device_median else interval.estimate
    counted = macs.get(phase)
    algorithmic, executed = counted if counted is not None else (None, None)
    peaks = [record.peak_bytes for record in records if record.peak_bytes is not None]
    device = next(launch.device for launch in launches if launch.phases)
    joules = [record.joules for record in records if record.joules is not None]
    return Measurement(
        **{**_identity(case), "threads": device.get("threads", case.threads or None)},
        device_name=device.get("device_name"),
        precision=device.get("precision"),
        phase=phase,
        passes=passes,
        status="ok",
        n=len(pooled),
        launches=len(records),
        **_times(pooled, interval),
        ci_scope=OVER_LAUNCHES if len(records) > 1 else WITHIN_ONE_LAUNCH,
        device_median_s=device_median,
        # An optimiser's step takes as long for any number of images.
        images_per_s=_images_per_s(case, phase, passes, rate_s, records),
        macs=algorithmic,
        flops=None if algorithmic is None else 2 * algorithmic,
        executed_flops=None if executed is None else 2 * executed,
        flops_per_s=None
        if executed is None or case.protocol == STREAM
        else _per_s(2 * executed * passes, rate_s, case, records),
        peak_bytes=max(peaks) if peaks else None,
        warmup_n=sum(len(record.samples.warmup) for record in records),
        stop=_stop(records, interval, target_ci),
        loss=device.get("loss"),
        compile_s=device.get("compile_s"),
        difference=device.get("difference"),
        joules_per_image=median(joules) / case.batch if joules else None,
        energy=device.get("energy"),
        system_share=_system_share(case, records),
        **_of_load(case, records),
        flags="; ".join(_flags(case, records, times, pooled, interval, launches)),
    )


def _system_share(case: Case, records: Sequence[PhaseRecord]) -> float | None:
    """The system's part of the processor time of all launches."""
    whole = sum(record.cpu_s or 0.0 for record in records)
    if case.protocol == STREAM or whole < FEWEST_CPU_S:
        return None
    return sum(record.system_s or 0.0 for record in records) / whole


def _system_flag(case: Case, records: Sequence[PhaseRecord]) -> list[str]:
    """Where memory could be kept, what the system takes."""
    share = _system_share(case, records)
    if share is None or share <= SYSTEM_LIMIT or case.mode == OWN:
        return []
    return [] if why_impossible(replace(case, allocator=KEEP)) else [f"system {share:.0%}"]


def _images_per_s(
    case: Case, phase: str, passes: int, seconds: float, records: Sequence[PhaseRecord]
) -> float | None:
    # An optimiser's step takes as long for any number of images; a stream's rate is given.
    if phase == "optimizer" or case.protocol == STREAM:
        return None
    return _per_s(case.batch * passes, seconds, case, records)


def _per_s(amount: int, seconds: float, case: Case, records: Sequence[PhaseRecord]) -> float:
    """A sample's amount over its seconds; summed over processes that run at once.

    Each of them has a pace of its own: the sum is made in each launch, its median taken.
    """
    if case.concurrency == 1:
        return amount / seconds
    sums = [sum(1 / median(each) for each in seconds_by_member(record)) for record in records]
    return amount * median(sums)


def _of_load(case: Case, records: Sequence[PhaseRecord]) -> dict[str, Any]:
    """What is known of streams and throughputs alone."""
    alone = [[each.wall_s for each in record.samples.alone] for record in records]
    if not all(alone):
        return {}
    alone_s = median(map(median, alone))
    if case.protocol != STREAM:
        return {"alone_s": alone_s, "latency_images_per_s": case.batch / alone_s}
    period_s = 1 / case.rate
    latencies = [each.wall_s for record in records for each in record.samples.samples]
    queues = [record.queue for record in records if record.queue is not None]
    return {
        "alone_s": alone_s,
        "on_time": fmean(seconds <= period_s for seconds in latencies),
        "overruns": sum(seconds > period_s for launch in alone for seconds in launch),
        "queue": max(queues, default=None),
    }


def _times(pooled: Sequence[float], interval: Interval) -> dict[str, Any]:
    """The median with its interval, and how all samples (sorted) scatter."""
    # One sample has no spread to speak of.
    alone = len(pooled) == 1
    return {
        "median_s": interval.estimate,
        "ci_low_s": None if alone else interval.low,
        "ci_high_s": None if alone else interval.high,
        "mean_s": fmean(pooled),
        "std_s": None if alone else stdev(pooled),
        "min_s": pooled[0],
        "max_s": pooled[-1],
        "p05_s": quantile(pooled, 0.05),
        "p95_s": quantile(pooled, 0.95),
    }


def noise(row: Measurement) -> list[str]:
    """How a machine scatters, in words, from one measurement over several launches."""
    if row.median_s is None or row.p05_s is None or row.p95_s is None or row.ci_low_s is None:
        return [f"noise could not be measured: {row.reason}"]
    assert row.ci_high_s is not None
    spread = (row.p95_s - row.p05_s) / row.median_s
    half = max(row.ci_high_s - row.median_s, row.median_s - row.ci_low_s) / row.median_s
    line = (
        f"noise: 90% of {row.n} short passes over {row.launches} launches lie within {spread:.0%} "
        f"of each other; expect the median of as many launches to be known to about {half:.0%}"
    )
    return [line]


def _stop(records: Sequence[PhaseRecord], interval: Interval, target_ci: float | None) -> str:
    """Why measuring ended, judged on the interval over launches."""
    stops = {record.samples.stop for record in records}
    if len(stops) == 1 and stops <= {"repeat", "time"}:
        return stops.pop()
    # Of a launch with fewer samples its interval says nothing yet.
    alone = len(records) == 1 and len(records[0].samples.samples) < MIN_SAMPLES
    if target_ci is not None and not alone and interval.relative_half_width <= target_ci:
        return "converged"
    return "gave up"


def _flags(
    case: Case,
    records: Sequence[PhaseRecord],
    times: Sequence[Sequence[float]],
    pooled: Sequence[float],
    interval: Interval,
    launches: Sequence[LaunchRecord],
) -> list[str]:
    flags = []
    worst = max(map(worst_drift, records), key=abs)
    if abs(worst) > DRIFT_LIMIT:
        flags.append(f"drift {worst:+.0%}")
    spread = (quantile(pooled, 0.95) - quantile(pooled, 0.05)) / interval.estimate
    if spread > SPREAD_LIMIT:
        flags.append(f"spread {spread:.0%}")
    medians = [median(launch) for launch in times]
    span = (max(medians) - min(medians)) / interval.estimate
    if span > LAUNCH_LIMIT:
        flags.append(f"launches differ {span:.0%}")
    busy = max(record.other_cores for record in records)
    if busy > BUSY_LIMIT:
        flags.append(f"busy ({busy:.1f} cores)")
    flags += dict.fromkeys(n for launch in launches for n in launch.device.get("notes", ()))
    if any(launch.device.get("emulated") for launch in launches):
        flags.append("emulated")
    if any(record.throttled for record in records):
        flags.append("throttled")
    if not all(record.samples.steady for record in records):
        flags.append("unsteady warm-up")
    lost = [launch for launch in launches if launch.status != "ok"]
    if lost:
        flags.append(f"{len(lost)} of {len(launches)} launches failed: {lost[0].reason}")
    return [*flags, *_system_flag(case, records)]
