"""Predictions for labelled frames, pixel by pixel, whatever makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dabench.data.labels import LabelMap, read_label
from dabench.data.prepare import Prepared
from dabench.scoring.labelling import classes_at
from dabench.scoring.metrics import ConfusionMatrix, Counts

Logits = Callable[[Tensor], Tensor]
"""Maps (N, 3, H, W) uint8 images to (N, classes, h, w), of their size or smaller."""


def image_batches(prepared: Prepared, batch: int, device: torch.device) -> Iterator[Tensor]:
    """All images in order, (N, 3, H, W) uint8; the last batch may be smaller."""
    for start in range(0, len(prepared), batch):
        pixels = np.array(prepared.images[start : start + batch])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)


def full_label(prepared: Prepared, index: int) -> LabelMap:
    """A frame's label map at its own resolution."""
    frame = prepared.frames[index]
    return read_label(frame.label, frame.encoding)


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
def evaluate(
    logits: Logits,
    prepared: Prepared,
    *,
    classes: int,
    device: torch.device,
    batch: int = 8,
) -> Evaluated:
    """Compares predictions with the labels at full resolution.

    Args:
        logits: What predicts; brought to the images' size if they are smaller, and from there to
            the labels' (`classes_at`).
        prepared: Labelled frames at the size that it takes.
        classes: Of the labels.
        device: Where the images are to be.
        batch: Images at a time, at most.
    """
    matrix = ConfusionMatrix(classes)
    frames: list[FrameCounts | None] = [None] * len(prepared)
    index = 0
    for images in image_batches(prepared, batch, device):
        found = logits(images)
        # While they are decoded, a device that runs by itself is at work.
        truths = [full_label(prepared, index + i) for i in range(len(images))]
        via = images.shape[2], images.shape[3]
        for group in _equal_sizes(truths):
            predictions = classes_at(found[group], via, truths[group[0]].shape)
            for position, prediction in zip(group, predictions, strict=True):
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
