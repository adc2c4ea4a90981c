"""Tails of times: percentiles and shares within a deadline, each with its interval, or refused.

A percentile far out needs many passes: below it and above it some must be left, or
what is printed is the largest value seen. Launches are the replicates here, too: a
launch's percentile is one draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from types import MappingProxyType

import numpy as np
from scipy.special import bdtrik, betaincinv

from dabench.timing.statistics import TAIL, Interval, median_interval, quantile, student

PERCENTILES: Mapping[str, float] = MappingProxyType(
    {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
)
"""Name -> share of passes that take no longer."""

ORDERED_LAUNCHES = 6
"""From so many launches on their order alone gives a 95% interval."""

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
    is taken out. Where all are within nothing shows how much that is, but their times do.

    Args:
        launches: Positive samples of each, in seconds.
        deadline_s: In seconds.
    """
    hits = sum(sum(seconds <= deadline_s for seconds in samples) for samples in launches)
    total = sum(map(len, launches))
    effective = total / _design_effect(launches) if len(launches) > 1 else float(total)
    yes, no = effective * hits / total, effective * (total - hits) / total
    low = float(betaincinv(yes, no + 1, TAIL)) if yes > 0 else 0.0
    high = float(betaincinv(yes + 1, no, 1 - TAIL)) if no > 0 else 1.0
    return Interval(hits / total, low, high)


def _design_effect(launches: Sequence[Sequence[float]]) -> float:
    """How many passes of these launches tell as much as one independent pass.

    Kish, "Survey Sampling" (1965): 1 + (n - 1) rho, n passes in a launch, whose logarithms have
    the share rho of their variance in common.
    """
    logs = [np.log(samples) for samples in launches]
    n = fmean(map(len, launches))
    if n == 1:
        return 1.0
    within = sum(float(((each - each.mean()) ** 2).sum()) for each in logs)
    within /= sum(len(each) - 1 for each in logs)
    between = float(np.var([each.mean() for each in logs], ddof=1))
    shared = max(between - within / n, 0.0)
    return 1 + (n - 1) * shared / (shared + within) if shared + within > 0 else 1.0
