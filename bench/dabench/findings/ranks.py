"""The order of models on each machine, and where it holds or flips; reads records only.

Times of different machines are never compared; which of two models is faster on
each of them may be.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any, Literal

from dabench.base.errors import UsageError
from dabench.device.machine import processor
from dabench.findings.compare import read_sides
from dabench.plan.axes import AXES
from dabench.plan.cases import Case
from dabench.records.comparisons import Side, seconds_per_pass
from dabench.timing.verdicts import DELTA, Sides, Verdict, judge

PRINTED = "printed"
"""Ends the name of a machine whose figures are from the literature, without intervals."""

Order = Literal["holds", "flips", "open"]

_APART = ("model", "device", "threads", "phase")


@dataclass(frozen=True, slots=True)
class Place:
    """A machine and a setting in which models were measured.

    Attributes:
        machine: Its processor, or its GPU; a run's name behind it where there are several.
        setting: What was measured, but for the model.
        mode: ``train`` or ``eval``.
        phase: Which.
        batch: Images.
        way: Precision, layout, way of running and protocol.
    """

    machine: str
    setting: str
    mode: str
    phase: str
    batch: int
    way: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Models in one place, the fastest first.

    Attributes:
        models: Name, median seconds and place: one more than there are models that are faster.
        order: The names, ``<`` where the next is slower, ``~`` where that is undecided or they
            are the same.
    """

    place: Place
    models: tuple[tuple[str, float, int], ...]
    order: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models wherever both were measured in one way, with whatever batch.

    Attributes:
        order: ``holds`` if one is faster in every place, ``flips`` if each is somewhere, else
            ``open``.
        first_on: Where the first is faster.
        second_on: Where the second is.
        undecided_on: Where neither is.
    """

    first: str
    second: str
    mode: str
    phase: str
    way: str
    order: Order
    first_on: tuple[str, ...]
    second_on: tuple[str, ...]
    undecided_on: tuple[str, ...]

    @property
    def places(self) -> int:
        """How many there are."""
        return len(self.first_on) + len(self.second_on) + len(self.undecided_on)


def rank(
    runs: Sequence[Path], delta: float = DELTA, *, printed: bool = False
) -> tuple[list[Ranking], list[Pair]]:
    """Ranks the models of runs, place by place, and says where their order holds.

    Args:
        runs: Folders of timings.
        delta: Differences of up to this share are the same.
        printed: Whether to show the figures of the paper beside them, as printed.

    Raises:
        UsageError: No timings there, or no two models in one setting.
        ResultsError: Damaged records.
    """
    verdicts: dict[Place, dict[tuple[str, str], Verdict]] = {}
    medians: dict[Place, dict[str, float]] = {}
    for place, sides in _places(runs).items():
        times = {model: _one(side, place.phase) for model, side in sides.items()}
        known = {model: each for model, each in times.items() if len(each.base) > 1}
        # A model of which a single launch is known has a time, and no verdict.
        medians[place] = {m: median(map(median, t.base)) for m, t in times.items() if t.base}
        verdicts[place] = _judged(known, delta)
    for place, seconds in _printed().items() if printed else ():
        medians[place] = seconds
        verdicts[place] = {
            (a, b): _as_printed(seconds[a], seconds[b])
            for a, b in itertools.combinations(seconds, 2)
        }
    several = {place: found for place, found in medians.items() if len(found) > 1}
    if not several:
        raise UsageError("no two models were measured in one setting of one machine")
    return (
        [_ranking(place, found, verdicts[place]) for place, found in several.items()],
        _pairs({place: verdicts[place] for place in several}, several),
    )


def _places(runs: Iterable[Path]) -> dict[Place, dict[str, Side]]:
    found: dict[Place, dict[str, Side]] = {}
    for run in runs:
        for side in read_sides(run).values():
            for phase in side.case.phases:
                if not any(phase == r.phase for launch in side.launches for r in launch.phases):
                    continue
                place = _place(side, phase)
                if side.case.model in found.get(place, {}):
                    place = replace(place, machine=f"{place.machine} ({run.resolve().name})")
                found.setdefault(place, {})[side.case.model] = side
    return found


def _place(side: Side, phase: str) -> Place:
    case, facts = side.case, next(each.device for each in side.launches if each.phases)
    name = facts.get("device_name") if case.device != "cpu" else None
    threads = facts.get("threads") or side.environment.get("threads")
    cpu = f"{processor(side.environment)}, {threads} threads"
    return Place(
        machine=str(name or (cpu if case.device == "cpu" else case.device)),
        setting="/".join(filter(None, (_part(case, key) for key in AXES if key not in _APART))),
        mode=case.mode,
        phase=phase,
        batch=case.batch,
        way=_way(case),
    )


def _part(case: Case, key: str) -> str | None:
    return AXES[key].part(case)


def _way(case: Case) -> str:
    keys = (
        "dtype",
        "memory_format",
        "compile",
        "fuse",
        "runtime",
        "input",
        "calibration",
        "keep_float",
        "allocator",
        "protocol",
        "rate",
        "concurrency",
    )
    return " ".join(filter(None, (_part(case, key) for key in keys)))


def _one(side: Side, phase: str) -> Sides:
    """A side's launches; both sides of what is returned are this one."""
    seconds, rounds = seconds_per_pass(side, phase)
    return Sides(seconds, seconds, (rounds, rounds))


