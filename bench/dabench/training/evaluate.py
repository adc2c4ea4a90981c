"""Scores of a segmenter on labelled frames, and batch-norm statistics of unlabelled ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dabench.data.labels import LabelMap, read_label
from dabench.data.loader import network_input
from dabench.data.prepare import Prepared
from dabench.training.halves import norms_of
from dabench.training.labelling import classes_at
from dabench.training.metrics import ConfusionMatrix, Counts
from dabench.training.passes import Precision
from dabench_models.bisenet import BiSeNet


def image_batches(prepared: Prepared, batch: int, device: torch.device) -> Iterator[Tensor]:
    """All images in order, (N, 3, H, W) uint8; the last batch may be smaller."""
    for start in range(0, len(prepared), batch):
        pixels = np.array(prepared.images[start : start + batch])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)


def full_label(prepared: Prepared, index: int) -> LabelMap:
    """A frame's label map at its own resolution."""
    frame = prepared.frames[index]
    return read_label(frame.label, frame.encoding)


def predict(network: BiSeNet, images: Tensor, size: tuple[int, int], *, normalised: bool) -> Tensor:
    """Classes of images at another size.

    Args:
        network: In eval mode.
        images: (N, 3, H, W) uint8.
        size: (height, width) of the result; logits are brought to it bilinearly, by way of the
            images' size.
        normalised: As in training.

    Returns:
        (N, height, width) uint8 classes.
    """
    return classes_at(_small_logits(network, images, normalised), _size_of(images), size)


def _small_logits(network: BiSeNet, images: Tensor, normalised: bool) -> Tensor:
    return network.forward_main(network_input(images, normalised=normalised), upsampled=False)


def _size_of(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Pixels of one frame, by class.

    Attributes:
        hit: Of the class and predicted so.
        truth: Of the class.
        predicted: Predicted so where there is ground truth.
    """

    hit: tuple[int, ...]
    truth: tuple[int, ...]
    predicted: tuple[int, ...]

    @classmethod
    def of(cls, counts: Counts) -> FrameCounts:
        """From (classes, classes) pixels, true classes in rows."""
        parts = (np.diag(counts), counts.sum(1), counts.sum(0))
        return cls(*(tuple(int(n) for n in part) for part in parts))


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Predictions against labels.

    Attributes:
        counts: (classes, classes) pixels of all frames.
        frames: Of each, in order.
    """

    counts: Counts
    frames: tuple[FrameCounts, ...]


@torch.inference_mode()
def confusion_on(
    network: BiSeNet,
    prepared: Prepared,
    *,
    classes: int,
    device: torch.device,
    normalised: bool,
    batch: int = 8,
) -> Evaluated:
    """Compares predictions with the labels at full resolution, in fp32 however it was trained.

    Args:
        network: Put into eval mode.
        prepared: Labelled frames at the network's size.
        classes: Of the labels.
        device: The network's.
        normalised: As in training.
        batch: Images per pass.
    """
    network.eval()
    matrix = ConfusionMatrix(classes)
    frames: list[FrameCounts | None] = [None] * len(prepared)
    index = 0
    for images in image_batches(prepared, batch, device):
        logits = _small_logits(network, images, normalised)
        # While they are decoded, a device that runs by itself is at work.
        truths = [full_label(prepared, index + i) for i in range(len(images))]
        for group in _equal_sizes(truths):
            found = classes_at(logits[group], _size_of(images), truths[group[0]].shape)
            for position, prediction in zip(group, found, strict=True):
                counts = matrix.add(torch.from_numpy(truths[position]).to(device), prediction)
                frames[index + position] = FrameCounts.of(counts)
        index += len(images)
    return Evaluated(matrix.counts, tuple(frame for frame in frames if frame is not None))


def _equal_sizes(labels: list[LabelMap]) -> list[list[int]]:
    """Positions grouped by the size of their label map."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, label in enumerate(labels):
        groups.setdefault(label.shape, []).append(position)
    return list(groups.values())


@torch.no_grad()
def recompute_statistics(
    network: BiSeNet,
    prepared: Prepared,
    *,
    device: torch.device,
    precision: Precision,
    normalised: bool,
    batch: int,
) -> None:
    """Replaces batch norm's running statistics by those of other images (AdaBN).

    Fewer than two images leave the statistics as they are.

    Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation",
    2016. Labels are not looked at; weights stay as they are.
    """
    if len(prepared) < 2:
        return
    norms = norms_of(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None averages over all batches instead of forgetting the first.
        norm.momentum = None
    network.train()
    for images in image_batches(prepared, batch, device):
        if len(images) > 1:
            with precision.passes():
                # All heads: their statistics were reset too.
                network.forward_heads(network_input(images, normalised=normalised), upsampled=False)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
