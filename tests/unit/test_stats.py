"""Statistics: properties that hold for any samples, and coverage by simulation."""

import math
import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dabench.timing.statistics import (
    Interval,
    drift,
    launch_interval,
    median_interval,
    quantile,
    ratio_interval,
    seed_of,
    small_sample_factor,
    verdict,
)

times = st.floats(1e-7, 1e3)
samples = st.lists(times, min_size=1, max_size=40)
launches = st.lists(samples, min_size=1, max_size=6)


@given(samples)
def test_the_median_interval_holds_the_median_within_the_samples(values):
    interval = median_interval(values)
    assert interval.estimate == median(values)
    assert min(values) <= interval.low <= interval.estimate <= interval.high <= max(values)


@settings(max_examples=40, deadline=None)
@given(launches, st.integers(0, 5))
def test_launch_intervals_hold_the_median_of_medians(values, seed):
    interval = launch_interval(values, seed)
    assert interval.estimate == median(median(v) for v in values)
    assert 0 < interval.low <= interval.estimate <= interval.high
    assert interval == launch_interval(values, seed)


@settings(max_examples=25, deadline=None)
@given(launches, st.floats(1e-3, 1e3))
def test_launch_intervals_scale_with_the_unit(values, factor):
    one = launch_interval(values, 0)
    other = launch_interval([[factor * v for v in launch] for launch in values], 0)
    assert other.low == pytest.approx(factor * one.low, rel=1e-6)
    assert other.high == pytest.approx(factor * one.high, rel=1e-6)


@given(times, st.integers(1, 5), st.integers(1, 20))
def test_equal_samples_have_no_width(value, count, n):
    interval = launch_interval([[value] * n] * count, 0)
    assert (interval.low, interval.high) == (interval.estimate, interval.estimate)


@pytest.mark.parametrize(("count", "least"), [(3, 0.90), (5, 0.90), (10, 0.90)])
def test_intervals_over_launches_cover_the_truth(count, least):
    """Launches differ by 10%, passes within one by 1%, as measured on a real machine."""
    rng = random.Random(5)
    hits = 0
    trials = 300
    for trial in range(trials):
        drawn = [
            [centre * math.exp(rng.gauss(0, 0.01)) for _ in range(20)]
            for centre in (math.exp(rng.gauss(0, 0.1)) for _ in range(count))
        ]
        interval = launch_interval(drawn, trial)
        hits += interval.low <= 1.0 <= interval.high
    assert hits / trials >= least


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


def test_few_launches_widen_and_many_do_not():
    factors = [small_sample_factor(n) for n in (2, 3, 5, 10, 31, 200)]
    assert factors == sorted(factors, reverse=True)
    assert factors[1] == pytest.approx(4.303 / 1.96 * math.sqrt(3 / 2))
    assert factors[-1] == pytest.approx(1.0, abs=0.01)
    assert small_sample_factor(1) == 1.0


@settings(max_examples=25, deadline=None)
@given(launches, launches)
def test_ratios_turn_round(top, bottom):
    ratio = ratio_interval(top, bottom, 1)
    back = ratio_interval(bottom, top, 1)
    assert ratio.low <= ratio.estimate <= ratio.high
    assert ratio.estimate == pytest.approx(1 / back.estimate)


def test_a_clear_ratio_is_found_with_its_interval():
    rng = random.Random(1)
    slow = [[2 * math.exp(rng.gauss(0, 0.02)) for _ in range(10)] for _ in range(5)]
    fast = [[math.exp(rng.gauss(0, 0.02)) for _ in range(10)] for _ in range(5)]
    ratio = ratio_interval(slow, fast, 0)
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
        (Interval(1.02, 1.01, 1.025), "same"),
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


def test_seeds_depend_on_the_text_alone():
    assert seed_of("a") == seed_of("a") != seed_of("b")
