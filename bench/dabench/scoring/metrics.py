"""Scores of label maps: Cityscapes' official mIoU and the paper's variant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Counts = npt.NDArray[np.int64]

COUNTERS = 16
_FEWEST_PIXELS = 1 << 16
"""Of a thread: below it would be handed over longer than it counts."""
_MOST_THREADS = 8
"""More would wait for each other: each holds Python's lock now and then."""


class ConfusionMatrix:
    """Pixels by true class (rows) and predicted class (columns), over all images."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._counts = torch.zeros(classes * classes, dtype=torch.int64)
        self._shifts = torch.empty(0, dtype=torch.int16)
        # Each without helpers of torch's own, of which every one would get as many as there are
        # cores. They end with their owner, and none starts before it has something to do.
        self._threads = ThreadPoolExecutor(
            _MOST_THREADS, "count-pixels", initializer=torch.set_num_threads, initargs=(1,)
        )

    def add(self, truth: Tensor, prediction: Tensor) -> Counts:
        """Adds label maps; returns their own pixels, (classes, classes).

        Args:
            truth: Integer classes, `IGNORE` where there is none.
            prediction: As many, in [0, classes).
        """
        truth, prediction = truth.flatten(), prediction.flatten()
        assert len(truth) == len(prediction)
        parts, threads = 1, torch.get_num_threads()
        if truth.device.type == "cpu":
            # torch.bincount is done by one thread, whatever torch may use.
            parts = min(threads, _MOST_THREADS, len(truth) // _FEWEST_PIXELS)
        parts = max(parts, 1)
        shifts = self._shifts_for(-(-len(truth) // parts), truth.device)
        if parts == 1:
            return self._added(_histogram(truth, prediction, self.classes, shifts).cpu())
        split = truth.chunk(parts), prediction.chunk(parts), repeat(self.classes), repeat(shifts)
        try:
            return self._added(torch.stack(list(self._threads.map(_histogram, *split))).sum(0))
        finally:
            # What a thread sets for itself is also what threads that start later begin with.
            torch.set_num_threads(threads)

    def _shifts_for(self, pixels: int, device: torch.device) -> Tensor:
        """What puts neighbouring pixels into counters of their own; made once for a size."""
        if len(self._shifts) < pixels or self._shifts.device != device:
            size = (self.classes + 1) * self.classes
            counters = _counters(self.classes)
            one = torch.arange(counters, dtype=torch.int16, device=device) * size
            self._shifts = one.repeat(-(-pixels // counters))
        return self._shifts

    def _added(self, counts: Tensor) -> Counts:
        self._counts += counts
        own: Counts = counts.view(self.classes, self.classes).numpy()
        return own

    @property
    def counts(self) -> Counts:
        """(classes, classes) pixels."""
        counts: Counts = self._counts.view(self.classes, self.classes).numpy()
        return counts


def _counters(classes: int) -> int:
    """How many counters take turns.

    Neighbours mostly fall into one cell, and counting it again must wait for the count before:
    several counters in turn halve the time.
    """
    return min(COUNTERS, (2**15 - 1) // ((classes + 1) * classes))


def _histogram(truth: Tensor, prediction: Tensor, classes: int, shifts: Tensor) -> Tensor:
    """Counts of (truth, prediction) pairs; ignored pixels fall into a row that is cut off."""
    size, counters = (classes + 1) * classes, _counters(classes)
    # 16 bits move a quarter of the bytes of 64; up to 180 classes fit.
    if truth.element_size() > 2:
        truth = truth.clamp(max=classes)  # else larger numbers would come out as classes
    rows = truth.to(torch.int16, copy=True).clamp_(max=classes)
    cells = torch.add(prediction.to(torch.int16), rows, alpha=classes).add_(shifts[: len(rows)])
    counts = torch.bincount(cells, minlength=counters * size)
    return counts.view(counters, size).sum(0)[: classes * classes]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a confusion matrix comes to.

    Attributes:
        miou: Mean over the classes that have a score.
        accuracy: Share of the valid pixels that are right.
        iou: Class -> intersection over union, None where the class neither
            occurs nor is predicted.
        pixels: Class -> pixels of ground truth.
    """

    miou: float
    accuracy: float
    iou: tuple[float | None, ...]
    pixels: tuple[int, ...]


def official_scores(counts: Counts) -> Scores:
    """Cityscapes' class mIoU (cityscapesScripts, evalPixelLevelSemanticLabeling.py).

    A class with an empty denominator is skipped; one absent from the ground
    truth but predicted counts 0.
    """
    right = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - right
    iou = [float(r / u) if u else None for r, u in zip(right, union, strict=True)]
    return _scores(counts, iou)


def paper_scores(counts: Counts) -> Scores:
    """The paper's repository: a class without pixels counts 0 and the mean is over all."""
    right = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - right
    return _scores(counts, [float(r / u) if u else 0.0 for r, u in zip(right, union, strict=True)])


def _scores(counts: Counts, iou: list[float | None]) -> Scores:
    known = [value for value in iou if value is not None]
    valid = int(counts.sum())
    return Scores(
        miou=float(np.mean(known)) if known else float("nan"),
        accuracy=float(np.trace(counts) / valid) if valid else float("nan"),
        iou=tuple(iou),
        pixels=tuple(int(n) for n in counts.sum(1)),
    )


SCORES = {"official": official_scores, "paper": paper_scores}
