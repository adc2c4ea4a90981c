"""Whether one thing is faster than another, and how sure one can be: verdicts over families.

A verdict speaks of a ratio of times, new over base, and of a margin ``delta``:
``slower`` and ``faster`` need the whole interval outside of it, ``same`` needs it
all inside, anything else is ``undecided``.

Of many cases that are judged together some would be misjudged by chance; Holm's
step-down procedure (Scandinavian Journal of Statistics 6, 1979) keeps the
probability of any at `LEVEL`. Who looks again and again until a verdict falls
gets one by chance in the end: `LOOKS` says after how many launches one may look,
and each look gets a share of the level, in proportion to its number. Their sum is
the level (Bonferroni's inequality), so the error rate is kept whenever one stops.

No interval covers what few launches have not met. Where processes come out in two
modes, such as by how memory was laid out, all launches of one side may have met
the one and all of the other side the other: until that is unlikely in a family
(`fewest_launches`) only differences that modes do not make are believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dabench.timing.statistics import Interval, LogRatio, log_ratio

Verdict = Literal["faster", "slower", "same", "undecided"]

Key = TypeVar("Key")

LEVEL = 0.05
"""Probability of a false verdict in a family of cases."""

DELTA = 0.02
"""Differences of up to this share are called the same."""

LOOKS = (4, 6, 8, 11, 16, 23, 32, 45, 64)
"""Launches of each side after which a sequential comparison may be decided."""

MODES = 0.25
"""Differences of up to this share may be two modes of one thing, where launches are few."""

MODES_RISK = 0.032
"""Probability, within a family, that two modes are taken for a difference."""

MOST_NEEDED = 10_000

VERDICT_RULE = (
    "a case is slower or faster if the whole interval of its ratio lies outside of the margin, "
    "the same if all of it lies inside; intervals of cases that are judged together are widened "
    f"so that a false verdict among them has a probability of at most {LEVEL:.0%} (Holm). Of few "
    f"launches only differences of over {MODES:.0%} are believed: they may all have met one mode"
)
SEQUENTIAL_RULE = (
    f"looked at after {', '.join(map(str, LOOKS))} launches of each side; each look has a share "
    f"of the {LEVEL:.0%} in proportion to its number (Bonferroni), so that stopping at a verdict "
    "does not make false ones likelier"
)


@dataclass(frozen=True, slots=True)
class Sides:
    """Launches of the two sides of one comparison.

    Attributes:
        base: Seconds of each sample of each launch.
        new: Likewise.
        rounds: Of both sides' launches, where these alternated within rounds.
    """

    base: Sequence[Sequence[float]]
    new: Sequence[Sequence[float]]
    rounds: tuple[Sequence[int | None], Sequence[int | None]] | None = None

    @property
    def launches(self) -> int:
        """Of the side that has fewer."""
        return min(len(self.base), len(self.new))

    def first(self, launches: int) -> Sides:
        """The first so many launches of each side."""
        rounds = self.rounds and (self.rounds[0][:launches], self.rounds[1][:launches])
        return Sides(self.base[:launches], self.new[:launches], rounds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What follows from one comparison.

    Attributes:
        verdict: Of new against base.
        ratio: New over base, with its own 95% interval.
        tested: The interval on which the verdict rests, widened for the family and the looks.
        margin: What it had to lie outside of; wider than asked for where launches are few.
        p: Level at which the verdict would just fall.
        level: Level that was allowed.
        launches: Of the side that has fewer.
        needed: Further launches of each side that would decide it, should the estimate and the
            scatter stay as they are; 0 if decided, None if no sensible number would.
        evidence: What the launches say of the ratio.
    """

    verdict: Verdict
    ratio: Interval
    tested: Interval
    margin: float
    p: float
    level: float
    launches: int
    needed: int | None
    evidence: LogRatio


def verdict(ratio: Interval, delta: float = DELTA) -> Verdict:
    """What an interval of a ratio says of the numerator against the denominator."""
    if ratio.low > 1 + delta:
        return "slower"
    if ratio.high < 1 - delta:
        return "faster"
    return "same" if 1 - delta <= ratio.low and ratio.high <= 1 + delta else "undecided"


def fewest_launches(size: int) -> int:
    """Launches of each side that are enough in a family of so many cases.

    With two modes that are met equally often, n launches of one side all meet the one and n of
    the other side all the other with a probability of 2 / 4^n.
    """
    return math.ceil(math.log(2 * size / MODES_RISK, 4))


def judge(
    family: Mapping[Key, Sides], delta: float = DELTA, size: int | None = None
) -> dict[Key, Judgement]:
    """Judges cases together from all launches they have.

    Args:
        family: Name -> launches, two of each side or more.
        delta: The margin.
        size: Cases in the family, with those of which nothing is known; None has no others.
    """
    size = len(family) if size is None else size
    return _judged(family, delta, LEVEL, size, size)


