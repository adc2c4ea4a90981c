"""Tails of times: percentiles and shares within a deadline, each with its interval, or refused.

A percentile far out needs many passes: below it and above it some must be left, or
what is printed is the largest value seen. Launches are the replicates here, too: a
launch's percentile is one draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

import numpy as np
from scipy.special import bdtrik, betaincinv, fdtri

from dabench.timing.statistics import (
    TAIL,
    Array,
    Interval,
    median_interval,
    quantile,
    student,
)

PERCENTILES: Mapping[str, float] = MappingProxyType(
    {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
)
"""Name -> share of passes that take no longer."""

ORDERED_LAUNCHES = 6
"""From so many launches on their order alone gives a 95% interval."""

UPPER = 0.2
"""What launches have in common is taken to be what only this share of chance would exceed."""

TAIL_RULE = (
    "a percentile is the median over launches of each launch's own; its 95% interval is from order "
    f"statistics over launches, with fewer than {ORDERED_LAUNCHES} launches Student's t on "
    "logarithms, with one launch order statistics of its passes. It is refused where a launch has "
    "too few passes for those (binomial). The interval of a share within a deadline is Clopper and "
    "Pearson's for as many passes as count once what a launch's share is taken out (Kish 1965)"
)


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile of a case.

    Attributes:
        name: Of `PERCENTILES`.
        seconds: With its 95% interval; None where it is refused.
        passes: Fewest passes of a launch.
        needed: Fewest that it takes.
        launches: How many there are.
    """

    name: str
    seconds: Interval | None
    passes: int
    needed: int
    launches: int

    @property
    def refusal(self) -> str:
        """Why it is not there; empty if it is."""
        if self.seconds is not None:
            return ""
        return f"{self.name} needs {self.needed} passes in each launch, there are {self.passes}"


def needed_passes(share: float) -> int:
    """Fewest passes of which order statistics give a percentile a two-sided 95% interval.

    With fewer all of them lie below the true one with a probability of over 2.5%.
    """
    return math.ceil(math.log(TAIL) / math.log(max(share, 1 - share)))


def percentile(name: str, launches: Sequence[Sequence[float]]) -> Percentile:
    """A percentile of launches, or why there is none.

    Args:
        name: Of `PERCENTILES`.
        launches: Positive samples of each, in seconds.
    """
    share = PERCENTILES[name]
    needed, fewest = needed_passes(share), min(map(len, launches))
    if fewest < needed:
        return Percentile(name, None, fewest, needed, len(launches))
    if len(launches) == 1:
        found = _within(sorted(launches[0]), share)
    else:
        found = _over([quantile(sorted(samples), share) for samples in launches])
    return Percentile(name, found, fewest, needed, len(launches))


def _within(ordered: Sequence[float], share: float) -> Interval:
    """Of one launch: order statistics whose ranks leave out 2.5% of the binomial at each end."""
    n = len(ordered)
    # The true percentile lies above the r-th smallest value with at least 97.5%.
    low = max(math.ceil(float(bdtrik(TAIL, n, share))), 1)
    high = n + 1 - max(math.ceil(float(bdtrik(TAIL, n, 1 - share))), 1)
    return Interval(quantile(ordered, share), ordered[low - 1], ordered[high - 1])


def _over(values: Sequence[float]) -> Interval:
    """Of several launches' own percentiles."""
    if len(values) >= ORDERED_LAUNCHES:
        return median_interval(values)
    centre, half = student(np.log(values))
    estimate = median(values)
    low, high = math.exp(float(centre - half)), math.exp(float(centre + half))
    return Interval(estimate, min(low, estimate), max(high, estimate))


def share_within(launches: Sequence[Sequence[float]], deadline_s: float) -> Interval:
    """Share of passes that take no longer than a deadline, with its 95% interval.

    Clopper and Pearson's for the passes that are left of them once what they share in a launch
    is taken out (the design effect of Kish, "Survey Sampling", 1965). What they share shows in
    which are within, or where all are, in the order of their times.

    Args:
        launches: Positive samples of each, in seconds.
        deadline_s: In seconds.
    """
    within = [[float(seconds <= deadline_s) for seconds in samples] for samples in launches]
    hits, total = sum(map(sum, within)), sum(map(len, within))
    effective = float(total)
    if len(launches) > 1:
        # Ranks, so that a few very long passes do not hide what whole launches share.
        flat = _ranks(np.concatenate([np.asarray(samples) for samples in launches]))
        ends = np.cumsum([len(samples) for samples in launches])[:-1]
        shared = max(_upper_share(within), _upper_share(np.split(flat, ends)))
        effective = total / (1 + (total / len(launches) - 1) * shared)
    yes, no = effective * hits / total, effective * (total - hits) / total
    low = float(betaincinv(yes, no + 1, TAIL)) if yes > 0 else 0.0
    high = float(betaincinv(yes + 1, no, 1 - TAIL)) if no > 0 else 1.0
    return Interval(hits / total, low, high)


def _ranks(values: Array) -> Array:
    """Each value's place among all; equal ones share theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[which])


def _upper_share(launches: Sequence[Sequence[float] | Array]) -> float:
    """The most of their variance that passes of one launch may have in common.

    Upper end of a one-sided interval (`UPPER`) of the intraclass correlation (Searle, "Linear
    Models", 1971), from the ratio of the variances between and within launches: few launches
    do not know it well.
    """
    values = [np.asarray(each, dtype=float) for each in launches]
    m, total = len(values), sum(map(len, values))
    n = total / m
    if n <= 1 or total <= m:
        return 0.0
    mean = float(np.concatenate(values).mean())
    between = sum(len(each) * (float(each.mean()) - mean) ** 2 for each in values) / (m - 1)
    within = sum(float(((each - each.mean()) ** 2).sum()) for each in values) / (total - m)
    if within == 0:
        return float(between > 0)
    ratio = between / within / float(fdtri(m - 1, total - m, UPPER))
    return min(max((ratio - 1) / (ratio - 1 + n), 0.0), 1.0)
