"""Signs of adversaries that are none, on losses by hand, by theory and of planted trainings."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dabench.training.health import (
    AT_CHANCE,
    CHANCE_LOSS,
    COOPERATES,
    TOO_STRONG,
    late,
    signs,
    signs_of,
)

PLANTED = Path(__file__).parent / "planted.csv"


def flags(adversarial, discriminator=()):
    return [sign.flag for sign in signs(adversarial, discriminator)]


@pytest.mark.parametrize(
    ("adversarial", "discriminator", "expected"),
    [
        # The published runs: falling far below ln 2.
        ([0.83, 0.4, 0.1, 0.03], (), [COOPERATES]),
        # Healthy, as AdaptSegNet's author has it: one rises, the other falls to 0.2 to 0.5.
        ([0.69, 1.1, 1.4, 1.5], [0.69, 0.5, 0.4, 0.35], []),
        ([0.69, 1.1, 1.4, 1.5], (), []),
        # Both as low as no two opposite labels allow: -ln(1 - exp(-0.2)) is 1.71.
        ([0.69, 0.3, 0.2, 0.2], [0.69, 0.3, 0.2, 0.2], [COOPERATES]),
        # A discriminator that is fooled pays for it.
        ([0.69, 0.3, 0.2, 0.2], [0.69, 0.9, 1.0, 1.0], [AT_CHANCE]),
        ([0.69, 0.3, 0.2, 0.2], [0.6, 0.9, 1.0, 1.0], []),
        ([0.693, 0.694, 0.692, 0.693], (), [AT_CHANCE]),
        ([0.7, 0.8, 0.7, 0.7], [0.693, 0.69, 0.681, 0.69], [AT_CHANCE]),
        ([0.7, 6, 8, 9], [0.6, 0.1, 0.01, 0.01], [TOO_STRONG]),
        ([0.7, 6, 8, 9], (), [TOO_STRONG]),
        # Too early: every discriminator begins at chance.
        ([0.693, 0.693], [0.693, 0.693], []),
        # The control has a discriminator and no adversary.
        ([None, None, None, None], [0.6, 0.1, 0.01, 0.01], []),
        ([None, None, None, None], [0.693, 0.69, 0.69, 0.69], [AT_CHANCE]),
        ([], (), []),
        # Fooled, by a discriminator that lags behind: no proof without its loss.
        ([0.9, 0.8, 0.7, 0.58, 0.57, 0.58], (), []),
        # It has collapsed altogether.
        ([0.7, 0.1, 0.0, 0.0], [0.69, 0.5, 0.3, 0.3], [COOPERATES]),
        ([0.7, 0.1, 0.0, 0.0], (), [COOPERATES]),
        # Not of cross-entropy: Wasserstein losses may be anything.
        ([-3.0, -40.0, -1000.0, -2000.0], [0.3] * 4, []),
        # A training that diverged.
        ([0.7, 1.0, 1.2, math.nan], [0.6, 0.5, math.inf, math.nan], []),
        ([math.nan] * 4, [math.nan] * 4, []),
        # Losses of one epoch belong together, whatever is missing before.
        ([0.7, math.nan, 0.8, 0.3, 0.9], [0.69, 0.6, 0.6, 0.7, 0.5], []),
    ],
)
def test_losses_by_hand(adversarial, discriminator, expected):
    assert flags(adversarial, discriminator) == expected


def test_the_arithmetic_is_written_out():
    (sign,) = signs([0.69, 0.3, 0.2, 0.2], [0.69, 0.3, 0.2, 0.2])
    assert "-ln(1 - exp(-0.20)) = 1.71" in sign.evidence
    assert "at most twice 0.20" in sign.evidence
    (sign,) = signs([0.83, 0.4, 0.1, 0.03])
    assert "from 0.83 to 0.03 (mean of the later half 0.07)" in sign.evidence


@given(
    st.lists(st.floats(0.01, 0.99), min_size=3, max_size=8),
    st.lists(st.floats(0.001, 1), min_size=3, max_size=8),
)
def test_the_best_discriminator_is_never_said_to_cooperate(source, target):
    """Densities of source and target over a few places, and the best answer to them."""
    places = min(len(source), len(target))
    s = np.array(source[:places]) / sum(source[:places])
    t = np.array(target[:places]) / sum(target[:places])
    answer = s / (s + t)
    adversarial = float((t * -np.log(answer)).sum())
    own = float((s * -np.log(answer)).sum() + (t * -np.log(1 - answer)).sum()) / 2
    assert adversarial >= CHANCE_LOSS - 1e-9
    for discriminator in ((), [own] * 4):
        assert COOPERATES not in flags([adversarial] * 4, discriminator)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=20))
def test_no_discriminator_contradicts_opposite_labels(logits):
    """Whatever it answers, also where it is wrong everywhere."""
    answer = 1 / (1 + np.exp(-np.array(logits)))
    adversarial, own = float(-np.log(answer).mean()), float(-np.log(1 - answer).mean())
    assert COOPERATES not in flags([adversarial] * 4, [own / 2] * 4)


def test_a_run_without_epochs_of_its_own_has_no_sign():
    assert signs_of([], fewest=1) == []


def test_the_later_half():
    assert late([1.0, 2.0, 3.0]) == 2.5
    assert late([1.0]) == 1.0
    assert math.isclose(late([1.0, 2.0, 3.0, 5.0]), 4.0)


def planted():
    with PLANTED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for run in dict.fromkeys(row["run"] for row in rows):
        mine = [row for row in rows if row["run"] == run]
        yield run, *([float(r[name]) for r in mine] for name in ("adversarial_loss", "disc_loss"))


def test_planted_trainings():
    """Twelve of real images, six with the target labelled as the discriminator believes.

    Made by tests/helpers/planted.py: three discriminators, two sizes.
    """
    runs = list(planted())
    assert len(runs) == 12
    for run, adversarial, discriminator in runs:
        wrong = run.startswith("wrong")
        assert flags(adversarial, discriminator) == [COOPERATES] * wrong, run
        # Without the discriminator's loss only what has gone far is told, and nothing wrongly.
        assert flags(adversarial) in ([], [COOPERATES] * wrong), run
    told = [run for run, adversarial, _ in runs if flags(adversarial)]
    assert {"wrong-disc-64x96", "wrong-dw-disc-64x96"} <= set(told)
