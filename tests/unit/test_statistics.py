"""Statistics: properties that hold for any samples, and coverage by simulation."""

import math
import random
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dabench.timing.statistics import (
    PAIRED_BELOW,
    Interval,
    drift,
    launch_interval,
    median_interval,
    quantile,
    ratio_interval,
    student,
    trend,
    welch,
)
from dabench.timing.verdicts import verdict

times = st.floats(1e-7, 1e3)
samples = st.lists(times, min_size=1, max_size=40)
launches = st.lists(samples, min_size=1, max_size=6)


@given(samples)
def test_the_median_interval_holds_the_median_within_the_samples(values):
    interval = median_interval(values)
    assert interval.estimate == median(values)
    assert min(values) <= interval.low <= interval.estimate <= interval.high <= max(values)


def test_the_interval_within_a_launch_is_exact():
    assert median_interval(range(1, 21)) == Interval(10.5, 6, 15)
    # Below six samples not even the extremes leave out less than 2.5% at each end.
    assert median_interval(range(1, 6)) == Interval(3, 1, 5)
    assert median_interval(range(1, 7)) == Interval(3.5, 1, 6)


@pytest.mark.parametrize("n", [6, 9, 20, 50, 101])
def test_order_statistics_cover_95_percent_and_no_rank_more_would(n):
    chance = [math.comb(n, k) / 2**n for k in range(n + 1)]
    rank = int(median_interval(range(1, n + 1)).low)
    assert 1 - 2 * sum(chance[:rank]) >= 0.95 > 1 - 2 * sum(chance[: rank + 1])


@given(launches)
def test_launch_intervals_hold_the_median_of_medians(values):
    interval = launch_interval(values)
    assert interval.estimate == median(median(v) for v in values)
    assert 0 < interval.low <= interval.estimate <= interval.high


@given(launches, st.floats(1e-3, 1e3))
def test_launch_intervals_scale_with_the_unit(values, factor):
    one = launch_interval(values)
    other = launch_interval([[factor * v for v in launch] for launch in values])
    assert other.low == pytest.approx(factor * one.low, rel=1e-6)
    assert other.high == pytest.approx(factor * one.high, rel=1e-6)


@given(times, st.integers(1, 5), st.integers(1, 20))
def test_equal_samples_have_no_width(value, count, n):
    interval = launch_interval([[value] * n] * count)
    assert (interval.low, interval.high) == pytest.approx((value, value))


TRIALS = 20_000
DRAWS = {
    # Log medians of launches: (trials, launches) for each of two sides, truth 0.
    "log-normal": lambda rng, shape: [rng.normal(0, 0.08, shape) for _ in range(2)],
    "heavy tails": lambda rng, shape: [0.05 * rng.standard_t(3, shape) for _ in range(2)],
    "two modes": lambda rng, shape: [
        rng.choice([-0.05, 0.05], shape) + rng.normal(0, 0.05, shape) for _ in range(2)
    ],
}


def covered(centre, half):
    return float((np.abs(centre) <= half).mean())


def ratio_of(top, bottom):
    """What `ratio_interval` does, for many trials at once."""
    centre, half = welch(top, bottom)
    _, paired = student(top - bottom)
    return centre, np.where(paired < PAIRED_BELOW * half, paired, half)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20])
@pytest.mark.parametrize(("kind", "least", "most"), [
    ("log-normal", 0.94, 0.965), ("heavy tails", 0.93, 1.0), ("two modes", 0.93, 1.0),
])  # fmt: skip
def test_intervals_cover_the_truth(kind, least, most, n):
    top, bottom = DRAWS[kind](np.random.default_rng(n), (TRIALS, n))
    assert least <= covered(*student(top)) <= most
    centre, half = ratio_of(top, bottom)
    assert least <= covered(centre, half) <= most
    assert half.mean() <= 1.1 * welch(top, bottom)[1].mean()


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize(
    "drift_s", [lambda n: np.linspace(0, 0.3, n), lambda n: 0.2 * (-1) ** np.arange(n)]
)
def test_what_both_sides_share_is_taken_out(n, drift_s):
    rng = np.random.default_rng(n)
    top, bottom = (drift_s(n) + rng.normal(0, 0.04, (TRIALS, n)) for _ in range(2))
    centre, half = ratio_of(top, bottom)
    assert covered(centre, half) >= 0.93
    assert half.mean() < 0.75 * welch(top, bottom)[1].mean()


