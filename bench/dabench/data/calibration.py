"""Images that a trained network's ranges in int8 are found on: of its target, without labels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dabench.base.errors import DataError, UsageError
from dabench.data.domain import Domain, open_domain
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
    target: str, count: int, seed: int, roots: Mapping[str, Path | None]
) -> Calibration:
    """Draws images of a trained network's target, those that it may train on.

    They are frames of the split that trains, whose labels nobody reads. Of a seed, fewer images
    are the first of more.

    Args:
        target: Name of the domain, as the record of the training has it.
        count: How many.
        seed: Of the choice.
        roots: Dataset -> where it is, as far as somebody said.

    Raises:
        UsageError: Nobody said what the target is, or where its images are.
        DataError: There are none, or too few. The messages name no folder: records hold them.
    """
    if not target:
        raise UsageError("no calibration images: no record says what the network was trained for")
    domain = _domain(target, roots)
    frames = list(domain.splits.get(SPLIT, ()))
    if count > len(frames):
        raise DataError(
            f"--calibration: {count} images are asked for, {domain.name} has {len(frames)} in "
            f"{SPLIT!r}"
        )
    random.Random(f"calibration {seed}").shuffle(frames)
    chosen = frames[:count]
    images = tuple(frame.image for frame in chosen)
    return Calibration(
        f"{domain.name}, {SPLIT} split",
        domain.synthetic,
        seed,
        tuple(frame.name for frame in chosen),
        digest_of(images),
        images,
    )


def digest_of(images: Iterable[Path]) -> str:
    """Of the contents of files, in this order."""
    contents = hashlib.sha256()
    for image in images:
        contents.update(hashlib.sha256(image.read_bytes()).digest())
    return contents.hexdigest()[:24]


def _domain(target: str, roots: Mapping[str, Path | None]) -> Domain:
    """The target; the stand-in stands for what was drawn, and for nothing else.

    Raises:
        UsageError: It is not here.
    """
    drawn, spec = target.startswith(_DRAWN), target.removeprefix(_DRAWN)
    dataset = spec.partition(":")[0]
    root = find_places(roots).roots.get(dataset)
    if root is not None and root.is_dir():
        try:
            domain = open_domain(spec, root)
        except DataError:
            raise DataError(
                f"no calibration images: there are no frames of {spec} where its root is said to be"
            ) from None
        if domain.synthetic == drawn:
            return domain
    if drawn:
        from dabench.data.standin import cached_standin

        places = dict(zip(("gta5", "cityscapes"), cached_standin(), strict=True))
        return open_domain(spec, places[dataset])
    raise UsageError(
        f"no calibration images: the network was trained for {spec}, and nothing says where that "
        f"is; set DABENCH_{dataset.upper()}_ROOT"
    )


def read_calibration(image: Path, size: Size) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3) RGB at a size, resized as for the network.

    Raises:
        DataError: Unreadable.
    """
    return resize_image(read_image(image), size)
