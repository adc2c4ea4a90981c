"""One training step: who learns what from which loss."""

import copy
import threading
from functools import partial
from threading import Event

import pytest
import torch
from fakes import FakeClock

from dabench.data.inputs import network_input
from dabench.data.labels import IGNORE
from dabench.records.trainings import EPOCH_PARTS
from dabench.training import passes
from dabench.training import products as gradients
from dabench.training.halves import WAITING, Halves, Waiting
from dabench.training.losses import discriminator_input
from dabench.training.methods import adversarial
from dabench.training.methods.adversarial import Adversary, Level
from dabench.training.passes import Learner, Precision
from dabench.training.step import Trainer, poly
from dabench.training.stopwatch import Stopwatch
from dabench_models import build

pytestmark = pytest.mark.usefixtures("slim")

CLASSES = 5


def learner(network, lr):
    optimizer = torch.optim.SGD(network.parameters(), lr)
    return Learner(network, optimizer, Precision(device="cpu", dtype="fp32"))


def trained(*, steps=2, double=False, **settings):
    """Weights and statistics of both networks after a few steps, and the steps' results."""
    of = trainer(lr=0.05, disc_lr=0.05, double=double, **settings)
    images, labels, target = batch()
    results = [of.step(images, labels, target) for _ in range(steps)]
    states = [learner.network.state_dict() for learner in of.learners.values()]
    return {f"{i} {k}": v for i, state in enumerate(states) for k, v in state.items()}, results


def trainer(
    *,
    fools=True,
    weight=1.0,
    disc_lr=0.0,
    lr=0.01,
    disc="disc",
    double=False,
    nhwc=False,
    **changes,
):
    torch.manual_seed(0)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    network = build("stdc1-bisenet", num_classes=CLASSES).to(memory_format=layout)
    segmenter = learner(network.double() if double else network, lr)
    judge = build(disc, num_classes=CLASSES).to(memory_format=layout)
    adversary = learner(judge, disc_lr)
    settings = {"disc_input": "softmax", "ohem": False, "detail": False, **changes}
    shown = settings.pop("disc_input")
    level = Level("main", adversary, weight=weight if fools else 0.0, disc_input=shown)
    watch = Stopwatch(FakeClock())
    return Trainer(segmenter, [Adversary([level])], passes_target=True, watch=watch, **settings)


def judge_of(of):
    """The discriminator with its optimiser."""
    return of.learners["discriminator"]


def batch(seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 64, 64), generator=generator)
    return images, labels, images.flip(3).roll(9, 2)


def belief(of, target):
    """How much the discriminator takes the target's prediction for the source's."""
    twin = copy.deepcopy(of.segmenter.network).train()
    with torch.no_grad():
        shown = discriminator_input(twin.forward_main(network_input(target)), "softmax")
        return torch.sigmoid(judge_of(of).network(shown)).mean().item()


def beliefs_over_steps(of):
    images, labels, target = batch()
    before = belief(of, target)
    for _ in range(3):
        # Without labels only the adversarial term moves the segmenter.
        of.step(images, torch.full_like(labels, IGNORE), target)
    return before, belief(of, target)


def test_the_adversarial_term_makes_the_target_pass_for_the_source(slim):
    slim.close()  # on thin networks three steps move less than rounding does
    before, after = beliefs_over_steps(trainer(lr=1.0))
    assert after > before + 1e-6


def test_with_the_label_swapped_the_target_gives_itself_away(monkeypatch, slim):
    slim.close()
    of = trainer(lr=1.0)
    monkeypatch.setattr(adversarial, "FOOLED", adversarial.TARGET)
    before, after = beliefs_over_steps(of)
    assert after < before - 1e-6


def test_the_adversarial_term_leaves_the_discriminator_alone():
    """It learns exactly what it learns where there is no such term."""
    learnt = []
    for fools in (True, False):
        of = trainer(weight=1000.0, fools=fools)

        def gradients_seen(optimizer, *_):
            learnt.append([p.grad.clone() for p in optimizer.param_groups[0]["params"]])

        judge_of(of).optimizer.register_step_pre_hook(gradients_seen)
        of.step(*batch())
        assert all(p.requires_grad for p in judge_of(of).network.parameters())
    with_term, without = learnt
    assert all(map(torch.equal, with_term, without))
    assert all(gradient.any() for gradient in without)


