"""Images that a trained network's ranges in int8 are found on: of its target, without labels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dabench.base.errors import DataError, UsageError
from dabench.data.domain import open_domain
from dabench.data.labels import read_image
from dabench.data.prepare import Size, resize_image
from dabench.data.roots import find_places

SPLIT = "train"
_DRAWN = "synthetic "


@dataclass(frozen=True, slots=True)
class Calibration:
    """Images drawn at random from a split.

    Attributes:
        data: The domain's name and the split, in words.
        synthetic: Whether dabench drew the images.
        seed: By which they were chosen.
        names: Of the images, in the order drawn.
        digest: Of their files' contents, in this order.
        images: The files.
    """

    data: str
    synthetic: bool
    seed: int
    names: tuple[str, ...]
    digest: str
    images: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; it says nothing of where the files are."""
        return {
            "data": self.data,
            "synthetic": self.synthetic,
            "seed": self.seed,
            "names": list(self.names),
            "digest": self.digest,
        }


def calibration_of(
    target: str, count: int, seed: int, roots: Mapping[str, Path | None], *, synthetic: bool
) -> Calibration:
    """Draws images of a trained network's target, those that it may train on.

    Of a seed, fewer images are the first of more.

    Args:
        target: Name of the domain, as the record of the training has it.
        count: How many.
        seed: Of the choice.
        roots: Dataset -> where it is, as far as somebody said.
        synthetic: Whether dabench drew the target; drawn frames stand for drawn ones alone.

    Raises:
        UsageError: Nobody said what the target is, or where its images are.
        DataError: There are none, or too few.
    """
    if not target:
        raise UsageError("no calibration images: no record says what the network was trained for")
    spec = target.removeprefix(_DRAWN)
    domain = open_domain(spec, _root(spec, roots, synthetic=synthetic))
    frames = list(domain.frames(SPLIT))
    if count > len(frames):
        raise DataError(
            f"--calibration: {count} images are asked for, {domain.name} has {len(frames)} in "
            f"{SPLIT!r}"
        )
    random.Random(f"calibration {seed}").shuffle(frames)
    chosen = frames[:count]
    contents = hashlib.sha256()
    for frame in chosen:
        contents.update(hashlib.sha256(frame.image.read_bytes()).digest())
    return Calibration(
        f"{domain.name}, {SPLIT} split",
        domain.synthetic,
        seed,
        tuple(frame.name for frame in chosen),
        contents.hexdigest()[:24],
        tuple(frame.image for frame in chosen),
    )


def _root(spec: str, roots: Mapping[str, Path | None], *, synthetic: bool) -> Path:
    """Where the target's images are."""
    dataset = spec.partition(":")[0]
    if synthetic:
        from dabench.data.standin import cached_standin

        return dict(zip(("gta5", "cityscapes"), cached_standin(), strict=True))[dataset]
    places = find_places(roots)
    if dataset not in places.roots:
        raise UsageError(
            f"no calibration images: the network was trained for {spec}, and nothing says where "
            f"that is; set DABENCH_{dataset.upper()}_ROOT"
        )
    return places.roots[dataset]


def read_calibration(image: Path, size: Size) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3) RGB at a size, resized as for the network.

    Raises:
        DataError: Unreadable.
    """
    return resize_image(read_image(image), size)
