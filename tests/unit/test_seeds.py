"""Verdicts over seeds, with known truth."""

import math
from statistics import stdev

import numpy as np
import pytest

from dabench.timing.seeds import LEVEL, decide, looks_up_to, more_seeds


def test_a_claim_needs_the_whole_interval_beyond_its_margin():
    found = decide([0.030, 0.031, 0.032], 0.01, 3)
    # t with 2 degrees of freedom: 4.303 * 0.001 / sqrt(3).
    assert (found.verdict, found.seeds) == ("holds", 3)
    assert found.tested.low == pytest.approx(0.031 - 4.303e-3 / math.sqrt(3), rel=1e-3)
    assert found.difference == found.tested
    assert decide([0.030, 0.031, 0.032], 0.04, 3).verdict == "fails"
    assert decide([0.030, 0.031, 0.032], 0.031, 3).verdict == "undecided"
    assert decide([0.03, 0.03], 0.01, 3) is None
    # Three times the same is no scatter of none.
    assert decide([0.03, 0.03, 0.03], 0.01, 3).verdict == "undecided"


def test_more_looks_cost_certainty_and_a_decision_stays():
    differences = [0.030, 0.034, 0.032, 0.031, 0.033, 0.029, 0.035, 0.032]
    few, many = decide(differences[:3], 0.0, 3), decide(differences[:3], 0.0, 32)
    assert many.tested.high - many.tested.low > few.tested.high - few.tested.low
    assert looks_up_to(10) == (3, 4, 6, 8, 10)
    assert looks_up_to(2) == (2,)
    assert looks_up_to(10, first=5) == (6, 8, 10)
    # Nobody looks at fewer than there are anyway.
    assert decide([0.03, 0.031, 0.03, -0.04, -0.05, -0.06], 0.0, 6, first=6).verdict == "undecided"
    first = decide(differences, 0.0, 8)
    assert first.verdict == "holds"
    # Later seeds that say the opposite do not undo it.
    assert decide([*differences[: first.seeds], -9.0, -9.0], 0.0, 8) == first


def test_seeds_without_a_score_do_not_keep_the_last_look_away():
    differences = [0.03, -0.03, 0.031, 0.029, 0.03, 0.031, 0.03, 0.031, 0.03]
    assert decide(differences, 0.0, 10).seeds == 8
    last = decide(differences, 0.0, 10, over=True)
    assert last.seeds == 9
    # At the level of the look after ten, which there will not be.
    ten = decide([*differences, 0.023], 0.0, 10)
    assert (last.tested.high - last.tested.estimate) * 3 / stdev(differences) == pytest.approx(
        (ten.tested.high - ten.tested.estimate) * 10**0.5 / stdev([*differences, 0.023]), rel=0.03
    )
    assert decide(differences[:2], 0.0, 3, over=True).verdict == "undecided"
    assert decide(differences[:1], 0.0, 3, over=True) is None


@pytest.mark.parametrize("draw", ["normal", "uniform", "laplace"])
def test_who_looks_until_it_is_decided_is_rarely_wrong(draw):
    """Both sides are one method: resampled from one spread of scores, the difference is none."""
    random = np.random.default_rng(0)
    false = 0
    trials = 1000
    for scores in getattr(random, draw)(size=(trials, 2, 16)):
        found = decide(list(scores[0] - scores[1]), 0.0, 16)
        false += found.verdict != "undecided"
    assert false / trials <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / trials)


@pytest.mark.parametrize("pool", [[0.2, 0.3], [0.1, 0.2, 0.3], [0.121, 0.149, 0.124]])
def test_resampling_one_methods_seeds_rarely_gives_a_verdict(pool):
    random = np.random.default_rng(2)
    trials = 1000
    drawn = random.choice(pool, size=(trials, 2, 16))
    verdicts = [decide(list(ours - theirs), 0.0, 16).verdict for ours, theirs in drawn]
    false = sum(verdict != "undecided" for verdict in verdicts)
    assert false / trials <= LEVEL


def test_seeds_that_are_said_to_be_needed_decide_four_times_in_five():
    random = np.random.default_rng(1)
    pilot = [-0.01, 0.01, 0.0]  # deviation 0.01
    needed = more_seeds(pilot, 0.01)
    seeds = len(pilot) + needed
    decided = 0
    for sample in random.normal(0.01, 0.01, size=(1000, seeds)):
        decided += decide(list(sample), 0.0, seeds).difference.low > 0
    assert decided / 1000 == pytest.approx(0.8, abs=0.05)


def test_what_seeds_can_tell():
    assert more_seeds([0.01], 0.01) is None
    assert more_seeds([0.02, 0.02, 0.02], 0.01) == 0
    assert more_seeds([1.0, -1.0, 0.0], 0.01) is None
