"""Self-training with a mean teacher and class mixing.

Tranheden et al., "DACS: Domain adaptation via cross-domain mixed sampling", WACV 2021, with the
mixing of Olsson et al., "ClassMix", WACV 2021: half of the classes of a source image are pasted
onto a target image, their labels onto the teacher's. Published settings: momentum 0.99,
threshold 0.968, weight 1, colours of mixed images changed by up to 0.25; no mirroring.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dabench.training.config import TrainConfig
from dabench.training.losses import pseudo_loss
from dabench.training.methods.part import Part, Pseudo, StepData, like
from dabench.training.methods.strong import strongly
from dabench.training.passes import Passes
from dabench.training.stopwatch import Stopwatch

STREAM = 1
"""Of what is drawn."""
JITTER = 0.25


def class_masks(labels: Tensor, random: np.random.Generator) -> Tensor:
    """Where each image shows one of the half of its classes, rounded up, that are drawn.

    Args:
        labels: (N, H, W); what is ignored is a class like any other, as published: where it is
            pasted nothing is learnt.
        random: Draws.

    Returns:
        (N, H, W) of bool.
    """
    masks = []
    for label in labels:
        classes = label.unique()
        chosen = random.permutation(len(classes))[: (len(classes) + 1) // 2]
        masks.append(torch.isin(label, classes[torch.from_numpy(chosen).to(label.device)]))
    return torch.stack(masks)


def mixed_labels(mask: Tensor, labels: Tensor, pseudo: Pseudo) -> tuple[Tensor, Tensor]:
    """Labels of mixed images and how much each pixel counts.

    Args:
        mask: (N, H, W), where the source shows.
        labels: (N, H, W) of the source, which count fully.
        pseudo: The teacher's, which count as much as it is sure.

    Returns:
        Labels and weights, (N, H, W) each.
    """
    weights = torch.where(mask, torch.ones_like(pseudo.confident), pseudo.confident)
    return torch.where(mask, labels, pseudo.labels), weights


class Mixing(Part):
    """The loss on target images with classes of the source pasted in."""

    name = "self-training"
    views = True

    def __init__(self) -> None:
        self._loss: Tensor

    def on_views(self, data: StepData, passes: Passes, watch: Stopwatch) -> None:
        assert data.pseudo is not None
        with watch.part("target"):
            random = data.random(STREAM)
            mask = class_masks(data.labels, random)
            labels, weights = mixed_labels(mask, data.labels, data.pseudo)
            images = torch.where(mask.unsqueeze(1), data.images.float(), data.target.float())
            images = like(strongly(images, JITTER, random), data.target)
            output = passes.all_heads(passes.input(images))
            loss = pseudo_loss(output, labels, weights)
            passes.learner.backward(loss)
        self._loss = loss.detach()

    def results(self) -> dict[str, Tensor]:
        return {"mixed": self._loss}


def part(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """For a run."""
    return Mixing()
