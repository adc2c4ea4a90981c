"""Training and evaluation against the straightforward way to write them."""

import copy
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from random import random
from statistics import median

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.profiler import ProfilerActivity, _ExperimentalConfig, profile, record_function
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision.transforms import v2

from dabench.data.inputs import network_input
from dabench.data.labels import IGNORE, TRAIN_TO_ID
from dabench.data.loader import JITTER
from dabench.data.prepare import MEAN, STD, prepare
from dabench.data.roots import PAIRS, Places
from dabench.data.standin import write_standin
from dabench.data.synthetic import CAMERA, draw_scene
from dabench.scoring.evaluate import full_label, image_batches
from dabench.scoring.metrics import ConfusionMatrix, official_scores
from dabench.training import products
from dabench.training.config import TrainConfig
from dabench.training.evaluate import confusion_on
from dabench.training.frames import gather
from dabench.training.learners import settle
from dabench.training.scene import set_scene
from dabench.training.train import Training
from dabench_models import build

HEIGHT, WIDTH, BATCH, STEPS, EPOCHS = 128, 256, 4, 12, 2
SHORT = 6
"""Steps of an epoch for each of many methods."""


class Nobody:
    """An observer who looks away."""

    def preparing(self, *_):
        pass

    step = epoch = note = preparing


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    gta5, cityscapes = write_standin(tmp_path_factory.mktemp("drawn") / "d", scale=0.35)
    return set_scene("gta2city", Places({"gta5": gta5, "cityscapes": cityscapes}, PAIRS))


class PlainFrames(Dataset):
    """Files read, resized, converted and augmented one by one, each time anew."""

    def __init__(self, frames, *, jitter):
        self.frames = frames
        self.jitter = v2.ColorJitter(*JITTER) if jitter else v2.Identity()

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        frame = self.frames[index]
        image = Image.open(frame.image).convert("RGB").resize((WIDTH, HEIGHT), Image.BILINEAR)
        ids = Image.open(frame.label).resize((WIDTH, HEIGHT), Image.NEAREST)
        ids = np.asarray(ids)
        label = np.full(ids.shape, IGNORE, np.int64)
        for train_id, label_id in enumerate(TRAIN_TO_ID):
            label[ids == label_id] = train_id
        pixels = torch.from_numpy(np.asarray(self.jitter(image)).copy()).permute(2, 0, 1) / 255
        pixels = v2.functional.normalize(pixels, MEAN, STD)
        return pixels, torch.from_numpy(label)


def self_information(logits):
    p = F.softmax(logits, dim=1)
    return -p * torch.log2(p + 1e-30) / np.log2(logits.shape[1])


def probabilities(logits):
    return F.softmax(logits, dim=1)


def plain_adversary(segmenter, sgd, heads=("main",), shown=probabilities):
    """The paper's repository: two optimiser steps per network and iteration."""
    weights = {"main": 0.001, "aux16": 0.0002}
    discriminators = {name: build("disc") for name in heads}
    adams = {
        name: torch.optim.Adam(discriminator.parameters(), 1e-4, betas=(0.9, 0.99))
        for name, discriminator in discriminators.items()
    }

    def judge(output, name, truth):
        answer = discriminators[name](shown(output[name]))
        return F.binary_cross_entropy_with_logits(answer, torch.full_like(answer, truth))

    def step(images, labels, target):
        for discriminator in discriminators.values():
            discriminator.requires_grad_(False)
        sgd.zero_grad()
        on_source = segmenter(images)
        losses = [F.cross_entropy(h, labels, ignore_index=IGNORE) for h in on_source[:3]]
        sum(losses).backward()
        sgd.step()
        sgd.zero_grad()
        on_target = segmenter(target)._asdict()
        sum(weights[name] * judge(on_target, name, 1.0) for name in heads).backward()
        sgd.step()
        for name, adam in adams.items():
            discriminators[name].requires_grad_(True)
            for output, truth in ((on_source._asdict(), 1.0), (on_target, 0.0)):
                adam.zero_grad()
                judge({name: output[name].detach()}, name, truth).backward()
                adam.step()

    return step


