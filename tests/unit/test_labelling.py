"""Classes of pixels against bringing all logits to their size and comparing them there."""

import pytest
import torch
import torch.nn.functional as F

from dabench.scoring import labelling
from dabench.scoring.labelling import classes_at


def straightforward(logits, via, size):
    """The logits of every pixel."""
    logits = F.interpolate(logits, via, mode="bilinear", align_corners=True)
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def assert_largest(found, logits):
    """Each class found is the one with the largest logit, but for rounding."""
    assert found.dtype == torch.uint8
    assert found.shape == (len(logits), *logits.shape[2:])
    chosen = logits.gather(1, found[:, None].long())[:, 0]
    torch.testing.assert_close(chosen, logits.amax(1), rtol=0, atol=1e-5)
    assert (found == logits.argmax(1)).float().mean() > 0.999


@pytest.fixture(params=["cpu", "as if large", "any"], autouse=True)
def way(request, monkeypatch):
    """All ways, wherever the tests run."""
    if request.param == "as if large":
        monkeypatch.setattr(labelling, "_SMALL_MAP", 0)
    if request.param == "any":
        monkeypatch.setattr(labelling, "_on_cpu", lambda _: False)


@pytest.mark.parametrize(
    ("small", "via", "size"),
    [
        ((16, 20), (128, 160), (360, 480)),
        ((16, 32), (128, 256), (128, 256)),
        ((8, 8), (64, 64), (33, 47)),
        ((5, 3), (37, 21), (91, 55)),
        ((1, 1), (8, 8), (20, 30)),
        ((1, 4), (8, 32), (1, 1)),
    ],
)
@pytest.mark.parametrize("classes", [1, 2, 19])
def test_any_size(small, via, size, classes):
    torch.manual_seed(0)
    logits = torch.randn(2, classes, *small)
    assert_largest(classes_at(logits, via, size), straightforward(logits, via, size))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("classes", [1, 2, 19])
@pytest.mark.parametrize(
    ("via", "size"),
    [
        ((64, 96), (128, 192)),
        ((64, 96), (64, 96)),
        ((64, 96), (150, 171)),
        ((64, 64), (33, 47)),
        ((2, 3), (40, 50)),
        ((1, 8), (3, 3)),
    ],
)
def test_logits_of_the_networks_size(via, size, classes, layout):
    torch.manual_seed(0)
    coarse = torch.randn(2, classes, 4, 6)
    logits = F.interpolate(coarse, via, mode="bicubic").to(memory_format=layout)
    expected = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    assert_largest(classes_at(logits, via, size), expected)


def test_a_class_that_is_second_everywhere_wins_between_two_pixels():
    logits = torch.tensor([[10.0, 0.0], [0.0, 10.0], [9.0, 9.0], [3.0, 4.0]])[None, :, None]
    found = classes_at(logits, (1, 16), (1, 16))
    assert found[0, 0].tolist() == [0, 0] + [2] * 12 + [1, 1]


def test_of_equal_ones_the_first():
    assert not classes_at(torch.ones(1, 4, 3, 3), (24, 24), (50, 50)).any()


@pytest.mark.parametrize(
    ("limit", "value", "via"), [("ROOM_BYTES", 1, (72, 88)), ("_PIXELS", 7, (9, 11))]
)
def test_pixels_are_found_a_few_at_a_time(limit, value, via, monkeypatch):
    monkeypatch.setattr(labelling, "_MOST_DIFFERENT", 1.0)
    logits = torch.randn(1, 19, 9, 11)
    whole = classes_at(logits, via, (100, 150))
    monkeypatch.setattr(labelling, limit, value)
    assert torch.equal(classes_at(logits, via, (100, 150)), whole)


def test_neighbours_that_mostly_differ_are_all_mixed():
    torch.manual_seed(0)
    logits = torch.randn(2, 19, 40, 60)
    expected = F.interpolate(logits, (80, 120), mode="bilinear", align_corners=False)
    assert_largest(classes_at(logits, (40, 60), (80, 120)), expected)


@pytest.mark.parametrize("small", [(16, 32), (32, 64)])
@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_does_not_spread(odd, small):
    torch.manual_seed(0)
    logits = torch.randn(1, 19, *small)
    logits[0, 3, 5, 7] = odd
    expected = straightforward(logits, (32, 64), (90, 120)).argmax(1)
    assert torch.equal(classes_at(logits, (32, 64), (90, 120)).long(), expected)


def test_no_image_at_all():
    assert classes_at(torch.ones(0, 19, 4, 4), (8, 8), (16, 16)).shape == (0, 16, 16)


def test_what_is_kept_from_inference_serves_those_who_learn():
    size = (17, 23)
    with torch.inference_mode():
        classes_at(torch.ones(1, 2, 3, 3), (9, 9), size)
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    assert classes_at(logits, (9, 9), size).shape == (1, *size)


def test_a_class_without_a_chance_costs_nothing_and_changes_nothing():
    logits = torch.randn(1, 3, 6, 6)
    shut_out = torch.cat([logits[:, :1], torch.full((1, 16, 6, 6), -50.0), logits[:, 1:]], 1)
    few = classes_at(logits, (48, 48), (99, 99)).long()
    assert torch.equal(classes_at(shut_out, (48, 48), (99, 99)), torch.tensor([0, 17, 18])[few])


def test_what_is_not_a_number_is_not_lost():
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 1] = torch.nan
    assert (classes_at(logits, (16, 16), (16, 16)) == 1).all()


def test_half_precision():
    logits = torch.randn(1, 19, 8, 8).bfloat16()
    found = classes_at(logits, (64, 64), (128, 128))
    assert_largest(found, straightforward(logits.float(), (64, 64), (128, 128)))
