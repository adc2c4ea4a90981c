"""Successive halving over launches: which of several ways to do one thing get further ones.

After each rung the slower half is left alone (Karnin, Koren and Somekh, "Almost optimal
exploration in multi-armed bandits", 2013), so that most of the time is spent on those that may
be chosen. Launches are the replicates, and one launch can be off by some percent: nothing is left
alone that is within `CLOSE` of the fastest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from dabench.timing.statistics import student

RUNGS = (1, 2, 4, 8)
"""Launches that whatever is left has had when it is judged; the last ends the race."""

CLOSE = 0.08
"""Of the fastest: as far as two launches of the same may be apart."""

HOPELESS = 1.5
"""Times a limit: what takes longer in its one launch is over the limit."""

HALVING_RULE = (
    f"after {', '.join(map(str, RUNGS[:-1]))} launches the slower half of the ways to run a "
    f"network in one precision is left alone, but for those within {CLOSE:.0%} of the fastest; so "
    f"is what takes longer than a limit: {HOPELESS:g} times as long in a single launch, or with "
    f"all of its 95% interval. What is left gets {RUNGS[-1]} launches"
)


@dataclass(frozen=True, slots=True)
class Race:
    """How a race stands.

    Attributes:
        left: Names of those that are in it, the fastest first.
        out: Name -> launches after which it was left alone.
        launches: That each of ``left`` is to have; None when the race is over.
    """

    left: tuple[str, ...]
    out: Mapping[str, int]
    launches: int | None


def race(times: Mapping[str, Sequence[float]], limit_s: float | None = None) -> Race:
    """Runs a race from its launches so far; the same again whenever it is asked.

    Args:
        times: Name -> seconds of each launch, in order; all positive.
        limit_s: What takes longer is of no use; None is no limit.
    """
    left, out = tuple(times), dict[str, int]()
    for rung, launches in enumerate(RUNGS):
        if any(len(times[name]) < launches for name in left):
            return Race(left, out, launches)
        first = {name: times[name][:launches] for name in left}
        left = tuple(sorted(left, key=lambda name: median(first[name])))
        kept = [name for name in left if not _is_over(first[name], limit_s)]
        if rung < len(RUNGS) - 1 and kept:
            close_s = (1 + CLOSE) * median(first[kept[0]])
            half = max(len(kept) // 2, 1)
            kept = [n for i, n in enumerate(kept) if i < half or median(first[n]) <= close_s]
        out |= {name: launches for name in left if name not in kept}
        left = tuple(kept)
    return Race(left, out, None)


def _is_over(seconds: Sequence[float], limit_s: float | None) -> bool:
    """Whether launches say that a limit is not met."""
    if limit_s is None:
        return False
    if len(seconds) == 1:
        return seconds[0] > HOPELESS * limit_s
    centre, half = student(np.log(seconds))
    return float(centre - half) > math.log(limit_s)
