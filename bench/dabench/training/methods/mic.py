"""Masked image consistency: the teacher's labels for images of which most is hidden.

Hoyer et al., "MIC: Masked image consistency for context-enhanced domain adaptation", CVPR 2023.
Published settings: patches of 64 pixels in crops of 1024 and of 32 in crops of 512 (here a
sixteenth of the height), 0.7 of them hidden, threshold 0.968, weight 1, colours changed by up to
0.2; momentum of the teacher 0.999 in 40,000 steps, where dabench leaves DACS's 0.99.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dabench.training.config import TrainConfig
from dabench.training.losses import pseudo_loss
from dabench.training.methods.part import Part, StepData, like
from dabench.training.methods.strong import strongly
from dabench.training.passes import Passes
from dabench.training.stopwatch import Stopwatch

STREAM = 2
"""Of what is drawn."""
JITTER = 0.2
BLOCKS = 16
"""Patches in the height of an image where nobody says how large they are."""


def patch_mask(
    size: tuple[int, int, int], block: int, ratio: float, random: np.random.Generator
) -> Tensor:
    """Which pixels stay visible.

    Args:
        size: Images, height and width.
        block: Side of a patch in pixels; the last ones may be cut.
        ratio: The probability of a patch to be hidden.
        random: Draws.

    Returns:
        (N, 1, H, W) of 0 and 1.
    """
    images, height, width = size
    shape = (images, 1, -(-height // block), -(-width // block))
    patches = torch.from_numpy((random.random(shape) >= ratio).astype(np.float32))
    whole = patches.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)
    return whole[..., :height, :width]


class Masking(Part):
    """The loss on target images of which patches are hidden.

    Args:
        block: Of `patch_mask`; None takes the height over `BLOCKS`.
        ratio: Likewise.
    """

    name = "mic"
    views = True

    def __init__(self, block: int | None, ratio: float) -> None:
        self._block, self._ratio = block, ratio
        self._loss: Tensor

    def on_views(self, data: StepData, passes: Passes, watch: Stopwatch) -> None:
        assert data.pseudo is not None
        with watch.part("target"):
            random = data.random(STREAM)
            images, _, height, width = data.target.shape
            block = self._block or max(height // BLOCKS, 1)
            mask = patch_mask((images, height, width), block, self._ratio, random)
            shown = passes.input(like(strongly(data.target.float(), JITTER, random), data.target))
            # What is hidden is 0 to the network: the mean colour where images are normalised.
            output = passes.all_heads(shown * mask.to(shown.device))
            weights = data.pseudo.confident.expand_as(data.pseudo.labels)
            loss = pseudo_loss(output, data.pseudo.labels, weights)
            passes.learner.backward(loss)
        self._loss = loss.detach()

    def results(self) -> dict[str, Tensor]:
        return {"masked": self._loss}


def part(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """For a run."""
    return Masking(config.mask_block, config.mask_ratio)