def test_the_discriminator_learns_source_from_target():
    of = trainer(fools=False, disc_lr=0.05, lr=0.0)
    images, labels, target = batch()
    results = [of.step(images, labels, target) for _ in range(12)]
    assert results[-1].discriminator < results[0].discriminator
    assert results[-1].on_source > results[-1].on_target
    assert results[0].adversarial is None


@pytest.mark.parametrize("threads", [1, 2])
def test_the_discriminator_learns_as_written_out(threads):
    """Mean of the losses for the truths 1 and 0, its gradients, beliefs and accuracy."""
    of = trainer(threads=threads, fools=False)
    images, labels, target = batch()
    judge, seen = judge_of(of).network, {}

    def kept(_, given, __):
        # The target's half passes in a thread of its own, or second.
        elsewhere = threading.current_thread() is not threading.main_thread()
        second = elsewhere if threads > 1 else bool(seen)
        seen["target" if second else "source"] = given[0].detach()

    def learnt(optimizer, *_):
        seen["gradients"] = [p.grad.clone() for p in optimizer.param_groups[0]["params"]]

    hooks = [
        judge.register_forward_hook(kept),
        judge_of(of).optimizer.register_step_pre_hook(learnt),
    ]
    found = of.step(images, labels, target)
    for hook in hooks:
        hook.remove()
    source, other = (judge(seen[name]) for name in ("source", "target"))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    loss = (entropy(source, torch.ones_like(source)) + entropy(other, torch.zeros_like(other))) / 2
    expected = torch.autograd.grad(loss, list(judge.parameters()))
    for ours, its in zip(seen["gradients"], expected, strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-3, atol=1e-6)
    assert found.discriminator.item() == pytest.approx(loss.item(), rel=1e-5)
    assert found.on_source.item() == pytest.approx(source.sigmoid().mean().item(), rel=1e-5)
    assert found.on_target.item() == pytest.approx(other.sigmoid().mean().item(), rel=1e-5)
    right = ((source > 0).float().mean() + (other < 0).float().mean()) / 2
    assert found.accuracy.item() == pytest.approx(right.item())


def test_without_weight_only_batch_norm_sees_the_target():
    images, labels, target = batch()
    control, plain = trainer(fools=False), trainer(fools=False)
    control.step(images, labels, target)
    plain.step(images, labels, None)
    ours, theirs = (t.segmenter.network.state_dict() for t in (control, plain))
    weights = dict(control.segmenter.network.named_parameters())
    assert all(torch.equal(ours[name], theirs[name]) for name in weights)
    mean = "cp.backbone.features.0.bn.running_mean"
    assert not torch.equal(ours[mean], theirs[mean])


def test_each_network_takes_one_optimiser_step():
    of = trainer(disc_lr=0.01)
    steps = []
    for name in ("segmenter", "discriminator"):
        optimizer = of.learners[name].optimizer
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append(name))
    of.step(*batch())
    assert steps == ["segmenter", "discriminator"]


@pytest.mark.parametrize("kind", ["logits", "entropy"])
@pytest.mark.parametrize("disc", ["dw-disc", "diag-disc"])
def test_other_discriminators_and_inputs(kind, disc, slim):
    slim.close()  # thin ones have no groups
    result = trainer(disc=disc, disc_input=kind, ohem=True, detail=True).step(*batch())
    values = [result.segmentation, result.adversarial, result.discriminator, result.accuracy]
    assert all(torch.isfinite(value) for value in values)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_keeps_fp32_weights(dtype):
    torch.manual_seed(0)
    segmenter = build("stdc1-bisenet", num_classes=CLASSES)
    precision = Precision(device="cpu", dtype=dtype)
    of = trainer()
    of.segmenter.precision = precision
    of.step(*batch())
    assert precision.scaler.is_enabled() == (dtype == "fp16")
    assert all(p.dtype == torch.float32 for p in of.segmenter.network.parameters())
    assert len(list(segmenter.parameters())) == len(list(of.segmenter.network.parameters()))


