"""Successive halving over launches: which of several ways to do one thing get further ones.

After each rung the slower half is left alone (Karnin, Koren and Somekh, "Almost optimal
exploration in multi-armed bandits", 2013), so that most of the time is spent on those that may
be chosen. Launches are the replicates, and one or two of them can be off by far more than ways
differ: nothing is left alone that is within `CLOSE` of the fastest, and what would have won by the
launches it had is called back in the end.
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
"""Share by which a way may be slower than the fastest and go on nevertheless."""

HOPELESS = 1.5
"""Times a limit: what takes longer in its one launch is over the limit."""

HALVING_RULE = (
    f"after {', '.join(map(str, RUNGS[:-1]))} launches the slower half of the ways to run a "
    f"network is left alone, but for those within {CLOSE:.0%} of the fastest; so is what is over a "
    f"limit: {HOPELESS:g} times the deadline in a single launch, or beyond it with all of the 95% "
    f"interval. What is left gets {RUNGS[-1]} launches, and so does what was left alone with less "
    "time than the fastest then has. Networks without trained weights are raced by all their ways, "
    "trained ones in each precision, and what has no figure for a limit by itself"
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
    over: set[str] = set()
    for rung, launches in enumerate(RUNGS):
        if any(len(times[name]) < launches for name in left):
            return Race(left, out, launches)
        first = {name: times[name][:launches] for name in left}
        left = tuple(sorted(left, key=lambda name: median(first[name])))
        over |= {name for name in left if _is_over(first[name], limit_s)}
        kept = [name for name in left if name not in over]
        if rung < len(RUNGS) - 1 and kept:
            close_s = (1 + CLOSE) * median(first[kept[0]])
            half = max(len(kept) // 2, 1)
            kept = [n for i, n in enumerate(kept) if i < half or median(first[n]) <= close_s]
        out |= {name: launches for name in left if name not in kept}
        left = tuple(kept)
    return _called_back(times, left, out, over)


def _called_back(
    times: Mapping[str, Sequence[float]],
    left: tuple[str, ...],
    out: Mapping[str, int],
    over: set[str],
) -> Race:
    """The end of a race: what would have won by its few launches runs on, too."""
    if not left:
        return Race(left, out, None)
    last = RUNGS[-1]
    best_s = median(times[left[0]][:last])
    back = [n for n, had in out.items() if n not in over and median(times[n][:had]) < best_s]
    all_left = sorted((*left, *back), key=lambda name: median(times[name][:last]))
    still_out = {name: had for name, had in out.items() if name not in back}
    missing = any(len(times[name]) < last for name in back)
    return Race(tuple(all_left), still_out, last if missing else None)


def _is_over(seconds: Sequence[float], limit_s: float | None) -> bool:
    """Whether launches say that a limit is not met."""
    if limit_s is None:
        return False
    if len(seconds) == 1:
        return seconds[0] > HOPELESS * limit_s
    centre, half = student(np.log(seconds))
    return float(centre - half) > math.log(limit_s)
