"""The stand-in on disk, in the layouts in which GTA5 and Cityscapes are published."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from dabench.base.errors import DataError, UsageError
from dabench.base.files import cache_folder
from dabench.data.domain import DRAWN
from dabench.data.labels import ID_PALETTE, IGNORE, TRAIN_TO_ID, LabelMap
from dabench.data.synthetic import CAMERA, GAME, VERSION, Style, draw_scene

GAME_FRAMES = 320
CAMERA_FRAMES = {"train": 160, "val": 60, "test": 80}
GAME_SIZE = (210, 382)
CAMERA_SIZE = (192, 384)

_SPLIT_SEEDS = {"game": 0, "train": 1, "val": 2, "test": 3}
_NOTICE = (
    "These frames were drawn by dabench (seeded, procedural). They are neither GTA5 nor "
    "Cityscapes;\nwhile this file is here, every table made from them says synthetic.\n"
)
_TO_ID = np.zeros(256, np.uint8)
_TO_ID[: len(TRAIN_TO_ID)] = TRAIN_TO_ID


def write_standin(folder: Path, *, seed: int = 0, scale: float = 1.0) -> tuple[Path, Path]:
    """Writes the stand-in for both datasets.

    The Cityscapes stand-in has labels in its test split too: scores are
    reported on it, and settings chosen on its val split.

    Args:
        folder: Gets ``gta5`` and ``cityscapes``; must not hold them yet.
        seed: Equal seeds give equal files.
        scale: Of the number of frames.

    Returns:
        The roots of the two.

    Raises:
        UsageError: The folder holds something already, or cannot be written.
    """
    gta5, cityscapes = folder / "gta5", folder / "cityscapes"
    if gta5.exists() or cityscapes.exists():
        raise UsageError(f"{folder} holds a stand-in already; choose another folder")
    try:
        (gta5 / "images").mkdir(parents=True)
        (gta5 / "labels").mkdir()
        for index in range(max(round(GAME_FRAMES * scale), 5)):
            image, label = _draw(GAME, (seed, _SPLIT_SEEDS["game"], index), GAME_SIZE)
            image.save(gta5 / "images" / f"{index + 1:05d}.png")
            label.save(gta5 / "labels" / f"{index + 1:05d}.png")
        for split, frames in CAMERA_FRAMES.items():
            images = cityscapes / "leftImg8bit" / split / "standin"
            labels = cityscapes / "gtFine" / split / "standin"
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for index in range(max(round(frames * scale), 2)):
                image, label = _draw(CAMERA, (seed, _SPLIT_SEEDS[split], index), CAMERA_SIZE)
                stem = f"standin_{index:06d}_000019"
                image.save(images / f"{stem}_leftImg8bit.png")
                label.save(labels / f"{stem}_gtFine_labelIds.png")
        for root in (gta5, cityscapes):
            (root / DRAWN).write_text(_NOTICE, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
    return gta5, cityscapes


def cached_standin() -> tuple[Path, Path]:
    """The default stand-in, drawn on first use (seconds) and kept in the user's cache.

    Returns:
        The roots of its GTA5 and its Cityscapes.

    Raises:
        UsageError: It cannot be drawn into the cache.
        DataError: It cannot be moved to its place there.
    """
    folder = cache_folder() / f"synthetic-v{VERSION}"
    if not folder.exists():
        drawing = folder.with_name(f".{folder.name}-{os.getpid()}")
        shutil.rmtree(drawing, ignore_errors=True)
        write_standin(drawing)
        try:
            drawing.rename(folder)
        except OSError as error:
            # Another process was first; its frames are the same.
            shutil.rmtree(drawing, ignore_errors=True)
            if not folder.exists():
                raise DataError(f"cannot write {folder}: {error.strerror}") from error
    return folder / "gta5", folder / "cityscapes"


def _draw(
    style: Style, seed: tuple[int, ...], size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    pixels, label = draw_scene(style, seed, *size)
    return Image.fromarray(pixels), _palette_image(label)


def _palette_image(label: LabelMap) -> Image.Image:
    """A label map as the 8-bit palette file of ids that GTA5's archives hold."""
    ids = np.where(label == IGNORE, 0, _TO_ID[label]).astype(np.uint8)
    image = Image.fromarray(ids).convert("P")
    image.frombytes(ids.tobytes())
    image.putpalette([value for colour in ID_PALETTE for value in colour])
    return image
