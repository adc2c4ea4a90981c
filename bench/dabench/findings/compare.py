"""Two runs, or the two sides of one, compared case by case; reads records only, without pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from dabench.base.errors import UsageError
from dabench.base.units import format_seconds
from dabench.device.machine import HARDWARE, SOFTWARE, differing
from dabench.plan.cases import Case
from dabench.records.comparisons import (
    DISTURBANCES,
    Comparison,
    Family,
    Key,
    Side,
    read_comparison,
)
from dabench.records.folder import read_run
from dabench.records.summary import launches_by_case
from dabench.records.timings import read_plan
from dabench.timing.statistics import Interval, trend
from dabench.timing.verdicts import DELTA, LOOKS, Judgement, Sides, Verdict

CODES: Mapping[str, str] = {
    "open": "the interval reaches over the margin",
    "failed": "a side was not measured",
    "few-launches": "a side ran in too few processes, which says nothing of the next",
    **DISTURBANCES,
    "trend": "launches became faster or slower through a run, and the two did not alternate",
    "software": "the two runs differ in more than what is compared",
}
"""Reasons for which a verdict stays undecided."""


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
    code: str = ""
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


def compare_runs(base: Path, new: Path, delta: float = DELTA, families: int = 1) -> list[Compared]:
    """Compares the cases that two runs have in common.

    Args:
        base: Folder of a run.
        new: Of another one.
        delta: Differences of up to this share are called the same.
        families: How many such pairs of runs are compared at once, of which these are one.

    Raises:
        UsageError: No timings in one of them, other hardware, or no case in common.
        ResultsError: Damaged records.
    """
    if base.resolve() == new.resolve():
        raise UsageError(f"{base} and {new} are one run")
    environments = [read_run(path, "timing")["environment"] for path in (base, new)]
    if found := differing(environments[0], environments[1], HARDWARE):
        raise UsageError(
            f"{base} and {new} were measured on two machines: {found}; times of different "
            "machines are not compared, rankings are ('dabench rank')"
        )
    sides = [read_sides(path) for path in (base, new)]
    common = [case_id for case_id in sides[0] if case_id in sides[1]]
    family = Family.of(((sides[0][each], sides[1][each]) for each in common), alternated=False)
    if not family.pairs:
        raise UsageError(
            f"{base} and {new} have no case and phase in common; the first of each: "
            f"{next(iter(sides[0]), '-')} and {next(iter(sides[1]), '-')}"
        )
    return _compared(family, delta, sequential=False, families=families)


def compare_within(path: Path, delta: float | None = None) -> list[Compared]:
    """Compares the two sides of a run that was made to compare them.

    Args:
        path: Its folder.
        delta: The margin; None takes the one it was made with.

    Raises:
        UsageError: No such run there.
        ResultsError: Damaged records.
    """
    asked = asked_of(path)
    sides = read_sides(path)
    pairs = ((sides[base], sides[new]) for base, new in asked.pairs)
    family = Family.of(pairs, alternated=True)
    return _compared(family, asked.delta if delta is None else delta, sequential=asked.decide)


def asked_of(path: Path) -> Comparison:
    """What a run of `dabench compare` was asked.

    Raises:
        UsageError: No such run there.
        ResultsError: Damaged records.
    """
    asked = read_comparison(path, read_run(path, "timing"))
    if asked is None:
        raise UsageError(f"{path} was not made by 'dabench compare'; name two runs")
    return asked


def read_sides(path: Path) -> dict[str, Side]:
    """The cases of a run of timings, by their ids.

    Raises:
        UsageError: No timings there.
        ResultsError: Damaged records.
    """
    document = read_run(path, "timing")
    plan = read_plan(path, document)
    launches = launches_by_case(path, plan)
    environment = document["environment"]
    return {
        each.case.case_id: Side(
            each.case, launches[each.case.case_id], environment, each.impossible
        )
        for each in plan
    }


def _compared(
    family: Family, delta: float, *, sequential: bool, families: int = 1
) -> list[Compared]:
    """Judges all phases of all pairs as one family."""
    judged = family.judged(delta, sequential=sequential, families=families)
    return [_one(family, key, judged.get(key), delta, sequential) for key in family.pairs]


def _one(
    family: Family, key: Key, judged: Judgement | None, delta: float, sequential: bool
) -> Compared:
    base, new = family.pairs[key]
    sides = family.sides(key)
    # A sequential verdict rests on the launches at which it fell.
    shown = sides.first(judged.launches) if judged and sequential else sides
    base_s, new_s = (
        median(map(median, side)) if side else None for side in (shown.base, shown.new)
    )
    rest: dict[str, Any] = {
        "base": base.case, "new": new.case, "phase": key[2], "delta": delta, "base_s": base_s,
        "new_s": new_s, "launches": sides.launches, "sides": shown, "sequential": sequential,
    }  # fmt: skip
    code, reason = _why_not(family, key, delta, judged)
    if judged is None:
        if not code:
            first = LOOKS[0] if sequential else 2
            code = "few-launches"
            reason = f"{CODES[code]}: {sides.launches} of at least {first}"
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


def _why_not(family: Family, key: Key, delta: float, judged: Judgement | None) -> tuple[str, str]:
    """Why nothing can be said of a pair however narrow its interval is; empty if it can."""
    if failure := family.failure(key):
        return "failed", failure
    base, new = family.pairs[key]
    if found := differing(base.environment, new.environment, SOFTWARE):
        return "software", f"{CODES['software']}: {found}"
    if disturbance := family.disturbance(key, judged):
        return disturbance
    if not family.alternated:
        sides = family.sides(key)
        for side, seconds in ((base, sides.base), (new, sides.new)):
            if abs(trend([median(each) for each in seconds])) > delta:
                return "trend", f"{CODES['trend']} ({side.case.model})"
    return "", ""


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
            ("margin", f"{1 - judged.margin:.3f} to {1 + judged.margin:.3f}"),
            ("level at which it would fall", f"{judged.p:.3g}"),
            ("launches judged", str(judged.launches)),
            ("from the interval", judged.verdict),
        ]
    if compared.code:
        rows.append((f"undecided: {compared.code}", compared.reason))
    return [*rows, ("verdict", compared.verdict)]


def _shown(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"
