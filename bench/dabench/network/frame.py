"""A frame's way through a segmenter: from a file, or a camera's pixels, to a label map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dabench.base.errors import UnsupportedError
from dabench.data.inputs import network_input
from dabench.data.labels import read_image
from dabench.data.prepare import resize_image
from dabench.network.tensors import outputs
from dabench.network.workload import Workload
from dabench.plan.conventions import STAGES
from dabench.timing.stages import Stage

MOST_CLASSES = 256

Source = Path | tuple[int, int]
"""An image file, or (height, width) of a camera's frame that lies in memory."""


class FrameWay:
    """The stages of a frame.

    Args:
        load: The network, ready to run on a batch of one.
        source: Where the frame comes from.
        seed: Of a camera's frame, which is random.

    Attributes:
        stages: Name of `STAGES` -> what it does; a camera's frame is not decoded.

    Raises:
        UnsupportedError: The network does not give a map of logits.
        DataError: The file is no image.
    """

    def __init__(self, load: Workload, source: Source, seed: int) -> None:
        self._load = load
        self._source = source
        if isinstance(source, Path):
            self._size = read_image(source, upright=True).shape[:2]
        else:
            random = np.random.default_rng(seed)
            self._raw = random.integers(0, 256, (*source, 3), np.uint8)
            self._size = source
        self.stages: dict[str, Stage] = {
            name: getattr(self, f"_{name}")
            for name in STAGES
            if name != "decode" or isinstance(source, Path)
        }
        shape = self._run_once()
        if len(shape) != 4:
            raise UnsupportedError(
                f"puts out {'x'.join(map(str, shape))}, no map of logits for each pixel"
            )
        if shape[1] > MOST_CLASSES:
            raise UnsupportedError(f"tells {shape[1]} classes apart; a label map holds bytes")

    def _run_once(self) -> torch.Size:
        value: Any = None
        for name in ("decode", "prepare", "upload", "forward"):
            if name in self.stages:
                value = self.stages[name](value)
        return torch.Size(value.shape)

    def _decode(self, _: None) -> np.ndarray[Any, np.dtype[np.uint8]]:
        assert isinstance(self._source, Path)
        return read_image(self._source, upright=True)

    def _prepare(self, image: np.ndarray[Any, np.dtype[np.uint8]] | None) -> Tensor:
        case = self._load.case
        pixels = resize_image(self._raw if image is None else image, (case.height, case.width))
        return network_input(torch.from_numpy(np.array(pixels)[None]).permute(0, 3, 1, 2))

    def _upload(self, x: Tensor) -> Tensor:
        load = self._load
        x = x.to(load.device, load.dtype, memory_format=load.memory_format)
        # Some runtimes read its memory as it lies.
        return x.contiguous(memory_format=load.memory_format)

    def _forward(self, x: Tensor) -> Tensor:
        return outputs(self._load.call(x))[0]

    def _argmax(self, logits: Tensor) -> Tensor:
        return logits.argmax(1).to(torch.uint8)

    def _download(self, labels: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        found: np.ndarray[Any, np.dtype[np.uint8]] = labels[0].cpu().numpy()
        return found

    def _enlarge(self, labels: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
        size = self._size[::-1]
        return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