def _judged(times: Mapping[str, Sides], delta: float) -> dict[tuple[str, str], Verdict]:
    """Of each two models whether the first is faster, judged as a family."""
    family = {
        (a, b): Sides(times[b].base, times[a].base, _rounds(times[b], times[a]))
        for a, b in itertools.combinations(times, 2)
    }
    return {pair: each.verdict for pair, each in judge(family, delta).items()}


def _rounds(one: Sides, two: Sides) -> Any:
    return one.rounds and two.rounds and (one.rounds[0], two.rounds[0])


def _as_printed(a: float, b: float) -> Verdict:
    return "faster" if a < b else "slower" if a > b else "same"


def _ranking(
    place: Place, seconds: Mapping[str, float], verdicts: Mapping[tuple[str, str], Verdict]
) -> Ranking:
    faster = _faster(verdicts)
    places = {m: 1 + sum((other, m) in faster for other in seconds) for m in seconds}
    models = sorted(seconds, key=lambda model: (places[model], seconds[model]))
    signs = ["<" if pair in faster else "~" for pair in itertools.pairwise(models)]
    words = [models[0], *itertools.chain(*zip(signs, models[1:], strict=True))]
    return Ranking(
        place, tuple((model, seconds[model], places[model]) for model in models), " ".join(words)
    )


def _faster(verdicts: Mapping[tuple[str, str], Verdict]) -> set[tuple[str, str]]:
    """Pairs of which the first is faster."""
    return {pair for pair, each in verdicts.items() if each == "faster"} | {
        (b, a) for (a, b), each in verdicts.items() if each == "slower"
    }


def _pairs(
    verdicts: Mapping[Place, Mapping[tuple[str, str], Verdict]],
    medians: Mapping[Place, Mapping[str, float]],
) -> list[Pair]:
    """Each two models over the places in which both were measured."""
    places: dict[tuple[str, ...], list[Place]] = {}
    for place, seconds in medians.items():
        for pair in itertools.combinations(sorted(seconds), 2):
            places.setdefault((*pair, place.mode, place.phase, place.way), []).append(place)
    found = []
    for (first, second, mode, phase, way), where in places.items():
        named = {place: f"{place.machine} b{place.batch}" for place in where}
        faster = {place: _faster(verdicts[place]) for place in where}
        first_on = [name for place, name in named.items() if (first, second) in faster[place]]
        second_on = [name for place, name in named.items() if (second, first) in faster[place]]
        rest = [
            name
            for place, name in named.items()
            if not {(first, second), (second, first)} & faster[place]
        ]
        order: Order = "open"
        if first_on and second_on:
            order = "flips"
        elif not rest:
            order = "holds"
        sides = (tuple(dict.fromkeys(names)) for names in (first_on, second_on, rest))
        found.append(Pair(first, second, mode, phase, way, order, *sides))
    return sorted(found, key=lambda pair: ("flips", "holds", "open").index(pair.order))


def _printed() -> dict[Place, dict[str, float]]:
    """The paper's timings of discriminators; it names no precision: torch's usual one."""
    found: dict[Place, dict[str, float]] = {}
    path = resources.files("dabench") / "reference" / "published.csv"
    for row in csv.DictReader(path.read_text("utf-8").splitlines()):
        if row["protocol"] != "paper":
            continue
        size = f"{row['channels']}x{row['height']}x{row['width']}"
        place = Place(
            machine=f"{row['machine']} ({PRINTED})",
            setting=f"b{row['batch']}/{size}/{row['mode']}/fp32/nchw/paper",
            mode=row["mode"],
            phase="forward",
            batch=int(row["batch"]),
            way="fp32 nchw paper",
        )
        found.setdefault(place, {})[row["model"]] = float(row["value"])
    return found
