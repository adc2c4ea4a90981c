"""How sure a difference of mIoU is: over seeds, and over the images it was scored on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dabench.base.errors import ResultsError
from dabench.records.trainings import FRAMES, FrameRow, read_frames

RESAMPLES = 1000
TAIL = 2.5
"""Percent that an interval leaves out at each end."""

IMAGES_RULE = (
    f"over images: 95% of {RESAMPLES} resamplings of the evaluated frames, in blocks of as many "
    "neighbours as the root of their number, since those of a video are alike; of a difference, "
    "both sides on the same frames"
)

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """A run's pixels on each frame, by class.

    Attributes:
        names: Of the frames, in order.
        hit: (frames, classes) pixels that are of the class and predicted so.
        union: Likewise, of the class or predicted so.
    """

    names: tuple[str, ...]
    hit: Numbers
    union: Numbers


def read_scored(folder: Path, classes: int) -> Scored | None:
    """Reads a run's frames; None where it kept none, as earlier versions did.

    Raises:
        ResultsError: A damaged file.
    """
    rows = read_frames(folder)
    return scored_of(rows, classes, folder / FRAMES) if rows else None


def scored_of(rows: Sequence[FrameRow], classes: int, table: Path) -> Scored:
    """The pixels that rows say.

    Args:
        rows: At least one.
        classes: How many there are.
        table: Where the rows are from, for errors.

    Raises:
        ResultsError: A frame or a class that cannot be.
    """
    names = {row.frame: row.name for row in rows}
    hit, union = np.zeros((2, max(names) + 1, classes))
    for row in rows:
        if row.frame < 0 or not 0 <= row.class_index < classes:
            where = f"frame {row.frame}, class {row.class_index}"
            raise ResultsError(f"{table}: {where} is not what dabench writes")
        hit[row.frame, row.class_index] = row.hit
        union[row.frame, row.class_index] = _union(row)
    return Scored(tuple(names.get(frame, "") for frame in range(len(hit))), hit, union)


def _union(row: FrameRow) -> int:
    return row.truth + row.predicted - row.hit


def official_miou(hit: Numbers, union: Numbers) -> Numbers:
    """Mean IoU of the classes that there are, (..., classes) -> (...)."""
    there = union > 0
    iou = np.divide(hit, union, out=np.zeros_like(hit), where=there)
    return np.asarray(iou.sum(-1) / np.maximum(there.sum(-1), 1))


def paper_miou(hit: Numbers, union: Numbers) -> Numbers:
    """Mean IoU of all classes, 0 for those that there are not."""
    iou = np.divide(hit, union, out=np.zeros_like(hit), where=union > 0)
    return np.asarray(iou.mean(-1))


MIOU: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "official": official_miou,
    "paper": paper_miou,
}


@cache
def resampled(frames: int, resamples: int = RESAMPLES) -> Numbers:
    """How often each frame is in each resampling, (resamples, frames); always the same.

    Blocks of neighbours are drawn with replacement, those at the end go on at the beginning.
    """
    random = np.random.default_rng(0)
    length = max(round(math.sqrt(frames)), 1)
    starts = random.integers(0, frames, (resamples, math.ceil(frames / length)))
    chosen = (starts[..., None] + np.arange(length)) % frames
    chosen = chosen.reshape(resamples, -1)[:, :frames]
    cells = chosen + frames * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * frames)
    return counts.reshape(resamples, frames).astype(np.float64)


def resampled_miou(scored: Scored, evaluation: str) -> Numbers:
    """The mIoU of each resampling of a run's frames."""
    counts = resampled(len(scored.hit))
    return MIOU[evaluation](counts @ scored.hit, counts @ scored.union)


def half_width(values: Numbers) -> float:
    """Half of the interval that holds 95% of resampled values."""
    low, high = np.percentile(values, (TAIL, 100 - TAIL))
    return float(high - low) / 2


def over_images(ours: Sequence[Scored], theirs: Sequence[Scored], evaluation: str) -> float | None:
    """Half of the interval over images of a difference, mean over seeds.

    Args:
        ours: A run per seed.
        theirs: Likewise, of the same seeds in the same order; empty for ours alone.
        evaluation: ``official`` or ``paper``.

    Returns:
        None where nothing is known, or the frames are not the same.
    """
    frames = {scored.names for scored in (*ours, *theirs)}
    if len(frames) != 1 or (theirs and len(ours) != len(theirs)):
        return None
    difference = np.mean([resampled_miou(each, evaluation) for each in ours], axis=0)
    if theirs:
        difference = difference - np.mean([resampled_miou(each, evaluation) for each in theirs], 0)
    return half_width(difference)
