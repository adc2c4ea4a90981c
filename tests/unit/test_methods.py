"""What each method adds to a step, against cases worked out by hand."""

import copy
import math
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import FakeClock

from dabench.base.errors import UsageError
from dabench.data.labels import IGNORE
from dabench.plan.methods import METHODS, label_of, method_of, without_recomputing
from dabench.training import losses
from dabench.training.config import TrainConfig
from dabench.training.halves import Halves, norms_of, with_own_norms
from dabench.training.losses import (
    entropy_loss,
    full_size,
    pseudo_loss,
    weighted_cross_entropy,
)
from dabench.training.methods.build import parts_of
from dabench.training.methods.fda import swap_amplitudes
from dabench.training.methods.mic import patch_mask
from dabench.training.methods.part import Part, Pseudo, StepData
from dabench.training.methods.self_training import class_masks, mixed_labels
from dabench.training.methods.strong import strongly
from dabench.training.methods.teacher import Teacher, average, pseudo_labels
from dabench.training.passes import Learner, Precision
from dabench.training.step import Trainer
from dabench.training.stopwatch import Stopwatch
from dabench_models import build
from dabench_models.bisenet import SegmenterOutput

pytestmark = pytest.mark.usefixtures("slim")

CLASSES = 4
CPU = torch.device("cpu")


def config_of(method, **changes):
    fields = {"segmenter_dtype": "fp32", "disc_dtype": "fp32", "device": "cpu", **changes}
    return TrainConfig(pair="x", method=method, steps=2, height=64, width=64, batch=2, **fields)


def trainer_of(method, *, lr=0.01, threads=1, **changes):
    config = config_of(method, **changes)
    torch.manual_seed(0)
    network = build("stdc1-bisenet", num_classes=CLASSES)
    learner = Learner(
        network, torch.optim.SGD(network.parameters(), lr), Precision(device="cpu", dtype="fp32")
    )
    known = method_of(method)
    return Trainer(
        learner, parts_of(config, CLASSES, CPU), passes_target=known.sees_target,
        own_norms=known.own_norms, ohem=False, detail=False, watch=Stopwatch(FakeClock()),
        threads=threads,
    )  # fmt: skip


def batch(seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 64, 64), generator=generator)
    return images, labels, images.flip(3).roll(9, 2)


