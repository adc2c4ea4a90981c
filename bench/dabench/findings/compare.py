"""Two runs, or the two sides of one, compared case by case; reads records only, without pandas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Literal

from dabench.base.errors import UsageError
from dabench.base.units import format_seconds
from dabench.device.machine import difference
from dabench.plan.cases import Case, PlannedCase
from dabench.records.comparisons import read_comparison, sides_of
from dabench.records.folder import read_run
from dabench.records.measurements import BUSY_LIMIT, DRIFT_LIMIT, LaunchRecord, seconds_of
from dabench.records.summary import launches_by_case
from dabench.records.timings import read_plan
from dabench.timing.statistics import Interval, drift, trend
from dabench.timing.verdicts import (
    DELTA,
    LOOKS,
    Judgement,
    Sides,
    Verdict,
    judge,
    judge_sequentially,
)

HARDWARE = ("cpu", "logical_cores", "usable_cores", "gpus")
"""Facts in which two machines must agree for their times to be compared at all."""

SOFTWARE = ("torch", "cuda", "cudnn", "driver", "cpu_capability", "variables", "packages", "python")
"""Facts in which they must agree for a difference to be the networks' own."""

AFFECTED = 0.25
"""Share of one side's launches that may be disturbed before nothing is said."""

Code = Literal[
    "", "open", "failed", "one-launch", "throttled", "busy", "drift", "trend", "software"
]

CODES: Mapping[Code, str] = {
    "open": "the interval reaches over the margin",
    "failed": "a side was not measured",
    "one-launch": "a side ran in one process only, which says nothing of the next",
    "throttled": "the processor slowed itself down",
    "busy": f"other programs used over {BUSY_LIMIT:g} cores",
    "drift": f"passes changed by over {DRIFT_LIMIT:.0%} within a launch",
    "trend": "launches became faster or slower through a run, and the two did not alternate",
    "software": "the two runs differ in more than what is compared",
}
"""Reasons for which a verdict stays undecided."""


@dataclass(frozen=True, slots=True)
class Side:
    """One case of one run."""

    case: Case
    launches: Sequence[LaunchRecord]
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One phase of one case on both sides.

    Attributes:
        delta: Differences of up to this share are called the same.
        base_s: Median over launches, in seconds; None if it was not measured.
        ratio: New over base with its 95% interval.
        verdict: Of new against base.
        code: Of `CODES`; empty where it is decided.
        reason: The same in words, with what was found.
        needed_launches: Further ones of each side that would decide it, all else staying as it is.
        needed_s: How long those take.
        judgement: What the launches say; None where they say nothing.
        sides: Seconds of all samples.
        sequential: Whether it was looked at again and again.
    """

    base: Case
    new: Case
    phase: str
    delta: float
    base_s: float | None = None
    new_s: float | None = None
    ratio: Interval | None = None
    launches: int = 0
    verdict: Verdict = "undecided"
    code: Code = ""
    reason: str = ""
    needed_launches: int | None = None
    needed_s: float | None = None
    judgement: Judgement | None = None
    sides: Sides | None = None
    sequential: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A flat JSON document."""
        judged = self.judgement
        return {
            "base": self.base.case_id,
            "new": self.new.case_id,
            "phase": self.phase,
            "base_s": self.base_s,
            "new_s": self.new_s,
            "ratio": self.ratio and self.ratio.estimate,
            "ratio_low": self.ratio and self.ratio.low,
            "ratio_high": self.ratio and self.ratio.high,
            "launches": self.launches,
            "verdict": self.verdict,
            "code": self.code,
            "reason": self.reason,
            "p": judged and judged.p,
            "level": judged and judged.level,
            "needed_launches": self.needed_launches,
            "needed_s": self.needed_s,
        }


