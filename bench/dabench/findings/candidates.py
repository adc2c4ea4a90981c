"""One way to run one network: its time and accuracy, and which limits it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from dabench.base.units import format_bytes, format_seconds, significant
from dabench.findings.joining import Accuracy, Identity, Scores
from dabench.findings.tables import LaunchTimes
from dabench.plan.axes import AXES, OPTIONAL
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.ways import AXES_OF_WAYS, parse_way, way_name
from dabench.records.choices import MEDIAN, Limits
from dabench.timing.halving import HOPELESS
from dabench.timing.statistics import Interval, launch_interval
from dabench.timing.tails import percentile

MET, MISSED, UNDECIDED, UNKNOWN = "met", "missed", "undecided", "unknown"

PENDING = "not scored yet"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run one network.

    Attributes:
        case: What was timed.
        status: ``ok``, or why it was not timed.
        reason: More of it.
        identity: Weights and graph, of a trained network.
        graph: Digest of the operators that run, where it is known.
        percentile: Which of the passes its time is of.
        stopped: Launches after which it was left alone; None of what went on to the end.
        seconds: Of a pass: the percentile that the limits name; None where there is none.
        launches: How many.
        times: Its samples.
        peak_bytes: Where it is known.
        joules: Of an image, where it is known.
        accuracy: Where it was scored, on the graph that was timed.
        unscored: Why there is no accuracy, of a trained network.
        limits: Limit -> whether it is met; only those that were asked for.
    """

    case: Case
    status: str
    reason: str = ""
    identity: Identity | None = None
    graph: str = ""
    percentile: str = MEDIAN
    stopped: int | None = None
    seconds: Interval | None = None
    launches: int = 0
    times: LaunchTimes | None = None
    peak_bytes: float | None = None
    joules: float | None = None
    accuracy: Accuracy | None = None
    unscored: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Network and way."""
        return f"{self.case.model} {way_name(self.case)}"

    @property
    def admissible(self) -> str:
        """``met``, ``missed`` or ``undecided``: all limits together."""
        said = set(self.limits.values())
        if self.status != "ok" or MISSED in said:
            return MISSED
        return UNDECIDED if said & {UNDECIDED, UNKNOWN} or self.stopped else MET

    @property
    def why(self) -> str:
        """Which limits it misses, or why it is undecided; empty where it keeps them."""
        if self.admissible == MISSED:
            return ", ".join(name for name, said in self.limits.items() if said == MISSED)
        if self.stopped:
            return f"left alone after {self.stopped}"
        parts = []
        for name, said in self.limits.items():
            if said == UNKNOWN:
                because = f": {self.unscored}" if name == "accuracy" and self.unscored else ""
                parts.append(f"{name} not known{because}")
            elif said == UNDECIDED:
                one = name == "deadline" and self.launches < 2
                parts.append(f"{name}: " + ("one launch" if one else "the interval spans it"))
        return ", ".join(parts)


def timed_candidate(
    planned: PlannedCase,
    row: Mapping[Any, Any],
    times: LaunchTimes | None,
    stopped: int | None,
    limits: Limits,
) -> Candidate:
    """A candidate with its times and what they say of the limits.

    Args:
        planned: The case.
        row: Its measurement.
        times: Its samples, where there are any.
        stopped: Launches after which it was left alone; None of what went on to the end.
        limits: As asked.
    """
    if row["status"] != "ok" or times is None:
        return Candidate(planned.case, str(row["status"]), str(row["reason"]))
    seconds = (
        launch_interval(times.seconds)
        if limits.percentile == MEDIAN
        else percentile(limits.percentile, times.seconds).seconds
    )
    launches = len(times.seconds)
    peak, joules = (
        None if pd.isna(row[name]) else float(row[name])
        for name in ("peak_bytes", "joules_per_image")
    )
    on_time = _within(seconds, limits.deadline_s)
    if on_time is not None and seconds is not None and launches < 2:
        # Its interval says nothing of the next launch.
        hopeless = seconds.estimate > HOPELESS * (limits.deadline_s or 0)
        on_time = MISSED if hopeless else UNDECIDED
    said = {
        "deadline": on_time,
        "memory": _within(_exactly(peak), limits.memory_bytes),
        "energy": _within(_exactly(joules), limits.joules),
    }
    return Candidate(
        case=planned.case,
        status="ok",
        percentile=limits.percentile,
        stopped=stopped,
        seconds=seconds,
        launches=launches,
        times=times,
        peak_bytes=peak,
        joules=joules,
        limits={name: each for name, each in said.items() if each is not None},
    )


def scored_candidate(
    each: Candidate,
    identity: Identity | None,
    scores: Scores,
    limits: Limits,
    *,
    to_score: bool,
) -> Candidate:
    """A candidate with the accuracy of its graph, or the reason why there is none."""
    accuracy = None if identity is None else scores.known.get(identity)
    unscored = ""
    if accuracy is None and to_score:
        unscored = PENDING if identity is None else scores.failed.get(identity, PENDING)
    # At least so much is at most minus so much.
    negative = None if accuracy is None else Interval(
        -accuracy.miou.estimate, -accuracy.miou.high, -accuracy.miou.low
    )  # fmt: skip
    enough = _within(negative, None if limits.miou is None else -limits.miou)
    said = {"accuracy": enough} if enough is not None and each.status == "ok" else {}
    return replace(
        each,
        identity=identity,
        accuracy=accuracy,
        unscored=unscored,
        limits={**each.limits, **said},
    )


def candidates_left_out(
    ways: Iterable[str], notes: Iterable[str], candidates: Sequence[Candidate]
) -> Iterator[Candidate]:
    """Ways in a precision that the device only emulates, which were asked for where it does not."""
    said = list(notes)
    first = {each.case.model: each.case for each in candidates}
    names = {each.name for each in candidates}
    for way in ways:
        axes: dict[str, Any] = parse_way(way)
        if not axes.get("dtype", "").endswith(OPTIONAL):
            continue
        usual = {key: AXES[key].plain for key in AXES_OF_WAYS}
        chosen = {**usual, **axes, "dtype": axes["dtype"].removesuffix(OPTIONAL)}
        reason = next((note for note in said if note.startswith(f"{chosen['dtype']} ")), "")
        for case in first.values():
            each = Candidate(replace(case, **chosen), "unsupported", reason)
            if each.name not in names:
                yield each


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value)


def _within(found: Interval | None, limit: float | None) -> str | None:
    """Whether a limit is met; None where there is none."""
    if limit is None:
        return None
    if found is None:
        return UNKNOWN
    if found.high <= limit:
        return MET
    return MISSED if found.low > limit else UNDECIDED


def figures(each: Candidate) -> str:
    """What is known of a way, in one line."""
    parts = []
    if each.seconds is not None:
        low, high = format_seconds(each.seconds.low), format_seconds(each.seconds.high)
        within = f"[{low} to {high}]" if each.launches > 1 else "in one launch"
        which = "" if each.percentile == MEDIAN else f"{each.percentile} "
        parts.append(f"{which}{format_seconds(each.seconds.estimate)} {within}")
    if each.accuracy is not None:
        miou = each.accuracy.miou
        parts.append(f"mIoU {miou.estimate:.2%} [{miou.low:.2%} to {miou.high:.2%}]")
    if each.peak_bytes is not None:
        parts.append(f"{format_bytes(each.peak_bytes)}")
    if each.joules is not None:
        parts.append(f"{significant(each.joules)} J an image")
    return ", ".join(parts)
