"""Which network, run how: what keeps every limit, what nothing beats, and the one to take."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.errors import ResultsError
from dabench.findings.candidates import (
    MET,
    MISSED,
    PENDING,
    UNDECIDED,
    Candidate,
    candidates_left_out,
    figures,
    scored_candidate,
    timed_candidate,
)
from dabench.findings.joining import (
    Identities,
    as_accurate,
    read_accuracies,
)
from dabench.findings.tables import load
from dabench.plan.axes import AXES
from dabench.plan.cases import Case
from dabench.plan.trained import is_trained
from dabench.plan.ways import AXES_OF_WAYS, way_name
from dabench.records.choices import KIND, MEDIAN, TIMES, Limits, races, read_limits, scores_of
from dabench.records.folder import RUN, bad_row, read_run
from dabench.records.summary import launches_by_case
from dabench.records.timings import MEASUREMENTS, read_plan
from dabench.timing.halving import HOPELESS
from dabench.timing.statistics import quantile, ratio_interval
from dabench.timing.tails import PERCENTILES
from dabench.timing.verdicts import verdict

CHOICE_RULE = (
    "a limit is met or missed where all of the 95% interval says so (of memory and energy, which "
    f"have none, the figure; a deadline in a single launch is missed by {HOPELESS:g} times or "
    "undecided); admissible is what meets all of them. Of what is admissible the most accurate is "
    "taken, of those that are not surely less accurate on the same images the fastest; without "
    "accuracies, or with --miou and no --deadline, the fastest. The figures of the one to take are "
    "of the launches and images that it was chosen by. On the front is what nothing else beats, by "
    "the figures, of what was measured to the end: in time and accuracy, and in memory where that "
    "has a limit or no accuracy is known; what has no figure beats nothing that has one"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run came to.

    Attributes:
        limits: As asked.
        machine: Its name, or its GPU's.
        candidates: Every way, the fastest first; those that were not timed at the end.
        front: Names of those that nothing beats.
        chosen: The one to take; None where none is sure to be admissible.
        open: Names of what is as good as the chosen one, for all that is known.
        finished: Whether the race was run to its end, and what is left was scored.
        says: In words.
        command: That times the chosen one; empty without one.
    """

    limits: Limits
    machine: str
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
    "model", "weights", "graph", "way", *AXES_OF_WAYS, "device", "batch", "height", "width",
    "threads", "status", "reason", "launches", "stopped", "percentile", "seconds", "seconds_low",
    "seconds_high", "peak_bytes", "joules", "miou", "miou_low", "miou_high", "data", "synthetic",
    "unscored", "deadline", "memory", "energy", "accuracy", "admissible", "why", "front", "chosen",
)  # fmt: skip


def choice_of(folder: Path) -> Choice:
    """What the records of a run say.

    Raises:
        UsageError: No run of a choice there, or none of its ways was begun.
        ResultsError: Damaged records.
    """
    asked = read_run(folder, KIND)
    times = folder / TIMES
    document = read_run(times)
    limits = read_limits(times, document) or Limits()
    plan = read_plan(times, document)
    found = races(plan, launches_by_case(times, plan), limits)
    out = {name: launches for race in found.values() for name, launches in race.out.items()}
    scores, identities = read_accuracies(scores_of(folder)), Identities(times)
    loaded = load([times])
    rows = {row["case_id"]: row for row in loaded.measurements.to_dict("records")}
    samples = {case_id: each for (_, case_id, _), each in loaded.times.items()}
    for planned in plan:
        if planned.case.case_id not in rows:
            raise ResultsError(f"{times / MEASUREMENTS}: no row of {planned.case.case_id}")
    candidates = []
    for planned in plan:
        case_id = planned.case.case_id
        timed = timed_candidate(
            planned, rows[case_id], samples.get(case_id), out.get(case_id), limits
        )
        to_score = asked.get("data") is not None and is_trained(planned.case.model)
        identity = identities.of(planned.case)
        scored = scored_candidate(timed, identity, scores, limits, to_score=to_score)
        candidates.append(replace(scored, graph=identities.graph(planned.case)))
    with bad_row(folder / RUN, 1):
        candidates += candidates_left_out(
            asked["asked"].get("ways", ()), document.get("left_out", ()), candidates
        )
    candidates.sort(key=lambda each: (each.seconds is None, each.seconds and each.seconds.estimate))
    pending = [each for each in candidates if each.unscored == PENDING and not each.stopped]
    pending = [each for each in pending if each.admissible != MISSED]
    picked = _pick(candidates, limits) if not pending else Picked(None, (), None)
    finished = not pending and all(race.launches is None for race in found.values())
    said = _says(candidates, picked, pending, finished=finished, scores=asked.get("data"))
    return Choice(
        limits,
        str(loaded.measurements["machine"].iloc[0]),
        tuple(candidates),
        tuple(each.name for each in _front(candidates, limits)),
        picked.first,
        tuple(each.name for each in picked.alike),
        finished,
        tuple(said),
        "" if picked.first is None else command_of(picked.first.case),
    )


