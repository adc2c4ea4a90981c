"""Label maps to class indices: the ids, palettes and colours of each dataset."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from dabench.base.errors import DataError

IGNORE = 255
"""Pixels of this class are left out of losses and scores."""

_WRONG = 254

LabelMap = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Classes:
    """What the indices of a label map mean.

    Attributes:
        name: Of the class set.
        names: Class index -> name.
        palette: Class index -> (red, green, blue).
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.names)


# Official ids, train ids and colours of Cityscapes (cityscapesScripts, labels.py);
# GTA5's labels use the same ids and colours.
_CITYSCAPES_LABELS: tuple[tuple[int, str, int, tuple[int, int, int]], ...] = (
    (0, "unlabeled", IGNORE, (0, 0, 0)),
    (1, "ego vehicle", IGNORE, (0, 0, 0)),
    (2, "rectification border", IGNORE, (0, 0, 0)),
    (3, "out of roi", IGNORE, (0, 0, 0)),
    (4, "static", IGNORE, (0, 0, 0)),
    (5, "dynamic", IGNORE, (111, 74, 0)),
    (6, "ground", IGNORE, (81, 0, 81)),
    (7, "road", 0, (128, 64, 128)),
    (8, "sidewalk", 1, (244, 35, 232)),
    (9, "parking", IGNORE, (250, 170, 160)),
    (10, "rail track", IGNORE, (230, 150, 140)),
    (11, "building", 2, (70, 70, 70)),
    (12, "wall", 3, (102, 102, 156)),
    (13, "fence", 4, (190, 153, 153)),
    (14, "guard rail", IGNORE, (180, 165, 180)),
    (15, "bridge", IGNORE, (150, 100, 100)),
    (16, "tunnel", IGNORE, (150, 120, 90)),
    (17, "pole", 5, (153, 153, 153)),
    (18, "polegroup", IGNORE, (153, 153, 153)),
    (19, "traffic light", 6, (250, 170, 30)),
    (20, "traffic sign", 7, (220, 220, 0)),
    (21, "vegetation", 8, (107, 142, 35)),
    (22, "terrain", 9, (152, 251, 152)),
    (23, "sky", 10, (70, 130, 180)),
    (24, "person", 11, (220, 20, 60)),
    (25, "rider", 12, (255, 0, 0)),
    (26, "car", 13, (0, 0, 142)),
    (27, "truck", 14, (0, 0, 70)),
    (28, "bus", 15, (0, 60, 100)),
    (29, "caravan", IGNORE, (0, 0, 90)),
    (30, "trailer", IGNORE, (0, 0, 110)),
    (31, "train", 16, (0, 80, 100)),
    (32, "motorcycle", 17, (0, 0, 230)),
    (33, "bicycle", 18, (119, 11, 32)),
)
_EVALUATED = sorted((row for row in _CITYSCAPES_LABELS if row[2] != IGNORE), key=lambda row: row[2])

CITYSCAPES = Classes(
    "cityscapes",
    tuple(name for _, name, _, _ in _EVALUATED),
    tuple(colour for _, _, _, colour in _EVALUATED),
)
TRAIN_TO_ID = tuple(label_id for label_id, _, _, _ in _EVALUATED)
ID_PALETTE = tuple(colour for _, _, _, colour in _CITYSCAPES_LABELS)

