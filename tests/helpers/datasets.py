"""Tiny datasets on disk in the official layouts, and where real images may be."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dabench.data.labels import CITYSCAPES, ID_PALETTE, TRAIN_TO_ID

ROOT = Path(__file__).resolve().parents[2]


def camvid_root() -> Path:
    """Real street images: where the variable says, or beside the checkout."""
    root = Path(os.environ.get("DABENCH_CAMVID_ROOT", ROOT.parent / "shared" / "camvid"))
    if not (root / "train").is_dir():
        pytest.skip("no CamVid here; DABENCH_CAMVID_ROOT names its folder")
    return root


def some_classes(height=16, width=24, seed=0):
    """A random map of class indices."""
    return np.random.default_rng(seed).integers(0, len(CITYSCAPES), (height, width), np.uint8)


def as_ids(classes):
    return np.array(TRAIN_TO_ID, np.uint8)[classes]


def save_palette(path, ids):
    image = Image.fromarray(ids).convert("P")
    image.frombytes(ids.tobytes())
    image.putpalette([value for colour in ID_PALETTE for value in colour])
    image.save(path)


def save_photo(path, height=16, width=24, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_gta5(root, frames=5, height=16, width=24):
    """``frames`` pairs; returns their class maps."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    maps = []
    for index in range(frames):
        maps.append(some_classes(height, width, index))
        save_photo(root / "images" / f"{index + 1:05d}.png", height, width, index)
        save_palette(root / "labels" / f"{index + 1:05d}.png", as_ids(maps[-1]))
    return maps


def write_cityscapes(root, split="val", city="aachen", frames=2, kind="labelIds"):
    images = root / "leftImg8bit" / split / city
    labels = root / "gtFine" / split / city
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for index in range(frames):
        stem = f"{city}_{index:06d}_000019"
        save_photo(images / f"{stem}_leftImg8bit.png", seed=index)
        classes = some_classes(seed=index)
        stored = classes if kind == "labelTrainIds" else as_ids(classes)
        Image.fromarray(stored).save(labels / f"{stem}_gtFine_{kind}.png")