def test_gradients_are_clipped():
    of = trainer(fools=False, lr=1.0)
    of.segmenter.clip = 1e-3
    before = [p.detach().clone() for p in of.segmenter.network.parameters()]
    of.step(*batch())
    moved = torch.stack(
        [
            (p - b).square().sum()
            for p, b in zip(of.segmenter.network.parameters(), before, strict=True)
        ]
    )
    assert moved.sum().sqrt().item() == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("fools", [True, False])
def test_side_by_side_ends_where_one_after_the_other_ends(fools, monkeypatch):
    # In fp32 two orders of the same sums part by more than what is to be seen here.
    monkeypatch.setattr(passes, "network_input", lambda x, **_: network_input(x).double())
    alone, losses = trained(fools=fools, double=True)
    at_once, same_losses = trained(fools=fools, double=True, threads=2)
    assert alone.keys() == at_once.keys()
    for name, value in alone.items():
        torch.testing.assert_close(at_once[name], value, rtol=1e-4, atol=1e-6, msg=name)
    counts = {name: int(v) for name, v in at_once.items() if name.endswith("batches_tracked")}
    # The target passes through the main head alone.
    assert counts["0 cp.backbone.features.0.bn.num_batches_tracked"] == 4
    assert counts["0 conv_out16.conv.bn.num_batches_tracked"] == 2
    assert losses[1].discriminator == pytest.approx(same_losses[1].discriminator.item(), abs=1e-5)


@pytest.fixture
def products(monkeypatch):
    """The weights' gradients that came from products, and those that were put off."""
    seen = {"all": 0, "of the judge": 0, "put off": 0}
    real, putting = gradients.weight_gradient, Halves.put_off

    def computed(*of):
        seen["all"] += 1
        # Kernels of 4x4 are the discriminator's.
        seen["of the judge"] += tuple(of[2]) == (4, 4)
        return real(*of)

    def put_off(halves, task):
        seen["put off"] += 1
        putting(halves, task)

    monkeypatch.setattr(gradients, "weight_gradient", computed)
    monkeypatch.setattr(Halves, "put_off", put_off)
    return seen


@pytest.mark.parametrize("pays", [False, True])
def test_side_by_side_gives_the_same_bits_each_time(pays, products, monkeypatch):
    monkeypatch.setattr(passes, "pay_off", lambda _: pays)
    first, _ = trained(threads=2, nhwc=True)
    second, _ = trained(threads=2, nhwc=True)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert (products["all"] > 0) == pays
    assert products["put off"] == products["all"]


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_from_products_end_where_the_librarys_end(threads, products, monkeypatch, slim):
    slim.close()  # of thin layers only some have products
    monkeypatch.setattr(passes, "network_input", lambda x, **_: network_input(x).double())
    monkeypatch.setattr(passes, "pay_off", lambda _: False)
    theirs, losses = trained(double=True, nhwc=True)
    assert products["all"] == 0
    monkeypatch.setattr(passes, "pay_off", lambda _: True)
    ours, same_losses = trained(double=True, nhwc=True, threads=threads)
    of = build("disc", num_classes=CLASSES).modules()
    judging = sum(isinstance(m, torch.nn.Conv2d) and m.out_channels > 1 for m in of)
    # Of each step: source and target once each, the adversarial pass none.
    assert products["all"] > products["of the judge"] == 2 * 2 * judging
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert losses[1].discriminator == pytest.approx(same_losses[1].discriminator.item(), abs=1e-5)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_side_by_side_in_mixed_precision_every_weight_learns(dtype):
    """Without an adversarial term the target passes without gradients, and casts weights too."""
    of = trainer(fools=False, threads=2)
    for member in of.learners.values():
        member.precision = Precision(device="cpu", dtype=dtype)
    lacking = []

    def gradients_seen(*_):
        named = of.segmenter.network.named_parameters()
        lacking.extend(n for n, p in named if p.grad is None and not n.startswith("conv_out_sp8"))

    of.segmenter.optimizer.register_step_pre_hook(gradients_seen)
    images, labels, target = (part[..., :32, :32] for part in batch())
    of.step(images, labels, target)
    assert lacking == []


