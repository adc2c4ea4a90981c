"""What a dataset on disk holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dabench.data.domain import Domain, Frame
from dabench.data.labels import IGNORE, read_image, read_label
from dabench.errors import DataError

SHOWN = 3
"""Files named per problem."""


@dataclass(slots=True)
class SplitReport:
    """One split.

    Attributes:
        frames: Pairs of image and label.
        image_sizes: (height, width) -> images.
        histogram: Pixels per class; the last entry is the ignored ones.
        unreadable: What is wrong with files that cannot be used.
        mismatched: Frames whose image and label differ in size.
    """

    frames: int
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)


@dataclass(slots=True)
class DatasetReport:
    """What `check_domain_files` found.

    Attributes:
        problems: A line each, with what mends it; empty if all is well.
    """

    domain: Domain
    splits: dict[str, SplitReport]
    problems: list[str]


def check_domain_files(domain: Domain) -> DatasetReport:
    """Reads every file of a domain."""
    splits = {
        name: _check_split(frames, len(domain.classes))
        for name, frames in domain.splits.items()
        if frames
    }
    return DatasetReport(domain, splits, list(_problems(domain, splits)))


def _check_split(frames: Sequence[Frame], classes: int) -> SplitReport:
    report = SplitReport(len(frames))
    histogram = np.zeros(256, np.int64)
    for frame in frames:
        try:
            height, width = read_image(frame.image).shape[:2]
            label = read_label(frame.label, frame.encoding)
        except DataError as error:
            report.unreadable.append(str(error))
            continue
        report.image_sizes[height, width] += 1
        if label.shape != (height, width):
            report.mismatched.append(frame.name)
        histogram += np.bincount(label.ravel(), minlength=256)
    report.histogram = [*histogram[:classes].tolist(), int(histogram[IGNORE])]
    return report


def _problems(domain: Domain, splits: dict[str, SplitReport]) -> list[str]:
    lines = []
    if domain.unpaired:
        lines.append(
            f"{len(domain.unpaired)} images have no label ({_some(domain.unpaired)}): unpack the "
            "label archive again, or remove these images"
        )
    for name, split in splits.items():
        if split.unreadable:
            lines.append(
                f"{name}: {len(split.unreadable)} files cannot be used "
                f"({'; '.join(split.unreadable[:SHOWN])}): fetch them again"
            )
        if split.mismatched:
            lines.append(
                f"{name}: {len(split.mismatched)} pairs differ in size between image and label "
                f"({', '.join(split.mismatched[:SHOWN])}): training leaves them out"
            )
    return lines


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:SHOWN])
