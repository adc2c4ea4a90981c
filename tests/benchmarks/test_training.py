"""Training and evaluation against the straightforward way to write them."""

from itertools import chain, islice
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

from dabench.data.labels import IGNORE, TRAIN_TO_ID
from dabench.data.loader import JITTER, MEAN, STD
from dabench.data.roots import PAIRS, Places
from dabench.data.standin import write_standin
from dabench.data.synthetic import CAMERA, draw_scene
from dabench.training import products
from dabench.training.config import TrainConfig
from dabench.training.frames import gather
from dabench.training.learners import settle
from dabench.training.metrics import ConfusionMatrix, official_scores
from dabench.training.scene import set_scene
from dabench.training.train import Training
from dabench_models import build

HEIGHT, WIDTH, BATCH, STEPS, EPOCHS = 128, 256, 4, 12, 2


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


def plain_training(scene):
    """The paper's repository: two optimiser steps per network and iteration, NCHW, fp32."""
    torch.manual_seed(0)
    segmenter, discriminator = build("stdc1-bisenet"), build("disc")
    sgd = torch.optim.SGD(segmenter.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    adam = torch.optim.Adam(discriminator.parameters(), 1e-4, betas=(0.9, 0.99))
    bce = torch.nn.BCEWithLogitsLoss()

    def judge(logits, truth):
        answer = discriminator(F.softmax(logits, dim=1))
        return bce(answer, torch.full_like(answer, truth))

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
        epochs = (islice(zip(sources, targets, strict=False), STEPS) for _ in range(EPOCHS))
        for (images, labels), (target, _) in chain.from_iterable(epochs):
            discriminator.requires_grad_(False)
            sgd.zero_grad()
            on_source = segmenter(images)
            losses = [F.cross_entropy(h, labels, ignore_index=IGNORE) for h in on_source[:3]]
            sum(losses).backward()
            sgd.step()
            sgd.zero_grad()
            on_target = segmenter(target)
            (0.001 * judge(on_target.main, 1.0)).backward()
            sgd.step()
            discriminator.requires_grad_(True)
            for logits, truth in ((on_source.main, 1.0), (on_target.main, 0.0)):
                adam.zero_grad()
                judge(logits.detach(), truth).backward()
                adam.step()

    return train


def our_training(scene, folder, monkeypatch):
    """``dabench train`` with its defaults, decoding into an empty cache each time."""
    config = TrainConfig(
        pair="gta2city", method="adversarial", epochs=EPOCHS, height=HEIGHT, width=WIDTH,
        batch=BATCH, limit=STEPS * BATCH, device="cpu",
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


def test_adversarial_training_from_disk(compare, native, scene, tmp_path, monkeypatch):
    train = our_training(scene, tmp_path, monkeypatch)
    # Ratios of rounds: what else the machine does changes from minute to minute.
    rounds = zip(*compare.times(train, plain_training(scene), rounds=3), strict=True)
    ratios = [plain / ours for ours, plain in rounds]
    if compare.measuring:
        compare.check("share outside of convolutions", outside_of_convolutions(train, monkeypatch))
    bound = 1.6 if "bf16" in native else 1.25
    compare.check("speed-up of adversarial training", median(ratios), at_least=bound)


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