def compare_runs(base: Path, new: Path, delta: float = DELTA) -> list[Compared]:
    """Compares the cases that two runs have in common.

    Raises:
        UsageError: No timings in one of them, other hardware, or no case in common.
        ResultsError: Damaged records.
    """
    documents = [read_run(path, "timing") for path in (base, new)]
    environments = [document["environment"] for document in documents]
    if found := difference(environments[0], environments[1], HARDWARE):
        raise UsageError(
            f"{new} was measured on another machine than {base}: {found}; times of different "
            "machines are not compared, rankings are ('dabench rank')"
        )
    sides = [read_sides(path) for path in (base, new)]
    common = [case_id for case_id in sides[0] if case_id in sides[1]]
    if not common:
        raise UsageError(
            f"{base} and {new} have no case in common; the first of each: "
            f"{next(iter(sides[0]), '-')} and {next(iter(sides[1]), '-')}"
        )
    pairs = [(sides[0][case_id], sides[1][case_id]) for case_id in common]
    return _compared(pairs, delta, alternated=False, sequential=False)


def compare_within(path: Path, delta: float | None = None) -> list[Compared]:
    """Compares the two sides of a run that was made to compare them.

    Args:
        path: Its folder.
        delta: The margin; None takes the one it was made with.

    Raises:
        UsageError: No such run there.
        ResultsError: Damaged records.
    """
    document = read_run(path, "timing")
    asked = read_comparison(path, document)
    if asked is None:
        raise UsageError(f"{path} was not made by 'dabench compare'; name two runs")
    sides = read_sides(path)
    pairs = [(sides[base], sides[new]) for base, new in asked.pairs]
    margin = asked.delta if delta is None else delta
    return _compared(pairs, margin, alternated=True, sequential=asked.decide)


def read_sides(path: Path) -> dict[str, Side]:
    """The cases of a run of timings, by their ids.

    Raises:
        UsageError: No timings there.
        ResultsError: Damaged records.
    """
    document = read_run(path, "timing")
    plan: list[PlannedCase] = read_plan(path, document)
    launches = launches_by_case(path, plan)
    environment = document["environment"]
    return {
        planned.case.case_id: Side(planned.case, launches[planned.case.case_id], environment)
        for planned in plan
    }


def _compared(
    pairs: Iterable[tuple[Side, Side]], delta: float, *, alternated: bool, sequential: bool
) -> list[Compared]:
    """Judges all phases of all pairs as one family."""
    found: dict[tuple[str, str, str], tuple[Side, Side, str, Sides]] = {}
    for base, new in pairs:
        for phase in (each for each in base.case.phases if each in new.case.phases):
            sides = sides_of(
                base.launches, new.launches, phase, base.case.protocol, alternated=alternated
            )
            found[base.case.case_id, new.case.case_id, phase] = (base, new, phase, sides)
    first = LOOKS[0] if sequential else 2
    family = {key: each[3] for key, each in found.items() if each[3].launches >= first}
    judged = (judge_sequentially if sequential else judge)(family, delta)
    return [
        _one(*each, judged.get(key), delta, alternated=alternated, sequential=sequential)
        for key, each in found.items()
    ]


def _one(
    base: Side,
    new: Side,
    phase: str,
    sides: Sides,
    judged: Judgement | None,
    delta: float,
    *,
    alternated: bool,
    sequential: bool,
) -> Compared:
    medians = [median(map(median, side)) if side else None for side in (sides.base, sides.new)]
    rest: dict[str, Any] = {
        "base": base.case, "new": new.case, "phase": phase, "delta": delta,
        "base_s": medians[0], "new_s": medians[1], "launches": sides.launches, "sides": sides,
        "sequential": sequential,
    }  # fmt: skip
    code, reason = _why_not(base, new, phase, delta, alternated=alternated)
    if judged is None:
        if not code:
            code, reason = "one-launch", CODES["one-launch"]
        return Compared(**rest, code=code, reason=reason)
    rest |= {"ratio": judged.ratio, "judgement": judged}
    if code:
        return Compared(**rest, code=code, reason=reason)
    if judged.verdict != "undecided":
        return Compared(**rest, verdict=judged.verdict)
    launch_s = sum(fmean(launch.seconds for launch in side.launches) for side in (base, new))
    needed_s = None if judged.needed is None else judged.needed * launch_s
    return Compared(
        **rest,
        code="open",
        reason=_how_far(judged.needed, needed_s),
        needed_launches=judged.needed,
        needed_s=needed_s,
    )


