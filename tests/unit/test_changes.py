"""Steps in histories, of which the truth is known."""

import numpy as np
import pytest

from dabench.timing.changes import LEVEL, find_steps

FLAT = {
    "log-normal": lambda random, n: np.exp(random.normal(0, 0.03, n)),
    "heavy tails": lambda random, n: np.exp(0.03 * random.standard_t(3, n)),
    "two modes": lambda random, n: 1 + 0.1 * random.integers(0, 2, n) + random.normal(0, 0.005, n),
    "now and then a busy day": lambda random, n: (
        (1 + 0.5 * (random.random(n) < 0.05)) * np.exp(random.normal(0, 0.02, n))
    ),
}


@pytest.mark.parametrize("world", FLAT)
def test_a_flat_history_holds_no_step(world):
    random = np.random.default_rng(1)
    found = sum(bool(find_steps(FLAT[world](random, 50))) for _ in range(200))
    assert found <= 0.05 * 200
    assert LEVEL < 0.05


@pytest.mark.parametrize(
    ("launches", "before", "least"), [(3, 47, 0.8), (8, 47, 0.95), (8, 7, 0.85)]
)
def test_a_step_of_5_percent_is_found_within_three_runs(launches, before, least):
    """The case's launches scatter by 3%; a run's level is the mean of its launches."""
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(100):
        logs = random.normal(0, 0.03, (before + 3, launches)).mean(axis=1)
        logs[before:] += np.log(1.05)
        hits += any(abs(step.at - before) <= 1 for step in find_steps(np.exp(logs)))
    assert hits >= least * 100


def test_steps_are_told_with_their_place_and_size():
    random = np.random.default_rng(3)
    level = np.repeat([1.0, 1.1, 0.9], [12, 9, 15])
    first, second = find_steps(level * np.exp(random.normal(0, 0.01, len(level))))
    assert (first.at, second.at) == (12, 21)
    assert first.ratio == pytest.approx(1.1, rel=0.02)
    assert second.ratio == pytest.approx(0.9 / 1.1, rel=0.02)
    assert max(first.p, second.p) <= LEVEL


def test_small_steps_are_left_out():
    values = [1.0, 1.001] * 10 + [1.03, 1.031] * 10
    assert [step.at for step in find_steps(values)] == [20]
    assert find_steps(values, delta=0.05) == []


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0] * 4, [1.0] * 50])
def test_where_nothing_can_be_said_there_is_no_step(values):
    assert find_steps(values) == []


def test_one_run_alone_is_no_step():
    assert find_steps([1.0, 1.01] * 10 + [2.0]) == []
