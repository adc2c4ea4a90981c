"""Which network, run how: what keeps every limit, what nothing beats, and the one to take."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.units import format_bytes, format_seconds, format_share, significant
from dabench.findings.joining import Accuracy, Identities, accuracies, as_accurate
from dabench.findings.tables import LaunchTimes, launch_times, load
from dabench.plan.axes import AXES
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.ways import AXES_OF_WAYS, way_name
from dabench.records.choices import KIND, MEDIAN, TIMES, Limits, races, read_limits, scores_of
from dabench.records.folder import read_run
from dabench.records.summary import launches_by_case
from dabench.records.timings import read_plan
from dabench.timing.statistics import Interval, launch_interval, ratio_interval
from dabench.timing.tails import percentile
from dabench.timing.verdicts import verdict

MET, MISSED, UNDECIDED, UNKNOWN = "met", "missed", "undecided", "unknown"

CHOICE_RULE = (
    "a limit is met or missed where all of the 95% interval says so (of memory and energy, which "
    "have none, the figure); admissible is what meets all of them. Of what is admissible the most "
    "accurate is taken, of those that are not surely less accurate on the same images the fastest; "
    "without accuracies, or with --miou and no --deadline, the fastest. On the front is what "
    "nothing else beats, by the figures: in time and accuracy, and in memory where that has a "
    "limit or no accuracy is known; what has no figure beats nothing that has one"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run one network.

    Attributes:
        case: What was timed.
        status: ``ok``, or why it was not timed.
        reason: More of it.
        stopped: Launches after which it was left alone; None of what went on to the end.
        seconds: Of a pass: the percentile that the limits name; None where there is none.
        launches: How many.
        times: Its samples.
        peak_bytes: Where it is known.
        joules: Of an image, where it is known.
        accuracy: Where it was scored, on the graph that was timed.
        limits: Limit -> whether it is met; only those that were asked for.
    """

    case: Case
    status: str
    reason: str = ""
    stopped: int | None = None
    seconds: Interval | None = None
    launches: int = 0
    times: LaunchTimes | None = None
    peak_bytes: float | None = None
    joules: float | None = None
    accuracy: Accuracy | None = None
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


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run came to.

    Attributes:
        limits: As asked.
        candidates: Every way, the fastest first; those that were not timed at the end.
        front: Names of those that nothing beats.
        chosen: The one to take; None where none is sure to be admissible.
        open: Names of what is as good as the chosen one, for all that is known.
        finished: Whether the race was run to its end, and what is left was scored.
        says: In words.
        command: That times the chosen one; empty without one.
    """

    limits: Limits
    candidates: tuple[Candidate, ...]
    front: tuple[str, ...]
    chosen: Candidate | None
    open: tuple[str, ...]
    finished: bool
    says: tuple[str, ...]
    command: str

    def to_frame(self) -> pd.DataFrame:
        """A row per candidate, in their order."""
        return pd.DataFrame([_row(each, self) for each in self.candidates], columns=list(COLUMNS))


COLUMNS = (
    "model", "way", *AXES_OF_WAYS, "device", "batch", "height", "width", "threads", "status",
    "reason", "launches", "stopped", "percentile", "seconds", "seconds_low", "seconds_high",
    "peak_bytes", "joules", "miou", "miou_low", "miou_high", "data", "synthetic", "deadline",
    "memory", "energy", "accuracy", "admissible", "front", "chosen",
)  # fmt: skip


def choice_of(folder: Path) -> Choice:
    """What the records of a run say.

    Raises:
        UsageError: No run of a choice there, or none of its ways was begun.
        ResultsError: Damaged records.
    """
    read_run(folder, KIND)
    times = folder / TIMES
    document = read_run(times)
    limits = read_limits(times, document) or Limits()
    plan = read_plan(times, document)
    found = races(plan, launches_by_case(times, plan), limits)
    out = {name: launches for race in found.values() for name, launches in race.out.items()}
    scored = accuracies(scores_of(folder))
    identities = Identities(times)
    loaded = load([times])
    rows = {row["case_id"]: row for row in loaded.measurements.to_dict("records")}
    samples = {case_id: each for (_, case_id, _), each in launch_times(loaded).items()}
    candidates = [
        _candidate(
            planned,
            rows[planned.case.case_id],
            samples.get(planned.case.case_id),
            out.get(planned.case.case_id),
            scored.get(identity) if (identity := identities.of(planned.case)) else None,
            limits,
        )
        for planned in plan
    ]
    candidates.sort(key=lambda each: (each.seconds is None, each.seconds and each.seconds.estimate))
    chosen, alike = _pick(candidates, limits)
    finished = all(race.launches is None for race in found.values())
    return Choice(
        limits,
        tuple(candidates),
        tuple(each.name for each in _front(candidates, limits)),
        chosen,
        tuple(each.name for each in alike),
        finished,
        tuple(_says(candidates, chosen, alike, limits, finished=finished)),
        "" if chosen is None else command_of(chosen.case),
    )


def _candidate(
    planned: PlannedCase,
    row: Mapping[Any, Any],
    times: LaunchTimes | None,
    stopped: int | None,
    accuracy: Accuracy | None,
    limits: Limits,
) -> Candidate:
    if row["status"] != "ok" or times is None:
        return Candidate(planned.case, str(row["status"]), str(row["reason"]))
    seconds = (
        launch_interval(times.seconds)
        if limits.percentile == MEDIAN
        else percentile(limits.percentile, times.seconds).seconds
    )
    peak, joules = (
        None if pd.isna(row[name]) else float(row[name])
        for name in ("peak_bytes", "joules_per_image")
    )
    said = {
        "deadline": _within(seconds, limits.deadline_s),
        "memory": _within(_exactly(peak), limits.memory_bytes),
        "energy": _within(_exactly(joules), limits.joules),
        # At least so much is at most minus so much.
        "accuracy": _within(
            None if accuracy is None else _negative(accuracy.miou),
            None if limits.miou is None else -limits.miou,
        ),
    }
    return Candidate(
        case=planned.case,
        status="ok",
        stopped=stopped,
        seconds=seconds,
        launches=len(times.seconds),
        times=times,
        peak_bytes=peak,
        joules=joules,
        accuracy=accuracy,
        limits={name: each for name, each in said.items() if each is not None},
    )


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value)


def _negative(interval: Interval) -> Interval:
    return Interval(-interval.estimate, -interval.high, -interval.low)


def _within(found: Interval | None, limit: float | None) -> str | None:
    """Whether a limit is met; None where there is none."""
    if limit is None:
        return None
    if found is None:
        return UNKNOWN
    if found.high <= limit:
        return MET
    return MISSED if found.low > limit else UNDECIDED


def _front(candidates: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Those of what may be admissible that nothing beats."""
    able = [each for each in candidates if each.admissible != MISSED and each.seconds is not None]
    by_memory = limits.memory_bytes is not None or all(each.accuracy is None for each in able)
    figures_of = {each.name: _figures(each, by_memory=by_memory) for each in able}
    return [
        each
        for each in able
        if not any(_beats(other, figures_of[each.name]) for other in figures_of.values())
    ]