def judge_sequentially(
    family: Mapping[Key, Sides], delta: float = DELTA, size: int | None = None
) -> dict[Key, Judgement]:
    """Judges cases as they were decided one look after the other; the open ones at their last.

    The same again whenever it is asked with the same launches, or with more of them. Cases that
    have fewer launches than the first look are left out.

    Args:
        family: Name -> launches.
        delta: The margin.
        size: Cases in the family, with those of which nothing is known; None has no others.
    """
    size = len(family) if size is None else size
    decided: dict[Key, Judgement] = {}
    latest: dict[Key, Judgement] = {}
    for number, launches in enumerate(LOOKS):
        there = {
            name: sides.first(launches)
            for name, sides in family.items()
            if name not in decided and sides.launches >= launches
        }
        found = _judged(there, delta, look_level(number), size - len(decided), size)
        latest |= found
        decided |= {name: each for name, each in found.items() if each.verdict != "undecided"}
    return {
        name: decided.get(name)
        or replace(
            latest[name], needed=_needed_looks(latest[name], family[name].launches, delta, size)
        )
        for name in family
        if name in latest
    }


def look_level(number: int) -> float:
    """The level of a look, counted from 0; the later, the larger."""
    return LEVEL * 2 * (number + 1) / (len(LOOKS) * (len(LOOKS) + 1))


def next_look(launches: int) -> int | None:
    """Launches of each side at the look after so many; None after the last."""
    return next((look for look in LOOKS if look > launches), None)


def _judged(
    family: Mapping[Key, Sides], delta: float, level: float, open_cases: int, size: int
) -> dict[Key, Judgement]:
    """Holm's procedure: the clearest case at a share of the level, the next at a larger one."""
    if not family:
        return {}
    evidence = {
        # By which rule is settled before any case is looked at: at the smallest level.
        name: log_ratio(each.new, each.base, _turned(each), level / open_cases)
        for name, each in family.items()
    }
    margins = {
        name: delta if each.launches >= fewest_launches(size) else max(delta, MODES)
        for name, each in family.items()
    }
    levels = {name: _level_of(each, margins[name], delta) for name, each in evidence.items()}
    judged: dict[Key, Judgement] = {}
    allowed, failed = level / open_cases, False
    for rank, name in enumerate(sorted(levels, key=lambda name: levels[name])):
        found, launches = evidence[name], family[name].launches
        # Nothing is decided behind the first that is not: its level holds for all of them.
        allowed = allowed if failed else level / (open_cases - rank)
        tested = found.interval(allowed)
        says = verdict(tested, margins[name])
        if says == "same" and margins[name] > delta:
            says = "undecided"  # of few launches nobody can say so
        failed = failed or says == "undecided"
        judged[name] = Judgement(
            verdict="undecided" if failed else says,
            ratio=found.interval(),
            tested=tested,
            margin=margins[name],
            p=levels[name],
            level=allowed,
            launches=launches,
            needed=_needed(found, launches, delta, allowed, size) if failed else 0,
            evidence=found,
        )
    return {name: judged[name] for name in family}


def _turned(sides: Sides) -> tuple[Sequence[int | None], Sequence[int | None]] | None:
    """The rounds, those of the numerator first."""
    return sides.rounds and (sides.rounds[1], sides.rounds[0])


def _level_of(found: LogRatio, margin: float, delta: float) -> float:
    """The level at which a verdict would just fall; 1 where none can."""
    inside = math.log1p(-margin) < found.centre < math.log1p(margin)
    return 1.0 if inside and margin > delta else found.level_at(_gap(found, margin))


def _gap(found: LogRatio, margin: float) -> float:
    """How far the logarithm is from the nearest point at which the verdict would be another."""
    return min(abs(found.centre - math.log1p(bound)) for bound in (-margin, margin))


def _needed(found: LogRatio, launches: int, delta: float, level: float, size: int) -> int | None:
    """Further launches of each side that bring the interval's half-width to the gap."""
    totals = _growing(launches)
    with np.errstate(over="ignore", invalid="ignore"):  # of an error without bounds none decide
        half = stdtrit(found.freedom / launches * totals, 1 - level / 2) * found.error
        decided = half * np.sqrt(launches / totals) <= _gap(found, delta)
    enough = decided & (totals >= fewest_launches(size))
    return int(totals[enough.argmax()]) - launches if enough.any() else None


@cache
def _growing(launches: int) -> NDArray[np.int64]:
    """Numbers of launches to try, ever further apart."""
    totals = [launches + 1]
    while totals[-1] < MOST_NEEDED:
        totals.append(max(totals[-1] + 1, int(totals[-1] * 1.05)))
    found = np.array(totals)
    found.flags.writeable = False
    return found


def _needed_looks(judged: Judgement, there: int, delta: float, size: int) -> int | None:
    """Launches beyond those that are there until the look that would decide; None if none would."""
    # The family's share stays as it was at the last look.
    share = judged.level / look_level(LOOKS.index(judged.launches))
    for number, launches in enumerate(LOOKS):
        if launches > judged.launches:
            level = share * look_level(number)
            further = _needed(judged.evidence, judged.launches, delta, level, size)
            if further is not None and further <= launches - judged.launches:
                return max(launches - there, 1)
    return None