def logits_of(probabilities):
    """(1, C, 1, N) logits whose softmax is the given rows."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T[None, :, None, :]


# Names


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("self-training+fda", "self-training+fda"),
        ("fda + self-training", "self-training+fda"),
        ("augment+adabn", "adabn"),
        ("source-only+adabn", "source-only+adabn"),
        ("dsbn+advent", "advent+dsbn"),
        ("adabn+target", "target+adabn"),
    ],
)
def test_a_combination_has_one_name(typed, name):
    assert method_of(typed).name == name


def test_a_combination_does_what_its_methods_do():
    both = method_of("self-training+fda")
    assert (both.sees_target, both.taught, both.judged, both.augments) == (True, True, False, True)
    assert both.parts == METHODS["self-training"].parts + METHODS["fda"].parts
    assert not method_of("source-only+fda").augments
    assert label_of("advent+minent", "dw-disc") == "advent+minent dw-disc"
    assert without_recomputing("minent+adabn") == "minent"
    assert without_recomputing("adabn") == "augment"
    assert without_recomputing("target+adabn") == "target"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("magic", "choices: source-only"),
        ("advent+", "choices: source-only"),
        ("fda+fda", "each method once"),
        ("advent+multi-level", "advent and multi-level exclude each other"),
        ("minent+dsbn+adabn", "dsbn and adabn exclude each other"),
        ("target+fda", "the target's labels; it combines with adabn"),
        ("dsbn", "'dsbn' goes with one of adversarial, advent"),
        ("control+dsbn", "'dsbn' goes with one of adversarial, advent"),
        ("fda+dsbn", "'dsbn' goes with one of adversarial, advent"),
    ],
)
def test_methods_that_do_not_go_together(typed, why):
    with pytest.raises(UsageError, match=rf"--method: '.*' is not allowed; .*{why}"):
        method_of(typed)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is_and_makes_its_parts(name):
    method = METHODS[name]
    assert method.summary
    assert bool(method.source) == (method.kind != "base" and name != "control")
    # Alone, or with what it needs.
    whole = name if name != "dsbn" else "minent+dsbn"
    parts = parts_of(config_of(whole), CLASSES, CPU)
    assert all(isinstance(part, Part) for part in parts)
    assert len({part.name for part in parts}) == len(parts)
    known = method_of(whole)
    judged = any(part.learners() for part in parts)
    assert (judged, any(isinstance(p, Teacher) for p in parts)) == (known.judged, known.taught)


def test_own_norms_need_a_term_that_has_weight():
    with pytest.raises(UsageError, match=r"--lambda: '0.0' .*'dsbn' must learn from the target"):
        config_of("advent+dsbn", adversarial_weight=0.0)
    assert config_of("advent+minent+dsbn", adversarial_weight=0.0).adversarial_weight == 0


# Losses


def test_entropy_of_hand_worked_predictions():
    logits = logits_of([[0.25] * 4, [0.5, 0.25, 0.125, 0.125]])
    # Of 2 bits each pixel has 2 and 1.75.
    assert entropy_loss(logits).item() == pytest.approx((1 + 1.75 / 2) / 2, abs=1e-6)
    sure = torch.tensor([[[[60.0]], [[0.0]]]])
    assert entropy_loss(sure).item() == pytest.approx(0, abs=1e-6)
    several = torch.cat([logits, logits.flip(3)])
    assert entropy_loss(several).item() == pytest.approx(entropy_loss(logits).item(), abs=1e-9)


def test_weighted_cross_entropy_is_divided_by_all_pixels():
    logits = logits_of([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1], [0.2, 0.8]])
    labels = torch.tensor([[[0, 0, IGNORE, 1]]])
    weights = torch.tensor([[[1.0, 0.5, 1.0, 0.0]]])
    expected = (math.log(2) + 0.5 * math.log(4)) / 4
    assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("band", [1, 1 << 20])
def test_small_logits_lose_by_weight_what_they_lose_at_full_size(band, monkeypatch):
    monkeypatch.setattr(losses, "BAND_BYTES", band)
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (2, 30, 42))
    labels[0, 3:9] = IGNORE
    weights = torch.rand(2, 30, 42)
    small = (3 * torch.randn(2, 5, 4, 6)).requires_grad_()
    loss = weighted_cross_entropy(small, labels, weights)
    (gradient,) = torch.autograd.grad(2 * loss, small)
    full = weighted_cross_entropy(full_size(small, labels), labels, weights)
    (expected,) = torch.autograd.grad(2 * full, small)
    torch.testing.assert_close(loss, full)
    torch.testing.assert_close(gradient, expected)


def test_a_teachers_labels_teach_three_heads():
    heads = [logits_of([[p, 1 - p]] * 2) for p in (0.5, 0.25, 0.125)]
    labels, weights = torch.zeros(1, 1, 2, dtype=torch.long), torch.tensor([[[1.0, 0.0]]])
    loss = pseudo_loss(SegmenterOutput(*heads, None), labels, weights)
    assert loss.item() == pytest.approx(6 * math.log(2) / 2, abs=1e-6)


def test_a_teacher_is_as_sure_as_its_pixels_above_the_threshold():
    logits = logits_of([[0.97, 0.02, 0.01], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0], [0.3, 0.3, 0.4]])
    found = pseudo_labels(logits, 0.968)
    assert found.labels.tolist() == [[[0, 1, 2, 2]]]
    assert found.confident.item() == 0.5


# Fourier


def numpy_fda(source, target, beta):
    """The repository's demonstration: amplitudes in the middle of shifted spectra."""
    ours, theirs = (np.fft.fft2(image, axes=(-2, -1)) for image in (source, target))
    amplitude, other = (np.fft.fftshift(np.abs(x), axes=(-2, -1)) for x in (ours, theirs))
    height, width = source.shape[-2:]
    reach = int(np.floor(min(height, width) * beta))
    middle = (
        ...,
        *(slice(size // 2 - reach, size // 2 + reach + 1) for size in (height, width)),
    )
    amplitude[middle] = other[middle]
    mixed = np.fft.ifftshift(amplitude, axes=(-2, -1)) * np.exp(1j * np.angle(ours))
    return np.real(np.fft.ifft2(mixed, axes=(-2, -1)))


@pytest.mark.parametrize("beta", [0.0, 0.07, 0.2, 0.49])
@pytest.mark.parametrize("size", [(32, 48), (33, 21)])
def test_amplitudes_are_swapped_as_in_numpy(beta, size):
    random = np.random.default_rng(0)
    source, target = random.uniform(0, 255, (2, 2, 3, *size))
    found = swap_amplitudes(torch.from_numpy(source), torch.from_numpy(target), beta)
    np.testing.assert_allclose(found.numpy(), numpy_fda(source, target, beta), atol=1e-3)


def test_waves_of_the_source_get_the_height_of_the_targets():
    x = torch.arange(64) * 2 * math.pi / 64
    # Below the reach of 0.1 * 64 = 6 periods and above it.
    source = (100 + 10 * torch.cos(3 * x + 1) + 5 * torch.cos(9 * x)).expand(1, 3, 64, 64)
    target = (50 + 30 * torch.cos(3 * x) + 40 * torch.cos(9 * x)).expand(1, 3, 64, 64)
    expected = (50 + 30 * torch.cos(3 * x + 1) + 5 * torch.cos(9 * x)).expand(1, 3, 64, 64)
    torch.testing.assert_close(swap_amplitudes(source, target, 0.1), expected, atol=1e-3, rtol=0)


# Mixing and masking


def test_half_of_the_classes_are_pasted_and_count_fully():
    labels = torch.tensor([[[0, 0, 1], [2, IGNORE, IGNORE]]])
    drawn = set()
    for seed in range(60):
        mask = class_masks(labels, np.random.default_rng(seed))
        shown = set(labels[mask].tolist())
        # Of four, with what is ignored; whole classes only.
        assert len(shown) == 2
        assert mask.sum() == sum((labels == each).sum() for each in shown)
        drawn |= shown
    assert drawn == {0, 1, 2, IGNORE}
    odd = class_masks(torch.tensor([[[3, 4, 5]]]), np.random.default_rng(0))
    assert odd.sum() == 2
    mask = torch.tensor([[[True, True, False], [False, False, True]]])
    pseudo = Pseudo(torch.full((1, 2, 3), 7), torch.tensor(0.25))
    mixed, weights = mixed_labels(mask, labels, pseudo)
    assert mixed.tolist() == [[[0, 0, 7], [7, 7, IGNORE]]]
    assert weights.tolist() == [[[1, 1, 0.25], [0.25, 0.25, 1]]]


def test_patches_are_hidden_whole_and_at_random():
    mask = patch_mask((200, 60, 64), 8, 0.7, np.random.default_rng(0))
    assert mask.shape == (200, 1, 60, 64)
    assert mask.unique().tolist() == [0, 1]
    blocks = F.max_pool2d(mask, 8, ceil_mode=True)
    assert torch.equal(blocks, -F.max_pool2d(-mask, 8, ceil_mode=True))
    assert blocks.mean().item() == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(mask[0], mask[1])


def test_strong_changes_stay_in_range_and_repeat():
    images = batch()[0].float()
    first, again, other = (strongly(images, 0.25, np.random.default_rng(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, images)
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(images, batch()[0].float())


# Teacher


def test_the_teacher_is_the_first_student_then_the_average():
    student, teacher = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    weights = []
    for number in range(3):
        student.weight.data.fill_(float(number))
        # The mean of all so far, until the momentum is less than that.
        average(teacher, student, min(1 - 1 / (number + 1), 0.6))
        weights.append(teacher.weight[0, 0].item())
    assert weights == pytest.approx([0.0, 0.5, 0.6 * 0.5 + 0.4 * 2])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_teacher_follows_the_student_and_learns_nothing_itself(threads):
    of = trainer_of("self-training", lr=0.1, threads=threads)
    teacher = of.parts[0]
    before = copy.deepcopy(of.segmenter.network.state_dict())
    seen = []
    for number in range(2):
        of.step(*batch(), number)
        seen.append({k: v.clone() for k, v in of.segmenter.network.named_parameters()})
    for name, value in teacher.state().items():
        if name in seen[0]:
            torch.testing.assert_close(value, (seen[0][name] + seen[1][name]) / 2)
            assert not torch.equal(value, before[name]) or name.startswith("conv_out_sp8")


# Steps


def test_lower_entropy_is_learnt():
    of, images, labels, target = trainer_of("minent", lr=1.0, entropy_weight=1.0), *batch()
    nothing = torch.full_like(labels, IGNORE)
    found = [of.step(images, nothing, target, number).entropy.item() for number in range(4)]
    assert found[-1] < found[0]


@pytest.mark.parametrize("method", ["self-training", "mic", "self-training+mic"])
def test_the_student_learns_what_the_teacher_says(method):
    of, images, labels, target = trainer_of(method, lr=0.05, confidence=0.0), *batch()
    names = {"self-training": ["mixed"], "mic": ["masked"]}.get(method, ["mixed", "masked"])
    results = [of.step(images, labels, target, number) for number in range(6)]
    assert results[0].confident == 1
    for name in names:
        assert getattr(results[-1], name) < getattr(results[0], name)


def test_a_teacher_that_is_sure_of_nothing_teaches_nothing():
    images, labels, target = batch()
    nothing = torch.full_like(labels, IGNORE)
    of = trainer_of("mic", lr=1.0, confidence=0.9999)
    before = copy.deepcopy(of.segmenter.network)
    result = of.step(images, nothing, target)
    assert result.masked == result.confident == 0
    assert all(map(torch.equal, before.parameters(), of.segmenter.network.parameters()))


def test_entropy_is_what_advents_discriminator_sees():
    seen = []
    of = trainer_of("advent")
    judge = of.learners["discriminator"].network
    judge.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    of.step(*batch())
    # -p log p / log C is at most (1 / e) / ln 4, and adds up to at most 1.
    for shown in seen:
        assert shown.max() <= 1 / math.e / math.log(CLASSES) + 1e-6
        assert shown.sum(1).max() <= 1 + 1e-6


def test_two_levels_have_a_discriminator_each():
    of = trainer_of("multi-level", adversarial_weight=1.0, aux_weight=0.5)
    main, aux = (of.learners[name].network for name in ("discriminator", "discriminator_aux"))
    assert not torch.equal(next(main.parameters()), next(aux.parameters()))
    seen = {}

    def seen_by(name):
        def keep(_, given):
            seen.setdefault(name, given[0].detach())

        return keep

    main.register_forward_pre_hook(seen_by("main"))
    aux.register_forward_pre_hook(seen_by("aux16"))
    images, labels, target = batch()
    twin, judge = copy.deepcopy(of.segmenter.network), copy.deepcopy(aux)
    result = of.step(images, labels, target)
    heads, others = (twin.forward_heads(of._source_passes.input(x)) for x in (images, target))
    for name, shown in seen.items():
        torch.testing.assert_close(shown, getattr(heads, name).softmax(1), rtol=1e-3, atol=1e-5)
    source, fooled = (judge(of.aux16.softmax(1)) for of in (heads, others))
    assert result.aux_adversarial.item() == pytest.approx(
        F.softplus(-fooled).mean().item(), abs=1e-6
    )
    own = (F.softplus(-source).mean() + F.softplus(fooled).mean()) / 2
    assert result.aux_discriminator.item() == pytest.approx(own.item(), abs=1e-6)


def test_the_second_levels_weight_reaches_the_second_head():
    """Nothing but the adversarial terms has a gradient here."""
    moved = {}
    for aux in (0.0, 1.0):
        of = trainer_of("multi-level", lr=1.0, adversarial_weight=0.0, aux_weight=aux)
        images, labels, target = batch()
        before = of.segmenter.network.conv_out16.conv_out.weight.clone()
        of.step(images, torch.full_like(labels, IGNORE), target)
        moved[aux] = not torch.equal(before, of.segmenter.network.conv_out16.conv_out.weight)
    assert moved == {0.0: False, 1.0: True}


def test_fda_shows_the_source_restyled_and_passes_no_target(monkeypatch):
    of = trainer_of("fda", fda_beta=0.2)
    shown = []
    real = of._source_passes.input
    monkeypatch.setattr(of._source_passes, "input", lambda x: shown.append(x) or real(x))
    images, labels, target = batch()
    of.step(images, labels, target)
    torch.testing.assert_close(shown[0], swap_amplitudes(images, target, 0.2))
    tracked = of.segmenter.network.cp.backbone.features[0].bn.num_batches_tracked
    assert (len(shown), tracked) == (1, 1)


@pytest.mark.parametrize("method", ["minent+dsbn", "self-training+dsbn"])
@pytest.mark.parametrize("threads", [1, 2])
def test_own_batch_norms_of_the_target_learn_from_it_alone(method, threads):
    of = trainer_of(method, threads=threads, confidence=0.0)
    ours, its = norms_of(of.segmenter.network), norms_of(of.target_network)
    of.step(*batch())
    plain = trainer_of("augment")
    images, labels, _ = batch()
    plain.step(images, labels, None)
    for own, alone in zip(ours, norms_of(plain.segmenter.network), strict=True):
        torch.testing.assert_close(own.running_mean, alone.running_mean, rtol=1e-3, atol=1e-5)
    assert not torch.equal(ours[0].running_mean, its[0].running_mean)
    kernel, other = (
        n.cp.backbone.features[0].conv.weight for n in (of.segmenter.network, of.target_network)
    )
    assert kernel is other
    # Each domain's scale learns from its own images.
    for norms in (ours, its):
        assert not torch.equal(norms[0].weight, torch.ones_like(norms[0].weight))
    known = {id(each) for each in of.segmenter.parameters}
    assert all(id(norm.weight) in known for norm in [*ours, *its])


def test_batch_norms_begin_alike():
    network = build("stdc1-bisenet", num_classes=CLASSES)
    norms_of(network)[0].weight.data.fill_(3.0)
    twin = with_own_norms(network)
    assert torch.equal(norms_of(twin)[0].weight, norms_of(network)[0].weight)
    assert norms_of(twin)[0].weight is not norms_of(network)[0].weight


@pytest.mark.parametrize("method", ["self-training+mic", "minent", "multi-level"])
def test_statistics_side_by_side_are_those_one_after_the_other(method):
    alone, at_once = (trainer_of(method, threads=threads, confidence=0.0) for threads in (1, 2))
    for of in (alone, at_once):
        of.step(*batch())
    for one, other in zip(
        norms_of(alone.segmenter.network), norms_of(at_once.segmenter.network), strict=True
    ):
        assert one.num_batches_tracked == other.num_batches_tracked
        torch.testing.assert_close(one.running_mean, other.running_mean, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "method", ["self-training+mic", "minent+self-training", "advent+mic+dsbn", "multi-level"]
)
def test_the_faster_half_does_not_decide(method, monkeypatch):
    """Bits are the same whichever thread comes last."""
    real, found = Halves.run, []
    for late in (0, 1):

        def run(halves, *work, late=late):
            def delayed(of, watch):
                time.sleep(0.2)
                return of(watch)

            works = [partial(delayed, of) if i == late else of for i, of in enumerate(work)]
            return real(halves, *works)

        monkeypatch.setattr(Halves, "run", run)
        of = trainer_of(method, threads=2, confidence=0.0, adversarial_weight=1.0)
        for number in range(2):
            result = of.step(*batch(), number)
        found.append(of.target_network.state_dict())
    assert result.confident is None or result.confident == 1
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


def test_what_is_drawn_depends_on_seed_and_step_alone():
    def drawn(seed, number, stream):
        return StepData(number, seed, *batch()).random(stream).random()

    assert drawn(0, 5, 1) == drawn(0, 5, 1)
    assert len({drawn(0, 5, 1), drawn(0, 6, 1), drawn(1, 5, 1), drawn(0, 5, 2)}) == 4