Figures = tuple[float | None, ...]


def _figures(each: Candidate, *, by_memory: bool) -> Figures:
    """Time, lack of accuracy and memory: the less the better."""
    return (
        None if each.seconds is None else each.seconds.estimate,
        None if each.accuracy is None else -each.accuracy.miou.estimate,
        each.peak_bytes if by_memory else None,
    )


def _beats(one: Figures, other: Figures) -> bool:
    """Whether one is as good in all that is known of the other, and better in something."""
    if any(a is None and b is not None for a, b in zip(one, other, strict=True)):
        return False
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _pick(
    candidates: Iterable[Candidate], limits: Limits
) -> tuple[Candidate | None, list[Candidate]]:
    """The one to take, and what is not surely slower than it among those that would do as well."""
    able = [each for each in candidates if each.admissible == MET and each.seconds is not None]
    known = [(each, each.accuracy) for each in able if each.accuracy is not None]
    by_time = limits.miou is not None and limits.deadline_s is None
    if known and not by_time:
        best = max((accuracy for _, accuracy in known), key=lambda each: each.miou.estimate)
        able = [each for each, accuracy in known if as_accurate(accuracy, best)]
    if not able:
        return None, []
    first, *others = able
    return first, [each for each in others if _verdict(each, first) in (UNDECIDED, "same")]


