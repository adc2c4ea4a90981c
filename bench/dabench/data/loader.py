"""Batches for training: the same for the same seed, from any step on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from dabench.data.prepare import Prepared

JITTER = (0.5, 0.5, 0.5, 0.1)
"""Brightness, contrast, saturation, hue: the paper's."""

Key = tuple[int, int]
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
WHOLE = slice(None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """What is done to a training frame, image and mask together.

    Attributes:
        jitter: Change colours by up to `JITTER`.
        flip: Mirror half of the frames.
        crop: (height, width) of a window at a random place, or None.
    """

    jitter: bool = False
    flip: bool = False
    crop: tuple[int, int] | None = None

    def transform(self) -> Transform:
        """What changes an image (3, H, W) and its mask (H, W) alike, by torch's random numbers."""
        if self == Augment():
            return _unchanged
        # Imported where it is used: it brings torch's compiler, which takes as long as torch.
        from torchvision.transforms import v2

        steps: list[nn.Module] = []
        if self.crop is not None:
            steps.append(v2.RandomCrop(self.crop))
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.jitter:
            steps.append(v2.ColorJitter(*JITTER))
        return partial(_changed, v2.Compose(steps))


# Functions of the module, since loaders' processes may be spawned.
def _unchanged(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return image, mask


def _changed(by: nn.Module, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    from torchvision import tv_tensors

    image, mask = by(tv_tensors.Image(image), tv_tensors.Mask(mask))
    return image.as_subclass(Tensor), mask.as_subclass(Tensor)


class Batch(NamedTuple):
    """Frames of one step.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N, H, W) int64 classes.
        names: Of the frames, so that trouble can be traced to a file.
    """

    images: Tensor
    labels: Tensor
    names: list[str]


class TrainingFrames(Dataset[tuple[Tensor, Tensor, str]]):
    """Augmented frames; a frame's randomness depends on seed, epoch and index alone."""

    def __init__(self, prepared: Prepared, augment: Augment, seed: int) -> None:
        self._prepared = prepared
        self._transform = augment.transform()
        self._seed = seed

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, str]:
        epoch, index = key
        image = torch.from_numpy(np.array(self._prepared.images[index])).permute(2, 0, 1)
        mask = torch.from_numpy(np.array(self._prepared.labels[index]))
        with torch.random.fork_rng(devices=[]):
            state = np.random.SeedSequence((self._seed, epoch, index)).generate_state(1)
            torch.manual_seed(int(state[0]))
            image, mask = self._transform(image, mask)
        return image, mask, self._prepared.names[index]


class SeededBatches(Sampler[list[Key]]):
    """Batches of (epoch, index): every frame once per epoch, the last odd ones left out.

    Args:
        frames: How many there are; fewer than a batch are repeated.
        batch: Images per step.
        seed: Of the order.
        first: Step to begin with.
        last: Step to end before.
        part: Of each batch, this process's.
    """

    def __init__(
        self, frames: int, batch: int, seed: int, first: int, last: int, part: slice = WHOLE
    ) -> None:
        self._frames, self._batch, self._seed = frames, batch, seed
        self._first, self._last, self._part = first, last, part

    def __iter__(self) -> Iterator[list[Key]]:
        per_epoch = steps_per_epoch(self._frames, self._batch)
        order: list[int] = []
        for step in range(self._first, self._last):
            epoch, place = divmod(step, per_epoch)
            if not order or place == 0:
                random = np.random.default_rng((self._seed, epoch))
                order = random.permutation(self._frames).tolist()
                order *= -(-self._batch // self._frames)
            start = place * self._batch
            indices = order[start : start + self._batch]
            yield [(epoch, index) for index in indices[self._part]]

    def __len__(self) -> int:
        return self._last - self._first


def steps_per_epoch(frames: int, batch: int) -> int:
    """Whole batches in one pass over the frames; at least one."""
    return max(frames // batch, 1)


def training_batches(
    prepared: Prepared,
    augment: Augment,
    *,
    batch: int,
    seed: int,
    first: int,
    last: int,
    workers: int,
    pin_memory: bool,
    part: slice = WHOLE,
) -> Iterator[Batch]:
    """Batches of the steps from ``first`` to before ``last``, or of each only a part."""
    loader = DataLoader(
        TrainingFrames(prepared, augment, seed),
        batch_sampler=SeededBatches(len(prepared), batch, seed, first, last, part),
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_collate,
        # Of its own, or starting to iterate would move the global one.
        generator=torch.Generator().manual_seed(seed),
    )
    return iter(loader) if workers else _on_one_thread(iter(loader))


def _on_one_thread(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same, each made by one thread, as in a loader's processes.

    Several would wait for each other at every operation on these small maps, which takes
    twenty times as long where another program has one of the cores. And what is rounded
    does not depend on their number.
    """
    while True:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            batch = next(batches, None)
        finally:
            torch.set_num_threads(before)
        if batch is None:
            return
        yield batch


def _collate(items: list[tuple[Tensor, Tensor, str]]) -> Batch:
    images, labels, names = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(labels).long(), list(names))
