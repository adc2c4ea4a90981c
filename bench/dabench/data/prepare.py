"""Frames decoded and resized once, kept as memory-mapped arrays.

A training run reads each frame many times; decoding a PNG of two megapixels
takes longer than a step on it. The arrays are keyed by what they are made of,
so that a changed file or another size makes new ones.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from dabench.base.cores import usable_cores
from dabench.base.errors import DataError
from dabench.base.files import cache_folder
from dabench.data.domain import Frame
from dabench.data.labels import LabelMap, read_image, read_label

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, as usual for these backbones: by which images are normalised, channels 0 to 1."""

VERSION = 3
MAX_ODD_PAIRS = 0.05
"""Share of the pairs whose image and label may differ in size before we refuse."""

THREADS, FRAMES_EACH = 8, 4
"""Threads that decode, at most, and frames handed to each at a time: these wait in memory."""

Size = tuple[int, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Frames at one size.

    Attributes:
        names: Of the frames, in the order of the arrays.
        images: (N, H, W, 3) RGB.
        labels: (N, H, W) classes.
        frames: The frames themselves, for labels at full resolution.
        left_out: Frames whose image and label differ in size.
        digest: Of what is in them: the same wherever the files are, and whenever they were
            copied there.
        folder: Where the arrays are; None for arrays in memory.
    """

    names: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    labels: LabelMap
    frames: tuple[Frame, ...]
    left_out: tuple[str, ...]
    digest: str = ""
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def part(self, some: slice) -> Prepared:
        """Some of the frames; arrays are not copied."""
        arrays = self.images[some], self.labels[some]
        return replace(
            self, names=self.names[some], images=arrays[0], labels=arrays[1],
            frames=self.frames[some], folder=None,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        """Names the files in place of their contents: a loader's worker opens them itself."""
        if self.folder is None:
            parts = (self.names, self.images, self.labels, self.frames, self.left_out, self.digest)
            return Prepared, parts
        return _open, (self.folder, self.frames)


def prepare(
    frames: Sequence[Frame], size: Size, progress: Progress = lambda done, of: None
) -> Prepared:
    """Decodes and resizes frames, or finds them decoded.

    Images are resized with antialiasing, labels to the nearest pixel. Safe to
    interrupt and to share: an unfinished attempt is thrown away, and of several
    processes one works and the others wait.

    Args:
        frames: At least one.
        size: (height, width).
        progress: Told how many frames are done, of how many.

    Raises:
        DataError: A file is unreadable, or too many pairs differ in size.
    """
    folder = cache_folder() / "prepared"
    try:
        folder /= _key(frames, size)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_suffix(".lock")):
            if not folder.exists():
                _build(frames, size, folder, progress)
        return _open(folder, tuple(frames))
    except OSError as error:
        raise DataError(f"cannot prepare {folder}: {error.strerror}") from error


def _open(folder: Path, frames: Sequence[Frame]) -> Prepared:
    """Maps arrays that are decoded already."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    by_name = {frame.name: frame for frame in frames}
    return Prepared(
        tuple(index["names"]),
        np.load(folder / "images.npy", mmap_mode="r"),
        np.load(folder / "labels.npy", mmap_mode="r"),
        tuple(by_name[name] for name in index["names"]),
        tuple(index["left_out"]),
        index["digest"],
        folder,
    )


def _key(frames: Sequence[Frame], size: Size) -> str:
    digest = hashlib.sha256(f"{VERSION} {size}".encode())
    for frame in frames:
        for path in (frame.image, frame.label):
            state = path.stat()
            entry = f"{path} {state.st_size} {state.st_mtime_ns} {frame.encoding}\n"
            digest.update(entry.encode())
    return digest.hexdigest()[:24]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Lets one process at a time in; the lock goes with its holder, however that ends."""
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(frames: Sequence[Frame], size: Size, folder: Path, progress: Progress) -> None:
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    height, width = size
    kept: list[str] = []
    left_out: list[str] = []
    contents = hashlib.sha256(str(size).encode())
    images = _new_array(unfinished / "images.npy", (len(frames), height, width, 3))
    labels = _new_array(unfinished / "labels.npy", (len(frames), height, width))
    for number, (frame, decoded) in enumerate(_decoded(frames, size)):
        if decoded is None:
            left_out.append(frame.name)
        else:
            images[len(kept)], labels[len(kept)] = decoded.image, decoded.label
            contents.update(f"{frame.name} {decoded.digest}".encode())
            kept.append(frame.name)
        progress(number + 1, len(frames))
    if len(left_out) > MAX_ODD_PAIRS * len(frames):
        raise DataError(
            f"{len(left_out)} of {len(frames)} pairs differ in size between image and label, such "
            f"as {left_out[0]}; 'dabench data check' lists them"
        )
    for name, array in (("images.npy", images), ("labels.npy", labels)):
        array.flush()
        if left_out:
            # Not onto itself: the array is a view of the file.
            np.save(unfinished / f"kept-{name}", array[: len(kept)])
            (unfinished / f"kept-{name}").replace(unfinished / name)
    index = {"names": kept, "left_out": left_out, "digest": contents.hexdigest()[:24]}
    (unfinished / "index.json").write_text(json.dumps(index), encoding="utf-8")
    unfinished.rename(folder)


class _Decoded(NamedTuple):
    """A frame at a size, and a digest of it as it is in its files.

    Scores are of labels at their own resolution.
    """

    image: npt.NDArray[np.uint8]
    label: LabelMap
    digest: str


def _decoded(frames: Sequence[Frame], size: Size) -> Iterator[tuple[Frame, _Decoded | None]]:
    """Frames in their order and what is in them, decoded by several threads."""
    threads = min(usable_cores(), THREADS)
    some = FRAMES_EACH * threads
    with ThreadPoolExecutor(threads, "decoder") as pool:
        for first in range(0, len(frames), some):
            part = frames[first : first + some]
            yield from zip(part, pool.map(partial(_decode, size=size), part), strict=True)


def _decode(frame: Frame, size: Size) -> _Decoded | None:
    """Image and label at a size; None where the two differ in theirs."""
    image, label = read_image(frame.image), read_label(frame.label, frame.encoding)
    if image.shape[:2] != label.shape:
        return None
    contents = hashlib.sha256(str(label.shape).encode())
    for array in (image, label):
        contents.update(np.ascontiguousarray(array).data)
    return _Decoded(resize_image(image, size), resize_label(label, size), contents.hexdigest())


def _new_array(
    path: Path, shape: tuple[int, ...]
) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Now, with an error: a full disk under a mapped file ends the process.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def resize_image(image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """(H, W, 3) to another size, antialiased."""
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized)


def resize_label(label: LabelMap, size: Size) -> LabelMap:
    """(H, W) to another size, nearest pixel."""
    if label.shape == size:
        return label
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