def test_ratios_are_made_of_the_tested_pieces():
    rng = np.random.default_rng(0)
    for shared in (0.0, 0.3):
        base = rng.normal(0, shared, 6)
        top, bottom = (np.exp(base + rng.normal(0, 0.02, 6)) for _ in range(2))
        found = ratio_interval(
            [[t] for t in top], [[b] for b in bottom], (list(range(6)), list(range(6)))
        )
        centre, half = ratio_of(np.log(top)[None], np.log(bottom)[None])
        assert found.low == pytest.approx(math.exp(centre[0] - half[0]), rel=1e-6)
        assert found.high == pytest.approx(math.exp(centre[0] + half[0]), rel=1e-6)


def test_launches_of_different_rounds_are_no_pairs():
    top, bottom = [[1.0], [2.0], [4.0]], [[1.01], [2.0], [4.1]]
    alternated = ratio_interval(top, bottom, ([0, 1, 2], [0, 1, 2]))
    apart = ratio_interval(top, bottom, ([0, 1, 2], [None, 7, 8]))
    assert alternated.relative_half_width < 0.1 < apart.relative_half_width
    assert apart == ratio_interval(top, bottom)


def test_an_interval_that_ignores_launches_would_not_cover():
    """What pooling all samples as independent claims: the reason for the above."""
    rng = random.Random(5)
    hits = 0
    for _ in range(200):
        pooled = [
            centre * math.exp(rng.gauss(0, 0.01))
            for centre in (math.exp(rng.gauss(0, 0.1)) for _ in range(3))
            for _ in range(20)
        ]
        interval = median_interval(pooled)
        hits += interval.low <= 1.0 <= interval.high
    assert hits / 200 < 0.8


@settings(max_examples=25)
@given(launches, launches)
def test_ratios_turn_round(top, bottom):
    ratio = ratio_interval(top, bottom)
    back = ratio_interval(bottom, top)
    assert ratio.low <= ratio.estimate <= ratio.high
    assert ratio.estimate == pytest.approx(1 / back.estimate)


def test_a_clear_ratio_is_found_with_its_interval():
    rng = random.Random(2)
    slow = [[2 * math.exp(rng.gauss(0, 0.02)) for _ in range(10)] for _ in range(5)]
    fast = [[math.exp(rng.gauss(0, 0.02)) for _ in range(10)] for _ in range(5)]
    ratio = ratio_interval(slow, fast)
    assert ratio.low < 2 < ratio.high
    assert ratio.relative_half_width < 0.1
    assert verdict(ratio) == "slower"


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.5, 0.4, 0.6), "faster"),
        (Interval(2.0, 1.5, 2.5), "slower"),
        (Interval(1.0, 0.98, 1.02), "same"),
        (Interval(1.1, 0.9, 1.3), "undecided"),
        # Faster or slower, and perhaps by no more than the margin.
        (Interval(1.02, 1.01, 1.025), "undecided"),
        (Interval(0.97, 0.95, 0.99), "undecided"),
    ],
)
def test_verdicts(interval, expected):
    assert verdict(interval) == expected


def test_drift_is_a_trend_and_not_a_wobble():
    rng = random.Random(0)
    noise = [rng.gauss(0, 0.01) for _ in range(60)]
    assert drift([1 + e for e in noise]) == 0.0
    assert drift([1 + 0.01 * i + e for i, e in enumerate(noise)]) > 0.2
    assert drift([2 - 0.01 * i + e for i, e in enumerate(noise)]) < -0.1
    assert drift([1.0, 5.0, 9.0]) == 0.0


@given(samples, st.floats(0, 1))
def test_quantiles_agree_with_numpy(values, fraction):
    import numpy as np

    ordered = sorted(values)
    assert quantile(ordered, fraction) == pytest.approx(float(np.quantile(ordered, fraction)))


def test_a_trend_is_told_from_scatter():
    rng = np.random.default_rng(4)
    climbing = np.exp(np.linspace(0, 0.1, 12) + rng.normal(0, 0.01, 12))
    assert trend(climbing) == pytest.approx(0.105, abs=0.03)
    assert trend(climbing[::-1]) == pytest.approx(-0.095, abs=0.03)
    assert trend([1.0, 1.1, 1.2, 1.3]) == 0.0
    assert trend([2.0] * 9) == 0.0
    assert trend(2.0 ** np.arange(6.0)) == pytest.approx(31)
    flat = [trend(np.exp(rng.normal(0, 0.03, 10))) for _ in range(400)]
    assert sum(each != 0 for each in flat) <= 12