def test_an_error_in_one_half_waits_for_the_other():
    halves, ended, threads = Halves(Stopwatch(FakeClock()), 3), [], torch.get_num_threads()

    def fails(_):
        raise ValueError("the first")

    def also_fails(_):
        raise RuntimeError("the second")

    with pytest.raises(ValueError, match="the first"):
        halves.run(fails, lambda _: ended.append(torch.get_num_threads()))
    with pytest.raises(ValueError, match="the first"):
        halves.run(fails, also_fails)
    with pytest.raises(RuntimeError, match="the second"):
        halves.run(lambda _: None, also_fails)
    assert ended == [1]
    assert torch.get_num_threads() == threads
    assert halves.run(lambda _: torch.get_num_threads(), lambda _: "b") == (2, "b")


def test_what_is_put_off_is_done_by_the_half_that_has_time():
    halves, by, done = Halves(Stopwatch(FakeClock()), 2), [], Event()

    def task():
        by.append(threading.current_thread())
        done.set()

    def second(_):
        halves.put_off(task)
        # It would wait in vain if the first had gone.
        return done.wait(30)

    assert halves.run(lambda _: threading.current_thread(), second) == (by[0], True)
    # Between two runs nobody else would do it.
    halves.put_off(task)
    assert len(by) == 2


def test_all_that_is_put_off_is_done_and_errors_are_heard_of():
    halves, done = Halves(Stopwatch(FakeClock()), 2), []

    def half(start):
        for number in range(start, start + 3 * WAITING):
            halves.put_off(partial(done.append, number))

    halves.run(lambda _: half(0), lambda _: half(1000))
    assert sorted(done) == [*range(3 * WAITING), *range(1000, 1000 + 3 * WAITING)]

    def fails():
        raise ValueError("put off")

    with pytest.raises(ValueError, match="put off"):
        halves.run(lambda _: None, lambda _: halves.put_off(fails))
    assert halves.run(lambda _: 1, lambda _: 2) == (1, 2)


def test_uneven_halves_do_their_own():
    halves, by = Halves(Stopwatch(FakeClock()), 3), []

    def half(_):
        for _ in range(3):
            halves.put_off(lambda: by.append(threading.current_thread()))
            # Done before anything else.
            assert by[-1] is threading.current_thread()

    halves.run(lambda _: None, half)
    assert len(by) == 3


def test_ctrl_c_on_the_way_into_a_half_leaves_nobody_waiting(monkeypatch):
    halves, threads, done = Halves(Stopwatch(FakeClock()), 2), torch.get_num_threads(), []
    real, interruptions = torch.set_num_threads, iter([KeyboardInterrupt])

    def interrupted(number):
        if threading.current_thread() is threading.main_thread():
            for interruption in interruptions:
                raise interruption
        real(number)

    monkeypatch.setattr(torch, "set_num_threads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        halves.run(lambda _: None, lambda _: halves.put_off(partial(done.append, "put off")))
    assert done == ["put off"]
    assert torch.get_num_threads() == threads
    assert halves.run(lambda _: 1, lambda _: 2) == (1, 2)


def test_few_pieces_of_work_wait():
    waiting, done = Waiting(), []
    for number in range(WAITING + 2):
        waiting.put(partial(done.append, number))
    assert done == [0, 1]


def test_time_side_by_side_is_shared_out_and_adds_up():
    clock = FakeClock()
    watch = Stopwatch(clock)
    with watch.side_by_side() as (source, target):
        with source.part("source"):
            clock.now += 3.0
        # What the other took in the meantime.
        target.seconds["target"] = 1.0
    assert watch.reset() == {**dict.fromkeys(EPOCH_PARTS, 0.0), "source": 2.25, "target": 0.75}
    with watch.side_by_side():
        pass
    assert watch.reset() == dict.fromkeys(EPOCH_PARTS, 0.0)


def test_the_stopwatch_adds_up_parts_and_waits_for_the_device():
    clock = FakeClock()

    def synchronize():
        clock.now += 2.0
        return 0.0

    watch = Stopwatch(clock, synchronize)
    for _ in range(2):
        with watch.part("target"):
            clock.now += 1.0
    assert watch.reset() == {**dict.fromkeys(EPOCH_PARTS, 0.0), "target": 6.0}
    assert watch.seconds == dict.fromkeys(EPOCH_PARTS, 0.0)


def test_poly_falls_from_one_to_nothing():
    assert poly(0.0) == 1.0
    assert poly(0.5) == pytest.approx(0.5**0.9)
    assert poly(1.0) == 0.0