def _how_far(needed: int | None, needed_s: float | None) -> str:
    if needed is None:
        return f"{CODES['open']}; no sensible number of launches would decide it"
    return (
        f"{CODES['open']}; about {needed} more launches of each would decide it "
        f"({format_seconds(needed_s)})"
    )


def _why_not(
    base: Side, new: Side, phase: str, delta: float, *, alternated: bool
) -> tuple[Code, str]:
    """Why nothing can be said of a pair however narrow its interval is; empty if it can."""
    for side in (base, new):
        lost = [launch for launch in side.launches if launch.status != "ok"]
        if lost or not side.launches:
            why = f"{lost[0].status}: {lost[0].reason}" if lost else "pending"
            return "failed", f"{side.case.model}: {why}"
    if found := difference(base.environment, new.environment, SOFTWARE):
        return "software", f"{CODES['software']}: {found}"
    checks: Sequence[tuple[Code, Callable[[LaunchRecord], bool]]] = (
        ("throttled", lambda launch: any(p.throttled for p in launch.phases)),
        ("busy", lambda launch: any(p.other_cores > BUSY_LIMIT for p in launch.phases)),
        ("drift", lambda launch: _drifts(launch, phase, base.case.protocol)),
    )
    for code, disturbed in checks:
        for side in (base, new):
            number = sum(map(disturbed, side.launches))
            if number > AFFECTED * len(side.launches):
                of = f"in {number} of {len(side.launches)} launches of {side.case.model}"
                return code, f"{CODES[code]} {of}"
    if not alternated:
        for side in (base, new):
            times = sides_of(
                side.launches, side.launches, phase, side.case.protocol, alternated=False
            )
            if abs(trend([median(each) for each in times.base])) > delta:
                return "trend", f"{CODES['trend']} ({side.case.model})"
    return "", ""


def _drifts(launch: LaunchRecord, phase: str, protocol: str) -> bool:
    return any(
        abs(drift(seconds_of(record, protocol))) > DRIFT_LIMIT
        for record in launch.phases
        if record.phase == phase
    )


def explained(compared: Compared) -> list[tuple[str, str]]:
    """The numbers and the rule that led to a verdict, as rows of name and value."""
    rows = [("base", compared.base.case_id), ("new", compared.new.case_id)]
    sides, judged = compared.sides, compared.judgement
    for name, side in (("base", sides.base), ("new", sides.new)) if sides else ():
        if len(side) > 1:
            medians = [median(each) for each in side]
            scatter = stdev(map(math.log, medians))
            rows.append(
                (
                    f"{name} launches",
                    f"{len(side)}, median {format_seconds(median(medians))}, scatter {scatter:.2%}",
                )
            )
    if judged is not None:
        found = judged.evidence
        rows += [
            ("log of the ratio", f"{found.centre:+.4f} +- {found.error:.4f}"),
            ("degrees of freedom", f"{found.freedom:.1f} ({found.rule})"),
            ("95% interval", _shown(judged.ratio)),
            ("level allowed", f"{judged.level:.5f}"),
            ("interval at that level", _shown(judged.tested)),
            ("margin", f"{1 - compared.delta:.3f} to {1 + compared.delta:.3f}"),
            ("level at which it would fall", f"{judged.p:.3g}"),
            ("launches judged", str(judged.launches)),
            ("from the interval", judged.verdict),
        ]
    if compared.code:
        rows.append((f"undecided: {compared.code}", compared.reason))
    return [*rows, ("verdict", compared.verdict)]


def _shown(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"
