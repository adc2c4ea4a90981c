"""Statistics of samples: pure functions, seconds in, seconds out.

Launches (fresh processes) are the replicates. Samples of one launch share that
launch's luck with memory layout and clock, so their spread says nothing about
the next launch's. Times are positive and scatter by factors, so intervals over
launches are made on the logarithms of the launches' medians.

What the intervals cover was found by simulation with known truth
(``tests/unit/test_statistics.py``), not by argument. Where launches fall into two
modes further apart than each mode is wide, no interval from two or three of them
covers 95%: they may all have seen the same mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, stdtrit

TAIL = 0.025
"""What a 95% interval leaves out at each end."""

PAIRED_BELOW = 0.4
"""Pairs are used where their interval is narrower than this share of Welch's.

Pairing takes out what both sides share, such as a machine that slows down, and
costs half the degrees of freedom. Choosing it only where it gains this much
keeps the coverage at 95%; always choosing the narrower would lose 1 to 2 points.
"""

INTERVAL_RULE = (
    "95% intervals on the logarithms of the launches' medians: Student's t for one case; for a "
    "ratio Welch's t, or the paired t over the rounds in which both sides ran where that is "
    f"narrower than {PAIRED_BELOW:g} of it; within a single launch order statistics of its "
    "samples (binomial), of fewer than six their range, which covers less"
)

Verdict = Literal["faster", "slower", "same", "undecided"]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """The larger distance to an end, as a fraction of the estimate."""
        return max(self.high - self.estimate, self.estimate - self.low) / self.estimate


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of independent replicates, such as seeds, with its 95% interval (Student's t).

    One replicate alone says nothing of the spread: its interval is infinite.
    """
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = _t95(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def median_interval(samples: Sequence[float]) -> Interval:
    """Median of one launch with its exact 95% interval from order statistics.

    Makes no assumption on the distribution: the interval runs from the r-th
    smallest to the r-th largest sample, r being the largest rank that leaves out
    at most 2.5% of the binomial distribution at each end (20 samples: ranks 6 to
    15), or between the extremes where there are fewer than six samples.
    """
    ordered = sorted(samples)
    # The smallest count that the binomial distribution exceeds with more than 2.5%.
    rank = max(math.ceil(float(bdtrik(TAIL, len(ordered), 0.5))), 1)
    return Interval(median(ordered), ordered[rank - 1], ordered[-rank])


def launch_interval(launches: Sequence[Sequence[float]]) -> Interval:
    """Median over launches of their medians, with its 95% interval.

    With one launch the interval can only speak of that launch (`median_interval`);
    whoever shows it says so.

    Args:
        launches: Positive samples of each launch, in seconds.
    """
    if len(launches) == 1:
        return median_interval(launches[0])
    medians = [median(samples) for samples in launches]
    centre, half = student(np.log(medians))
    return _holding(median(medians), float(centre), float(half))


def ratio_interval(
    top: Sequence[Sequence[float]],
    bottom: Sequence[Sequence[float]],
    rounds: tuple[Sequence[int | None], Sequence[int | None]] | None = None,
) -> Interval:
    """Ratio of two medians over launches with its 95% interval.

    Args:
        top: Positive samples of each launch of the numerator.
        bottom: Those of the denominator.
        rounds: The round that each launch belonged to, for both; None where
            launches of one did not alternate with those of the other.
    """
    tops, bottoms = ([median(samples) for samples in side] for side in (top, bottom))
    estimate = median(tops) / median(bottoms)
    if min(len(tops), len(bottoms)) == 1:
        return _ratio_within_launches(estimate, top, bottom)
    centre, half = welch(np.log(tops), np.log(bottoms))
    pairs = _pairs(tops, bottoms, rounds)
    if len(pairs) > 1:
        paired_centre, paired_half = student(np.log(pairs)[:, 0] - np.log(pairs)[:, 1])
        if paired_half < PAIRED_BELOW * half:
            centre, half = paired_centre, paired_half
    return _holding(estimate, float(centre), float(half))


def student(values: Array) -> tuple[Array, Array]:
    """Means over the last axis with the half-widths of their 95% intervals.

    Args:
        values: (..., n) independent replicates, n at least 2.
    """
    n = values.shape[-1]
    half = _t95(n - 1) * values.std(axis=-1, ddof=1) / math.sqrt(n)
    return values.mean(axis=-1), half


def welch(top: Array, bottom: Array) -> tuple[Array, Array]:
    """Differences of means over the last axis with the half-widths of their 95% intervals.

    Welch, "The generalization of Student's problem when several different
    population variances are involved" (Biometrika 34, 1947).

    Args:
        top: (..., n) independent replicates, n at least 2.
        bottom: (..., m) of the other side; m may differ.
    """
    n, m = top.shape[-1], bottom.shape[-1]
    a, b = top.var(axis=-1, ddof=1) / n, bottom.var(axis=-1, ddof=1) / m
    spread = a**2 / (n - 1) + b**2 / (m - 1)
    # Without any scatter there is no width, whatever the degrees of freedom.
    freedom = np.where(spread > 0, (a + b) ** 2 / np.where(spread > 0, spread, 1.0), n + m - 2)
    half = np.asarray(stdtrit(freedom, 1 - TAIL) * np.sqrt(a + b))
    return top.mean(axis=-1) - bottom.mean(axis=-1), half


def _t95(freedom: int) -> float:
    return float(stdtrit(freedom, 1 - TAIL))


def _pairs(
    tops: Sequence[float],
    bottoms: Sequence[float],
    rounds: tuple[Sequence[int | None], Sequence[int | None]] | None,
) -> list[tuple[float, float]]:
    """Medians of the rounds in which both sides ran."""
    if rounds is None:
        return []
    at = dict(zip(rounds[1], bottoms, strict=True))
    return [
        (value, at[number])
        for number, value in zip(rounds[0], tops, strict=True)
        if number is not None and number in at
    ]


def _ratio_within_launches(
    estimate: float, top: Sequence[Sequence[float]], bottom: Sequence[Sequence[float]]
) -> Interval:
    """A ratio of which one side has a single launch: both sides' own widths, added in squares."""
    sides = [launch_interval(side) for side in (top, bottom)]
    (up, down), (up_below, down_below) = (
        (math.log(side.high / side.estimate), math.log(side.estimate / side.low)) for side in sides
    )
    high, low = math.hypot(up, down_below), math.hypot(down, up_below)
    return Interval(estimate, estimate * math.exp(-low), estimate * math.exp(high))


def _holding(estimate: float, centre: float, half: float) -> Interval:
    """An interval from the logarithmic scale, stretched to the estimate should that lie outside."""
    low, high = math.exp(centre - half), math.exp(centre + half)
    return Interval(estimate, min(low, estimate), max(high, estimate))


def verdict(ratio: Interval, margin: float = 0.03) -> Verdict:
    """Whether the numerator is faster or slower than the denominator.

    ``same`` needs the whole interval within ``margin`` of 1, ``faster`` and
    ``slower`` need it all on one side of 1; anything else is ``undecided``.
    """
    if 1 - margin <= ratio.low and ratio.high <= 1 + margin:
        return "same"
    if ratio.high < 1:
        return "faster"
    if ratio.low > 1:
        return "slower"
    return "undecided"


def drift(samples: Sequence[float]) -> float:
    """Relative change from the first to the last third of the samples.

    Zero where there are fewer than nine samples, or where the change is less
    than three times what the samples' own spread would give by chance.
    """
    third = len(samples) // 3
    if third < 3:
        return 0.0
    first, last = median(samples[:third]), median(samples[-third:])
    middle = median(samples)
    spread = 1.4826 * median(abs(s - middle) for s in samples)
    # A median of k normal samples has a standard error of 1.253 s / sqrt(k).
    error = 1.253 * spread * math.sqrt(2 / third)
    change = last - first
    return change / first if abs(change) > 3 * error else 0.0


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Linear interpolation between order statistics (numpy's default)."""
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
