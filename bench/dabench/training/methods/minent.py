"""MinEnt: predictions for the target are to be sure of themselves.

Vu et al., "ADVENT: Adversarial entropy minimization for domain adaptation in semantic
segmentation", CVPR 2019. Published setting: weight 0.001.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dabench.training.config import TrainConfig
from dabench.training.losses import entropy_loss
from dabench.training.methods.part import Part
from dabench.training.passes import Passes
from dabench.training.stopwatch import Stopwatch


class MinEnt(Part):
    """The mean entropy of the main head's prediction, times a weight."""

    name = "minent"
    heads = ("main",)
    learns = True

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._loss: Tensor

    def on_prediction(self, leaves: Mapping[str, Tensor], passes: Passes, watch: Stopwatch) -> None:
        with watch.part("target"):
            loss = entropy_loss(leaves["main"])
            passes.gradient(self._weight * loss, leaves["main"])
        self._loss = loss.detach()

    def results(self) -> dict[str, Tensor]:
        return {"entropy": self._loss}


def part(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """For a run."""
    return MinEnt(config.entropy_weight)