# The colours of the 32-class CamVid database for the classes the 11 are made of.
CAMVID = Classes(
    "camvid",
    (
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
_CAMVID_UNLABELLED = 11
_CAMVID_AS_CITYSCAPES = (
    "sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car",
    "person", "rider",
)  # fmt: skip

CLASSES = {classes.name: classes for classes in (CITYSCAPES, CAMVID)}


def _table(known: dict[int, int]) -> LabelMap:
    """A lookup table from stored value to class; values not known are marked."""
    table = np.full(256, _WRONG, np.uint8)
    for value, index in known.items():
        table[value] = index
    table.setflags(write=False)
    return table


# 255 also stands for id -1, licence plates, which 8 bits cannot hold; GTA5's own list
# (initLabels.m) numbers them 34.
_LABEL_IDS = _table(
    {label_id: index for label_id, _, index, _ in _CITYSCAPES_LABELS} | {34: IGNORE, 255: IGNORE}
)
_TRAIN_IDS = _table({index: index for index in range(len(CITYSCAPES))} | {255: 255})
_CAMVID_IDS = _table({index: index for index in range(len(CAMVID))} | {_CAMVID_UNLABELLED: IGNORE})
_CAMVID_TO_CITYSCAPES = _table(
    {index: CITYSCAPES.names.index(name) for index, name in enumerate(_CAMVID_AS_CITYSCAPES)}
    | {_CAMVID_UNLABELLED: IGNORE}
)

ENCODINGS: dict[str, LabelMap] = {
    "label ids": _LABEL_IDS,
    "train ids": _TRAIN_IDS,
    "camvid": _CAMVID_IDS,
    "camvid as cityscapes": _CAMVID_TO_CITYSCAPES,
}
"""How a stored label map is read: name -> table from stored value to class."""


@cache
def _colour_table() -> LabelMap:
    """Packed 24-bit colour -> class, for labels stored as RGB."""
    table = np.full(1 << 24, _WRONG, np.uint8)
    for _, _, index, (red, green, blue) in _CITYSCAPES_LABELS:
        # A licence plate has the car's colour, a pole group the pole's.
        packed = red << 16 | green << 8 | blue
        if index != IGNORE or table[packed] == _WRONG:
            table[packed] = index
    # GTA5 paints `static` so.
    table[20 << 16 | 20 << 8 | 20] = IGNORE
    return table


def read_label(path: Path, encoding: str) -> LabelMap:
    """Reads a label map: grey files by their values, coloured ones by their colours.

    A palette file is read by its indices where its palette is the dataset's own
    or a grey ramp, and by its colours where a tool has renumbered them.

    Args:
        path: A PNG file.
        encoding: A key of `ENCODINGS`.

    Returns:
        (H, W) class indices, `IGNORE` where there is none.

    Raises:
        DataError: Unreadable, or values the encoding does not know; names both.
    """
    stored = _stored(path, encoding)
    if stored.ndim == 2:
        label: LabelMap = ENCODINGS[encoding][stored]
    elif encoding == "label ids":
        wide = stored.astype(np.uint32)
        label = _colour_table()[wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]]
    else:
        raise DataError(f"{path} is no label map of {encoding}: it has {stored.shape[2]} channels")
    wrong = label == _WRONG
    if wrong.any():
        values = np.unique(stored[wrong], axis=0)[:5].tolist()
        raise DataError(f"{path} holds values that are no {encoding}: {values}")
    return label


def stored_values(path: Path, encoding: str) -> frozenset[int] | None:
    """The distinct values of a label map that is stored by value; None where it is by colour."""
    stored = _stored(path, encoding)
    return frozenset(np.unique(stored).tolist()) if stored.ndim == 2 else None


def look_like_train_ids(values: Iterable[frozenset[int]]) -> bool:
    """Whether label maps that are said to hold ids hold train ids, as converted files do.

    Ids of outdoor frames go beyond 18 (vegetation, sky, cars), and most of those
    below 7 are void; train ids are 0 to 18 and 255, roads and buildings first.
    """
    seen: set[int] = set().union(*values)
    low = {label_id for label_id, _, index, _ in _CITYSCAPES_LABELS[:7] if index == IGNORE}
    only_train_ids = seen <= {*range(len(CITYSCAPES)), IGNORE}
    return only_train_ids and bool(seen - {*low, IGNORE}) and bool(seen & {*low, IGNORE})


_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image, is damaged, or says it is impossibly large."""


def _stored(path: Path, encoding: str) -> npt.NDArray[np.uint8]:
    """The values (H, W) or the colours (H, W, 3) of a label map."""
    try:
        with Image.open(path) as image:
            if image.mode == "P" and not encoding.startswith("camvid"):
                return _of_palette(image)
            if image.mode == "LA":
                # A grey map with an opacity.
                return np.asarray(image)[..., 0]
            stored = np.asarray(image.convert("RGB") if image.mode == "RGBA" else image)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    whole = np.issubdtype(stored.dtype, np.integer)
    if stored.ndim == 2 and whole and 0 <= stored.min(initial=0) <= stored.max(initial=0) <= 255:
        return stored.astype(np.uint8)
    if stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8:
        return stored
    raise DataError(f"{path} is no label map: {stored.dtype} of shape {stored.shape}")


def _of_palette(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The indices of a palette file where they mean ids, else its colours."""
    indices = np.asarray(image)
    palette = np.asarray(image.convert("RGB"))
    used, where = np.unique(indices, return_index=True)
    colours = palette.reshape(-1, 3)[where]
    own = all(
        tuple(colour) in ((value,) * 3, ID_PALETTE[value] if value < len(ID_PALETTE) else ())
        for value, colour in zip(used.tolist(), colours.tolist(), strict=True)
    )
    return indices if own else palette


def read_image(path: Path, *, upright: bool = False) -> npt.NDArray[np.uint8]:
    """Reads an image as (H, W, 3) RGB; one of 16 bits is scaled to 8.

    Args:
        path: Of the file.
        upright: Whether to turn a photo as its EXIF says the camera was held. Label maps are drawn
            on the pixels as they are stored.

    Raises:
        DataError: Unreadable, or of values that are no intensities.
    """
    try:
        # Only there: whoever decodes in threads shares their filters of warnings.
        with _no_word_of_metadata() if upright else nullcontext(), Image.open(path) as opened:
            image = _upright(opened) if upright else opened
            if not image.mode.startswith(("I", "F")):
                return np.asarray(image.convert("RGB"))
            stored = np.asarray(image)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if (
        not np.issubdtype(stored.dtype, np.integer)
        or not 0 <= stored.min() <= stored.max() < 1 << 16
    ):
        raise DataError(f"{path} cannot be read: its values are no intensities of 8 or 16 bits")
    # Pillow would clip at 255: all but the darkest pixels white.
    return np.repeat((stored >> 8).astype(np.uint8)[..., None], 3, axis=2)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientations -> what makes each the usual one."""


def _upright(image: Image.Image) -> Image.Image:
    # Pillow's own function writes the EXIF data again, and fails where they are damaged.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 0))
    except (*_UNREADABLE, struct.error, TypeError, KeyError, IndexError):
        return image
    return image if turn is None else image.transpose(turn)


@contextmanager
def _no_word_of_metadata() -> Iterator[None]:
    """Pillow warns of EXIF data that are damaged; the pixels are not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


def colourise(label: LabelMap, classes: Classes) -> npt.NDArray[np.uint8]:
    """(H, W) classes -> (H, W, 3) colours; ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.palette
    coloured: npt.NDArray[np.uint8] = table[label]
    return coloured
