"""Statistics of samples: pure functions, seconds in, seconds out.

Launches (fresh processes) are the replicates. Samples of one launch share that
launch's luck with memory layout and clock, so their spread says nothing about
the next launch's; an interval over launches resamples launches first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 2000

INTERVAL_RULE = (
    f"95% bootstrap interval of the median over launches ({RESAMPLES} resamples, launches first, "
    "then samples within), widened on the log scale for few launches (Student's t)"
)

Verdict = Literal["faster", "slower", "same", "undecided"]

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom
# (NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2).
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z95 = 1.960


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


def small_sample_factor(replicates: int) -> float:
    """How much wider a bootstrap interval must be for few replicates.

    A percentile bootstrap over n replicates is too narrow by sqrt((n - 1) / n)
    and by the normal in place of Student's t (Hesterberg, "What teachers should
    know about the bootstrap", The American Statistician 69, 2015, section 3.2).
    With three launches it would cover 75% where 95% is claimed.
    """
    if replicates < 2:
        return 1.0
    df = replicates - 1
    t = _T95[df - 1] if df <= len(_T95) else _Z95 * (1 + 0.6 / df)
    return t / _Z95 * math.sqrt(replicates / df)


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of independent replicates, such as seeds, with its 95% interval (Student's t).

    One replicate alone says nothing of the spread: its interval is infinite.
    """
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    df = len(values) - 1
    t = _T95[df - 1] if df <= len(_T95) else _Z95 * (1 + 0.6 / df)
    half = t * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def median_interval(samples: Sequence[float]) -> Interval:
    """Median of one launch with its 95% interval from order statistics.

    Makes no assumption on the distribution: the interval runs between the two
    samples whose ranks cover the median with 95% (binomial), or between the
    extremes where there are too few samples for that (fewer than six).
    """
    ordered = sorted(samples)
    n = len(ordered)
    reach = _Z95 * math.sqrt(n) / 2
    low = max(math.floor(n / 2 - reach), 0)
    high = min(math.ceil(n / 2 + reach), n - 1)
    return Interval(median(ordered), ordered[low], ordered[high])


def seed_of(text: str) -> int:
    """A seed that depends on nothing but the text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def launch_bootstrap(launches: Sequence[Sequence[float]], seed: int) -> list[float]:
    """Bootstrap distribution of the median over launches.

    Each resample draws launches with replacement, then samples within each
    drawn launch with replacement; its value is the median of the medians.

    Args:
        launches: The samples of each launch, none empty.
        seed: Of the resampling.

    Returns:
        `RESAMPLES` values, sorted.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    count = len(launches)
    # Medians of resampled launches, drawn in one go per launch: (launch, resample * slot).
    pool = np.empty((count, RESAMPLES, count))
    for index, samples in enumerate(launches):
        pool[index] = _resampled_medians(np.asarray(samples), RESAMPLES * count, rng).reshape(
            RESAMPLES, count
        )
    drawn = rng.integers(0, count, size=(RESAMPLES, count))
    medians = np.take_along_axis(pool, drawn[None], axis=0)[0]
    values: list[float] = np.sort(np.median(medians, axis=1)).tolist()
    return values


def _resampled_medians(
    samples: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Medians of ``draws`` resamples, without drawing the resamples.

    The median of n draws with replacement is an order statistic: its rank in
    the sorted samples is where a Beta variate falls. For even n the lower and
    upper middle are averaged; their joint law needs one more draw.
    """
    import numpy as np

    ordered = np.sort(samples)
    n = len(ordered)
    lower, upper = (n + 1) // 2, n // 2 + 1
    u = rng.beta(lower, n - lower + 1, size=draws)
    first = ordered[np.minimum((u * n).astype(int), n - 1)]
    if lower == upper:
        middle: NDArray[np.float64] = first
        return middle
    # Given the lower middle at u, the upper one is the least of the n - lower
    # uniform draws left above u.
    v = u + (1 - u) * rng.beta(1, n - lower, size=draws)
    second = ordered[np.minimum((v * n).astype(int), n - 1)]
    mean: NDArray[np.float64] = (first + second) / 2
    return mean


def launch_interval(launches: Sequence[Sequence[float]], seed: int) -> Interval:
    """Median over launches with its 95% bootstrap interval.

    With one launch the interval can only speak of that launch; whoever shows
    it says so. With several, `small_sample_factor` widens it on the log scale,
    where a time cannot become negative.

    Args:
        launches: Positive samples of each launch, in seconds.
        seed: Of the bootstrap.
    """
    estimate = median(median(samples) for samples in launches)
    values = launch_bootstrap(launches, seed)
    return _widened(estimate, values, small_sample_factor(len(launches)))


def ratio_interval(
    numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]], seed: int
) -> Interval:
    """Ratio of two medians over launches with its 95% interval.

    Both are resampled independently of each other.
    """
    import numpy as np

    top = launch_bootstrap(numerator, seed)
    bottom = launch_bootstrap(denominator, seed + 1)
    # Both are sorted; a ratio of independent draws needs them shuffled apart.
    shuffled = np.random.default_rng(seed + 2).permutation(np.asarray(bottom))
    ratios = np.sort(np.asarray(top) / shuffled)
    estimate = median(median(s) for s in numerator) / median(median(s) for s in denominator)
    factor = small_sample_factor(min(len(numerator), len(denominator)))
    return _widened(estimate, ratios.tolist(), factor)


def _widened(estimate: float, ordered: Sequence[float], factor: float) -> Interval:
    low = ordered[round(0.025 * (len(ordered) - 1))]
    high = ordered[round(0.975 * (len(ordered) - 1))]
    return Interval(
        estimate,
        estimate * (min(low, estimate) / estimate) ** factor,
        estimate * (max(high, estimate) / estimate) ** factor,
    )


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