def _front(candidates: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Those of what was measured to the end, and may be admissible, that nothing beats."""
    able = [
        each
        for each in candidates
        if each.admissible != MISSED and each.seconds is not None and not each.stopped
    ]
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


@dataclass(frozen=True, slots=True)
class Picked:
    """What is taken.

    Attributes:
        first: The one.
        alike: What is not surely slower, of those that would do as well.
        highest: The most accurate, where that is another one.
    """

    first: Candidate | None
    alike: tuple[Candidate, ...]
    highest: Candidate | None


def _pick(candidates: Iterable[Candidate], limits: Limits) -> Picked:
    able = [each for each in candidates if each.admissible == MET and each.seconds is not None]
    known = [(each, each.accuracy) for each in able if each.accuracy is not None]
    by_time = limits.miou is not None and limits.deadline_s is None
    highest = None
    if known and not by_time:
        highest, best = max(known, key=lambda pair: pair[1].miou.estimate)
        able = [each for each, accuracy in known if as_accurate(accuracy, best)]
    if not able:
        return Picked(None, (), None)
    first, *others = able
    alike = tuple(each for each in others if _verdict(each, first) in (UNDECIDED, "same"))
    same = highest is None or highest is first or _miou(highest) == _miou(first)
    return Picked(first, alike, None if same else highest)


def _miou(each: Candidate) -> float | None:
    return None if each.accuracy is None else each.accuracy.miou.estimate


def _verdict(each: Candidate, first: Candidate) -> str:
    assert each.times is not None
    assert first.times is not None
    if min(each.launches, first.launches) < 2:
        return UNDECIDED
    ours, theirs = (
        _by_launch(times.seconds, first.percentile) for times in (each.times, first.times)
    )
    rounds = (each.times.rounds, first.times.rounds)
    return verdict(ratio_interval(ours, theirs, rounds))


def _by_launch(launches: Sequence[Sequence[float]], which: str) -> list[list[float]]:
    """What stands for each launch: its samples, or the percentile that was asked for."""
    if which == MEDIAN:
        return [list(samples) for samples in launches]
    return [[quantile(sorted(samples), PERCENTILES[which])] for samples in launches]


def command_of(case: Case) -> str:
    """The line that times a case again."""
    words = ["dabench", "time", "--model", case.model]
    for key, axis in AXES.items():
        value = getattr(case, key, None)
        if key not in ("model", "size", "phase") and value not in (
            *axis.usual,
            axis.plain,
            0,
            None,
        ):
            words += [axis.option, str(value)]
    words += ["--size", f"{case.height}x{case.width}"]
    return shlex.join(words)


def _says(
    candidates: Sequence[Candidate],
    picked: Picked,
    pending: Sequence[Candidate],
    *,
    finished: bool,
    scores: object,
) -> Iterator[str]:
    if pending:
        names = ", ".join(each.name for each in pending)
        yield f"Not scored yet: {names}; 'dabench choose --resume' goes on."
    elif not finished:
        yield "The race was not run to its end: what is still in it has fewer launches."
    timed = [each for each in candidates if each.seconds is not None]
    if picked.first is not None:
        yield from _says_of(picked)
    elif not pending:
        yield from _says_of_none(timed)
    maybe = [each for each in timed if each.admissible == UNDECIDED and not each.stopped]
    if maybe and not pending:
        shown = "; ".join(f"{each.name} ({each.why})" for each in maybe[:5])
        yield f"Undecided: {shown}."
    if failed := [each for each in timed if each.unscored not in ("", PENDING)]:
        shown = "; ".join(f"{each.name}: {each.unscored}" for each in failed)
        yield f"Not scored: {shown}."
    for each in timed:
        real = None if each.accuracy is None else each.accuracy.real
        if real is not None and verdict(real) in ("slower", "faster"):
            yield (
                f"{each.name} takes {real.estimate:.3f} [{real.low:.3f} to {real.high:.3f}] times "
                "as long on real images as on the random input that it was timed on."
            )
    if any(each.accuracy is not None and each.accuracy.synthetic for each in timed):
        yield "Accuracies are of drawn images and say nothing of real ones."
    if timed and scores is None:
        yield (
            "No accuracy is known: this ranks by time and memory alone, and says nothing of which "
            "network is the better one."
        )


def _says_of(picked: Picked) -> Iterator[str]:
    assert picked.first is not None
    yield f"Take {picked.first.name}: {figures(picked.first)}."
    if picked.alike:
        names = ", ".join(each.name for each in picked.alike)
        yield f"Not surely slower, and as good otherwise: {names}."
    if picked.highest is not None:
        better = f"{picked.highest.name}, {figures(picked.highest)}"
        yield f"Higher, but not surely on these images: {better}."


def _says_of_none(timed: Sequence[Candidate]) -> Iterator[str]:
    if not timed:
        yield "Nothing could be timed."
        return
    fastest = f"The fastest there is: {timed[0].name}, {figures(timed[0])}."
    if any(each.admissible == UNDECIDED and not each.stopped for each in timed):
        yield f"Nothing is sure to keep every limit. {fastest}"
    elif left := [each for each in timed if each.admissible == UNDECIDED]:
        names = ", ".join(each.name for each in left)
        yield (
            f"Nothing that was measured to the end keeps every limit. {fastest} Left alone for a "
            f"faster one, and not judged: {names}; --ways names what to measure."
        )
    else:
        yield f"Nothing keeps every limit. {fastest}"


def _row(each: Candidate, choice: Choice) -> dict[str, Any]:
    case, miou = each.case, each.accuracy and each.accuracy.miou
    return {
        **{name: getattr(case, name) for name in (*AXES_OF_WAYS, "device", "batch", "height")},
        "model": case.model,
        "weights": each.identity and each.identity.weights,
        "graph": each.graph or None,
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
        "unscored": each.unscored,
        **{name: each.limits.get(name) for name in ("deadline", "memory", "energy", "accuracy")},
        "admissible": each.admissible,
        "why": each.why,
        "front": each.name in choice.front,
        "chosen": each is choice.chosen,
    }
