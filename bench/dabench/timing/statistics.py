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
from scipy.special import bdtrik, stdtr, stdtrit

TAIL = 0.025
"""What a 95% interval leaves out at each end."""

PAIRED_BELOW = 0.4
"""Pairs are used where their interval is narrower than this share of Welch's.

Pairing takes out what both sides share, such as a machine that slows down, and
costs half the degrees of freedom. Choosing it only where it gains this much
keeps the coverage at 95%; always choosing the narrower would lose 1 to 2 points.
"""

TREND_LEVEL = 0.01
"""Probability of seeing a trend where there is none."""

INTERVAL_RULE = (
    "95% intervals on the logarithms of the launches' medians: Student's t for one case; for a "
    "ratio Welch's t, or the paired t over the rounds in which both sides ran where that is "
    f"narrower than {PAIRED_BELOW:g} of it; within a single launch order statistics of its "
    "samples (binomial), of fewer than six their range, which covers less"
)

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
    centre, half = student(_logs(medians))
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
    if min(len(top), len(bottom)) == 1:
        medians = (median(map(median, side)) for side in (top, bottom))
        return _ratio_within_launches(next(medians) / next(medians), top, bottom)
    return log_ratio(top, bottom, rounds).interval()


@dataclass(frozen=True, slots=True)
class LogRatio:
    """The logarithm of a ratio of two medians over launches: t-distributed about the true one.

    Attributes:
        estimate: The ratio of the medians.
        centre: Of the logarithm.
        error: Its standard error.
        freedom: Degrees of freedom.
        rule: ``welch`` or ``paired``.
    """

    estimate: float
    centre: float
    error: float
    freedom: float
    rule: Literal["welch", "paired"]

    def interval(self, level: float = 2 * TAIL) -> Interval:
        """The ratio's interval that misses the true one with probability ``level``."""
        half = float(stdtrit(self.freedom, 1 - level / 2)) * self.error
        return _holding(self.estimate, self.centre, half)

    def level_at(self, distance: float) -> float:
        """The level at which the logarithm's interval has this half-width."""
        if not self.error:
            return 0.0 if distance > 0 else 1.0
        return 2 * float(stdtr(self.freedom, -abs(distance) / self.error))


def log_ratio(
    top: Sequence[Sequence[float]],
    bottom: Sequence[Sequence[float]],
    rounds: tuple[Sequence[int | None], Sequence[int | None]] | None = None,
    level: float = 2 * TAIL,
) -> LogRatio:
    """What launches say of a ratio.

    Args:
        top: As of `ratio_interval`, two launches or more.
        bottom: Likewise.
        rounds: As of `ratio_interval`.
        level: At which Welch's t or the paired one is chosen.
    """
    tops, bottoms = ([median(samples) for samples in side] for side in (top, bottom))
    estimate = median(tops) / median(bottoms)
    centre, error, freedom = map(float, _welch(_logs(tops), _logs(bottoms)))
    found = LogRatio(estimate, centre, error, freedom, "welch")
    pairs = _pairs(tops, bottoms, rounds)
    if len(pairs) > 1:
        ours, theirs = zip(*pairs, strict=True)
        differences = _logs(ours) - _logs(theirs)
        paired_error = float(differences.std(ddof=1)) / math.sqrt(len(pairs))
        paired_half = float(stdtrit(len(pairs) - 1, 1 - level / 2)) * paired_error
        welch_half = float(stdtrit(found.freedom, 1 - level / 2)) * found.error
        if paired_half < PAIRED_BELOW * welch_half:
            mean = float(differences.mean())
            return LogRatio(estimate, mean, paired_error, len(pairs) - 1, "paired")
    return found


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
    centre, error, freedom = _welch(top, bottom)
    return centre, np.asarray(stdtrit(freedom, 1 - TAIL) * error)


def _welch(top: Array, bottom: Array) -> tuple[Array, Array, Array]:
    """Differences of means, their standard errors and degrees of freedom."""
    n, m = top.shape[-1], bottom.shape[-1]
    a, b = top.var(axis=-1, ddof=1) / n, bottom.var(axis=-1, ddof=1) / m
    spread = a**2 / (n - 1) + b**2 / (m - 1)
    # Without any scatter there is no width, whatever the degrees of freedom.
    freedom = np.where(spread > 0, (a + b) ** 2 / np.where(spread > 0, spread, 1.0), n + m - 2)
    return top.mean(axis=-1) - bottom.mean(axis=-1), np.sqrt(a + b), freedom


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
    # Of two launches far apart an interval may reach beyond the largest number.
    low, high = (_exp(centre + sign * half) for sign in (-1, 1))
    return Interval(estimate, min(low, estimate), max(high, estimate))


# NumPy's own, by vector instructions, differ in the last digit from one processor to another.
def _logs(values: Sequence[float]) -> Array:
    return np.array([math.log(value) for value in values])


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


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


def trend(values: Sequence[float]) -> float:
    """Relative change from the first to the last of some positive values, by least squares.

    Zero where there are fewer than five, or where values without a trend would change as much
    in more than one case of a hundred (t-test of the slope, on logarithms).
    """
    n = len(values)
    if n < 5:
        return 0.0
    at, logs = np.arange(n) - (n - 1) / 2, np.log(values)
    slope = float(at @ logs / (at @ at))
    rest = logs - logs.mean() - slope * at
    error = math.sqrt(float(rest @ rest) / (n - 2) / float(at @ at))
    by_chance = 2 * float(stdtr(n - 2, -abs(slope) / error)) if error else float(not slope)
    return math.expm1(slope * (n - 1)) if by_chance < TREND_LEVEL else 0.0


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Linear interpolation between order statistics (numpy's default)."""
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