def _verdict(each: Candidate, first: Candidate) -> str:
    assert each.times is not None
    assert first.times is not None
    if min(each.launches, first.launches) < 2:
        return UNDECIDED
    rounds = (each.times.rounds, first.times.rounds)
    return verdict(ratio_interval(each.times.seconds, first.times.seconds, rounds))


def command_of(case: Case) -> str:
    """The line that times a case again."""
    words = ["dabench", "time", "--model", case.model]
    for key in ("device", "batch", *AXES_OF_WAYS, "threads"):
        value = getattr(case, key)
        if value not in (*AXES[key].usual, 0):
            words += [AXES[key].option, str(value)]
    words += ["--size", f"{case.height}x{case.width}"]
    return shlex.join(words)


def _says(
    candidates: Sequence[Candidate],
    chosen: Candidate | None,
    alike: Sequence[Candidate],
    limits: Limits,
    *,
    finished: bool,
) -> Iterable[str]:
    if not finished:
        yield "The race was not run to its end: what is still in it has fewer launches."
    timed = [each for each in candidates if each.seconds is not None]
    if chosen is not None:
        yield f"Take {chosen.name}: {figures(chosen)}."
        if alike:
            names = ", ".join(each.name for each in alike)
            yield f"Not surely slower, and as good otherwise: {names}."
    elif maybe := [each for each in timed if each.admissible == UNDECIDED and not each.stopped]:
        shown = "; ".join(f"{each.name}: {figures(each)}" for each in maybe[:3])
        yield f"Nothing is sure to keep every limit. Undecided: {shown}."
    elif timed:
        fastest = f"{timed[0].name}, {figures(timed[0])}"
        yield f"Nothing keeps every limit. The fastest there is: {fastest}."
    else:
        yield "Nothing could be timed."
    for each in timed:
        real = each.accuracy and each.accuracy.real
        if real is not None and verdict(real) in ("slower", "faster"):
            yield (
                f"{each.name} takes {real.estimate:.3f} [{real.low:.3f} to {real.high:.3f}] times "
                "as long on real images as on the random input that it was timed on."
            )
    if any(each.accuracy is not None and each.accuracy.synthetic for each in timed):
        yield "Accuracies are of drawn images and say nothing of real ones."
    if timed and all(each.accuracy is None for each in timed):
        yield (
            "No accuracy is known: this ranks by time and memory alone, and says nothing of which "
            "network is the better one."
        )


def figures(each: Candidate) -> str:
    """What is known of a way, in one line."""
    parts = []
    if each.seconds is not None:
        low, high = format_seconds(each.seconds.low), format_seconds(each.seconds.high)
        parts.append(f"{format_seconds(each.seconds.estimate)} [{low} to {high}]")
    if each.accuracy is not None:
        miou = each.accuracy.miou
        parts.append(
            f"mIoU {format_share(round(miou.estimate, 4))} "
            f"[{format_share(round(miou.low, 4))} to {format_share(round(miou.high, 4))}]"
        )
    if each.peak_bytes is not None:
        parts.append(f"{format_bytes(each.peak_bytes)}")
    if each.joules is not None:
        parts.append(f"{significant(each.joules)} J an image")
    return ", ".join(parts)


def _row(each: Candidate, choice: Choice) -> dict[str, Any]:
    case, miou = each.case, each.accuracy and each.accuracy.miou
    return {
        **{name: getattr(case, name) for name in (*AXES_OF_WAYS, "device", "batch", "height")},
        "model": case.model,
        "way": way_name(case),
        "width": case.width,
        "threads": case.threads or None,
        "status": each.status,
        "reason": each.reason,
        "launches": each.launches,
        "stopped": each.stopped,
        "percentile": choice.limits.percentile,
        "seconds": each.seconds and each.seconds.estimate,
        "seconds_low": each.seconds and each.seconds.low,
        "seconds_high": each.seconds and each.seconds.high,
        "peak_bytes": each.peak_bytes,
        "joules": each.joules,
        "miou": miou and miou.estimate,
        "miou_low": miou and miou.low,
        "miou_high": miou and miou.high,
        "data": each.accuracy and each.accuracy.data,
        "synthetic": each.accuracy and each.accuracy.synthetic,
        **{name: each.limits.get(name) for name in ("deadline", "memory", "energy", "accuracy")},
        "admissible": each.admissible,
        "front": each.name in choice.front,
        "chosen": each is choice.chosen,
    }