def plain_source(segmenter, images, labels):
    losses = [F.cross_entropy(h, labels, ignore_index=IGNORE) for h in segmenter(images)[:3]]
    return sum(losses)


def plain_minent(segmenter, sgd):
    """AdvEnt's repository: one optimiser step for both losses."""

    def step(images, labels, target):
        sgd.zero_grad()
        plain_source(segmenter, images, labels).backward()
        entropy = self_information(segmenter(target).main).sum(1).mean()
        (0.001 * entropy).backward()
        sgd.step()

    return step


def plain_fda(segmenter, sgd):
    """FDA's repository, but for its term on the target."""

    def swapped(source, target, beta=0.01):
        ours, theirs = torch.fft.fft2(source), torch.fft.fft2(target)
        amplitude, reach = ours.abs(), int(beta * min(source.shape[2:]))
        for rows in (slice(None, reach), slice(-reach, None)):
            for columns in (slice(None, reach), slice(-reach, None)):
                amplitude[..., rows, columns] = theirs.abs()[..., rows, columns]
        return torch.fft.ifft2(torch.polar(amplitude, ours.angle())).real

    def step(images, labels, target):
        sgd.zero_grad()
        plain_source(segmenter, swapped(images, target), labels).backward()
        sgd.step()

    return step


def plain_teacher(segmenter, sgd, *, mixed, masked):
    """DACS's repository, and MIC's term: a teacher in training mode, updated parameter-wise."""
    teacher = copy.deepcopy(segmenter).requires_grad_(False)
    jitter, blur = v2.ColorJitter(0.25, 0.25, 0.25, 0.25), v2.GaussianBlur(13, (0.15, 1.15))
    done = []

    def strongly(images):
        deviation, mean = (torch.tensor(x).view(1, 3, 1, 1) for x in (STD, MEAN))
        pixels = (images * deviation + mean).clamp(0, 1)
        pixels = torch.stack([jitter(p) if random() < 0.8 else p for p in pixels])
        pixels = torch.stack([blur(p) if random() < 0.5 else p for p in pixels])
        return (pixels - mean) / deviation

    def taught(images, labels, weights):
        heads = segmenter(images)[:3]
        losses = [F.cross_entropy(h, labels, ignore_index=IGNORE, reduction="none") for h in heads]
        return sum((loss * weights).mean() for loss in losses)

    def step(images, labels, target):
        sgd.zero_grad()
        plain_source(segmenter, images, labels).backward()
        with torch.no_grad():
            sure, pseudo = F.softmax(teacher(target).main, dim=1).max(dim=1)
            weights = torch.full(pseudo.shape, (sure >= 0.968).float().mean())
        if mixed:
            masks = []
            for label in labels:
                classes = label.unique()
                chosen = classes[torch.randperm(len(classes))[: (len(classes) + 1) // 2]]
                masks.append(torch.isin(label, chosen))
            mask = torch.stack(masks)
            both = torch.where(mask[:, None], images, target)
            new, counts = torch.where(mask, labels, pseudo), torch.where(mask, 1.0, weights)
            taught(strongly(both), new, counts).backward()
        if masked:
            patches = (torch.rand(len(target), 1, HEIGHT // 8, WIDTH // 8) > 0.7).float()
            mask = F.interpolate(patches, scale_factor=8, mode="nearest")
            taught(strongly(target) * mask, pseudo, weights).backward()
        sgd.step()
        done.append(0)
        momentum = min(1 - 1 / len(done), 0.99)
        for ours, its in zip(teacher.parameters(), segmenter.parameters(), strict=True):
            ours.data[:] = momentum * ours.data[:] + (1 - momentum) * its.data[:]

    return step


PLAIN = {
    "adversarial": plain_adversary,
    "advent": partial(plain_adversary, shown=self_information),
    "multi-level": partial(plain_adversary, heads=("main", "aux16")),
    "minent": plain_minent,
    "fda": plain_fda,
    "self-training": partial(plain_teacher, mixed=True, masked=False),
    "mic": partial(plain_teacher, mixed=False, masked=True),
    "self-training+mic": partial(plain_teacher, mixed=True, masked=True),
}
"""Each method as its authors' repository has it, in NCHW and fp32."""


def plain_training(scene, method, steps):
    """A method as its repository trains it."""
    torch.manual_seed(0)
    segmenter = build("stdc1-bisenet")
    sgd = torch.optim.SGD(segmenter.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    step = PLAIN[method](segmenter, sgd)

    def train():
        sources, targets = (
            DataLoader(
                # As with us, the target keeps its colours.
                PlainFrames(domain.frames("train"), jitter=domain is scene.source),
                BATCH,
                shuffle=True,
                drop_last=True,
            )
            for domain in (scene.source, scene.target)
        )
        epochs = (islice(zip(sources, targets, strict=False), steps) for _ in range(EPOCHS))
        for (images, labels), (target, _) in chain.from_iterable(epochs):
            step(images, labels, target)

    return train


def our_training(scene, method, steps, folder, monkeypatch):
    """``dabench train`` with its defaults, decoding into an empty cache each time."""
    config = TrainConfig(
        pair="gta2city", method=method, epochs=EPOCHS, height=HEIGHT, width=WIDTH,
        batch=BATCH, limit=steps * BATCH, device="cpu",
    )  # fmt: skip
    monkeypatch.setenv("DABENCH_CACHE", str(folder / "first"))
    frames = gather(config, scene, None, Nobody())
    config = settle(config, len(scene.target.classes), Nobody())
    training = Training(config, frames, scene.target.classes, None, Nobody())
    runs = []

    def train():
        runs.append(0)
        monkeypatch.setenv("DABENCH_CACHE", str(folder / f"cold-{len(runs)}"))
        training.frames = gather(config, scene, None, Nobody())
        batches = training.batches(0)
        for epoch in range(EPOCHS):
            training.epoch(epoch, batches)

    return train


def outside_of_convolutions(run, monkeypatch):
    """The share of the time inside torch's operators that no convolution takes.

    Of all threads; decoding files is outside of operators.
    """
    product, name = products.weight_gradient, "gradient of a convolution's weight"

    def named(*of):
        with record_function(name):
            return product(*of)

    monkeypatch.setattr(products, "weight_gradient", named)
    everywhere = _ExperimentalConfig(profile_all_threads=True)
    with profile(
        activities=[ProfilerActivity.CPU],
        experimental_config=everywhere,
        acc_events=True,  # some versions of torch warn where it is left out
    ) as profiler:
        run()
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    convolving = sum(
        # A product is made of operators that have other names.
        event.cpu_time_total if event.key == name else event.self_cpu_time_total
        for event in events
        if "conv" in event.key.lower()
    )
    return 1 - convolving / whole


def speed_up(train, plain, compare):
    # Ratios of rounds: what else the machine does changes from minute to minute.
    rounds = zip(*compare.times(train, plain, rounds=3), strict=True)
    return median([theirs / ours for ours, theirs in rounds])


def test_adversarial_training_from_disk(compare, native, scene, tmp_path, monkeypatch):
    train = our_training(scene, "adversarial", STEPS, tmp_path, monkeypatch)
    ratio = speed_up(train, plain_training(scene, "adversarial", STEPS), compare)
    if compare.measuring:
        compare.check("share outside of convolutions", outside_of_convolutions(train, monkeypatch))
    bound = 1.6 if "bf16" in native else 1.25
    compare.check("speed-up of adversarial training", ratio, at_least=bound)


@pytest.mark.parametrize("method", [name for name in PLAIN if name != "adversarial"])
def test_other_methods_from_disk(method, compare, native, scene, tmp_path, monkeypatch):
    if not compare.measuring and method != "self-training+mic":
        pytest.skip("where nothing is measured one stands for all")
    train = our_training(scene, method, SHORT, tmp_path, monkeypatch)
    ratio = speed_up(train, plain_training(scene, method, SHORT), compare)
    bound = 1.6 if "bf16" in native else 1.25
    compare.check(f"speed-up of {method} training", ratio, at_least=bound)


def frames_of(scene, folder, size):
    """Evaluated frames, drawn at another size where one is given."""
    frames = scene.target.frames(scene.target.reported)[:8]
    if size is None:
        return frames
    larger = []
    for index, frame in enumerate(frames):
        image, label = folder / f"{index}.jpg", folder / f"{index}.png"
        Image.open(frame.image).resize(size[::-1], Image.BILINEAR).save(image)
        Image.open(frame.label).resize(size[::-1], Image.NEAREST).save(label)
        larger.append(replace(frame, image=image, label=label))
    return larger


@pytest.mark.parametrize(
    ("size", "labels"),
    [((HEIGHT, WIDTH), None), ((512, 1024), (1024, 2048))],
    ids=["small", "cityscapes"],
)
def test_evaluation_beside_its_passes(size, labels, compare, scene, tmp_path):
    prepared = prepare(frames_of(scene, tmp_path, labels), size)
    device, classes = torch.device("cpu"), len(scene.target.classes)
    torch.manual_seed(0)
    network = build("stdc1-bisenet", num_classes=classes).to(memory_format=torch.channels_last)

    def evaluation():
        confusion_on(network, prepared, classes=classes, device=device, normalised=True)

    @torch.inference_mode()
    def passes_and_decoding():
        network.eval()
        for images in image_batches(prepared, 8, device):
            network(network_input(images, normalised=True))
        for index in range(len(prepared)):
            full_label(prepared, index)

    rounds = zip(*compare.times(evaluation, passes_and_decoding, rounds=7), strict=True)
    ratio = median([ours / theirs for ours, theirs in rounds])
    compare.check("evaluation over its passes and decoding", ratio, at_most=1.05)


def cityscapes_scripts_way(truths, predictions, classes):
    """cityscapesScripts' evaluatePair without its compiled part: np.unique on pairs."""
    matrix = np.zeros((256, 256), np.int64)
    for truth, prediction in zip(truths, predictions, strict=True):
        encoding = max(truth.max(), prediction.max()).astype(np.int32) + 1
        encoded = truth.astype(np.int32) * encoding + prediction
        for value, count in zip(*np.unique(encoded, return_counts=True), strict=True):
            matrix[value // encoding, value % encoding] += count
    return matrix[:classes, :classes]


def torchmetrics_way(truths, predictions, classes):
    metric = MulticlassConfusionMatrix(classes, ignore_index=IGNORE, validate_args=False)
    for truth, prediction in zip(truths, predictions, strict=True):
        metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    return metric.compute().numpy()


def read_once(truths, predictions):
    """Touches every pixel of both maps: nobody can count them without."""
    for maps in zip(truths, predictions, strict=True):
        for each in maps:
            torch.from_numpy(each).sum()


def our_way(truths, predictions, classes):
    matrix = ConfusionMatrix(classes)
    for truth, prediction in zip(truths, predictions, strict=True):
        matrix.add(torch.from_numpy(truth), torch.from_numpy(prediction))
    return matrix.counts


def test_evaluation_of_fifty_label_maps(compare):
    random = np.random.default_rng(0)
    truths, predictions = [], []
    for index in range(50 if compare.measuring else 2):
        _, label = draw_scene(CAMERA, (9, index), 256, 512)
        truth = np.kron(label, np.ones((4, 4), np.uint8))
        prediction = np.roll(np.where(truth == IGNORE, 0, truth), 5, axis=1)
        wrong = random.random(prediction.shape) < 0.05
        prediction[wrong] = random.integers(0, 19, int(wrong.sum()))
        truths.append(truth)
        predictions.append(prediction.astype(np.uint8))
    assert np.array_equal(
        our_way(truths[:2], predictions[:2], 19),
        cityscapes_scripts_way(truths[:2], predictions[:2], 19),
    )
    scores = official_scores(our_way(truths[:2], predictions[:2], 19))
    assert 0.5 < scores.accuracy < 1
    ours, numpy, metric, read = compare.medians(
        lambda: our_way(truths, predictions, 19),
        lambda: cityscapes_scripts_way(truths, predictions, 19),
        lambda: torchmetrics_way(truths, predictions, 19),
        lambda: read_once(truths, predictions),
        rounds=5,
    )
    compare.check("speed-up over the faster of numpy and torchmetrics", min(numpy, metric) / ours,
                  at_least=2.0)  # fmt: skip
    compare.check("the confusion matrix over reading both maps", ours / read, at_most=5.0)
