"""Losses against cases worked out by hand."""

import math

import pytest
import torch

from dabench.data.labels import IGNORE
from dabench.training import losses as module
from dabench.training.losses import (
    SOURCE,
    TARGET,
    belief_loss,
    cross_entropy,
    detail_loss,
    detail_target,
    discriminator_input,
    full_size,
    ohem_cross_entropy,
    segmentation_loss,
)
from dabench_models.bisenet import SegmenterOutput


def logits_of(probabilities):
    """(1, C, 1, N) logits whose softmax is the given rows."""
    return torch.tensor(probabilities).log().T[None, :, None, :]


def test_cross_entropy_leaves_ignored_pixels_out():
    logits = logits_of([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]])
    labels = torch.tensor([[[0, 0, IGNORE]]])
    expected = (math.log(2) + math.log(4)) / 2
    assert cross_entropy(logits, labels).item() == pytest.approx(expected)
    assert cross_entropy(logits, torch.full_like(labels, IGNORE)).item() == 0


def test_ohem_keeps_what_is_hard():
    # 0.5 and 0.25 are below 0.7; 0.9 is not.
    logits = logits_of([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]])
    labels = torch.tensor([[[0, 0, 0]]])
    expected = (math.log(2) + math.log(4)) / 2
    assert ohem_cross_entropy(logits, labels).item() == pytest.approx(expected)


def test_ohem_keeps_a_sixteenth_where_all_is_easy():
    easy = [[0.9, 0.1]] * 15 + [[0.8, 0.2]]
    labels = torch.zeros(1, 1, 16, dtype=torch.long)
    assert ohem_cross_entropy(logits_of(easy), labels).item() == pytest.approx(-math.log(0.8))
    assert ohem_cross_entropy(logits_of(easy), torch.full_like(labels, IGNORE)).item() == 0


@pytest.mark.parametrize("band", [1, 8000, 1 << 20])
@pytest.mark.parametrize("size", [(4, 6), (1, 1), (5, 3)])
def test_small_logits_lose_what_they_lose_at_full_size(size, band, monkeypatch):
    monkeypatch.setattr(module, "BAND_BYTES", band)
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (2, 30, 42))
    labels[0, 3:9] = IGNORE
    small = (3 * torch.randn(2, 5, *size)).contiguous(memory_format=torch.channels_last)
    small.requires_grad_()
    loss = cross_entropy(small, labels)
    (gradient,) = torch.autograd.grad(2 * loss, small)
    full = cross_entropy(full_size(small, labels), labels)
    (expected,) = torch.autograd.grad(2 * full, small)
    torch.testing.assert_close(loss, full)
    torch.testing.assert_close(gradient, expected)
    nothing = cross_entropy(small, torch.full_like(labels, IGNORE))
    assert nothing == 0
    assert not torch.autograd.grad(nothing, small)[0].any()


def test_all_three_heads_count():
    labels = torch.zeros(1, 1, 2, dtype=torch.long)
    heads = [logits_of([[p, 1 - p]] * 2) for p in (0.5, 0.25, 0.125)]
    output = SegmenterOutput(*heads, None)
    assert segmentation_loss(output, labels).item() == pytest.approx(6 * math.log(2))


def test_detail_target_is_the_boundary():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    assert detail_target(labels[:, 1:-1, 1:-1]).sum() == 0
    labels[..., 8:] = 1
    target = detail_target(labels)
    assert target.shape == (1, 1, 16, 16)
    assert set(target.unique().tolist()) == {0.0, 1.0}
    # The side of the larger class index, away from the image's edge, at stride 1.
    assert target[0, 0, 8, 8] == 1
    assert target[0, 0, 8, 3] == 0


def test_detail_loss_of_a_perfect_and_of_a_useless_head():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[..., 8:] = 1
    target = detail_target(labels)
    assert detail_loss((target * 2 - 1) * 50, labels).item() == pytest.approx(0, abs=1e-6)
    n, on = target.numel(), target.sum().item()
    useless = math.log(2) + 1 - (on + 1) / (n / 2 + on + 1)
    assert detail_loss(torch.zeros_like(target), labels).item() == pytest.approx(useless)


def test_what_the_discriminator_sees():
    logits = torch.randn(2, 5, 3, 3)
    assert discriminator_input(logits, "logits") is logits
    torch.testing.assert_close(discriminator_input(logits, "softmax").sum(1), torch.ones(2, 3, 3))
    even = discriminator_input(torch.zeros(1, 4, 1, 1), "entropy")
    # -1/4 log2(1/4) / log2(4) = 1/4 per class.
    torch.testing.assert_close(even, torch.full((1, 4, 1, 1), 0.25))


@pytest.mark.parametrize(("truth", "logit"), [(SOURCE, 2.0), (TARGET, -2.0)])
def test_belief_loss_is_binary_cross_entropy(truth, logit):
    right, wrong = (belief_loss(torch.full((1, 1, 2, 2), s * logit), truth) for s in (1, -1))
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert wrong.item() == pytest.approx(math.log(1 + math.exp(2)))
