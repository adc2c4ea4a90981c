"""Scores of a segmenter on labelled frames, and batch-norm statistics of unlabelled ones."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from dabench.data.inputs import network_input
from dabench.data.prepare import Prepared
from dabench.scoring.evaluate import Evaluated, FrameCounts, evaluate, image_batches
from dabench.scoring.labelling import classes_at
from dabench.scoring.metrics import Counts
from dabench.training.norms import norms_of
from dabench.training.passes import Precision
from dabench.training.world import ALONE, World
from dabench_models.bisenet import BiSeNet


def predict(network: BiSeNet, images: Tensor, size: tuple[int, int], *, normalised: bool) -> Tensor:
    """Classes of images at another size.

    Args:
        network: In eval mode.
        images: (N, 3, H, W) uint8.
        size: (height, width) of the result; logits are brought to it bilinearly, by way of the
            images' size.
        normalised: As in training.

    Returns:
        (N, height, width) uint8 classes.
    """
    logits = _small_logits(network, images, normalised=normalised)
    return classes_at(logits, (images.shape[2], images.shape[3]), size)


def _small_logits(network: BiSeNet, images: Tensor, *, normalised: bool) -> Tensor:
    return network.forward_main(network_input(images, normalised=normalised), upsampled=False)


@torch.inference_mode()
def confusion_on(
    network: BiSeNet,
    prepared: Prepared,
    *,
    classes: int,
    device: torch.device,
    normalised: bool,
    batch: int = 8,
    world: World = ALONE,
) -> Evaluated:
    """Compares predictions with the labels at full resolution, in fp32 however it was trained.

    Of several processes each compares its share; what is returned is of all frames.

    Args:
        network: Put into eval mode.
        prepared: Labelled frames at the network's size.
        classes: Of the labels.
        device: The network's.
        normalised: As in training.
        batch: Images per pass.
        world: The processes, each with the same network.
    """
    network.eval()
    part = world.part(len(prepared))
    found = evaluate(
        partial(_small_logits, network, normalised=normalised),
        prepared if world.size == 1 else prepared.part(part),
        classes=classes,
        device=device,
        batch=batch,
    )
    return found if world.size == 1 else _joined(found, part, len(prepared), world)


def _joined(found: Evaluated, part: slice, frames: int, world: World) -> Evaluated:
    """What all processes found, of each its part of the frames."""
    # Pixels that are hit, of the ground truth and predicted, by frame and class.
    parts = torch.zeros(frames, 3, len(found.counts), dtype=torch.int64)
    for index, own in enumerate(found.frames, part.start):
        parts[index] = torch.tensor([own.hit, own.truth, own.predicted])
    every = world.total(parts).tolist()
    counts: Counts = world.total(torch.from_numpy(found.counts)).numpy()
    return Evaluated(counts, tuple(FrameCounts(*map(tuple, of_frame)) for of_frame in every))


@torch.no_grad()
def recompute_statistics(
    network: BiSeNet,
    prepared: Prepared,
    *,
    device: torch.device,
    precision: Precision,
    normalised: bool,
    batch: int,
) -> None:
    """Replaces batch norm's running statistics by those of other images (AdaBN).

    Fewer than two images leave the statistics as they are.

    Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation",
    2016. Labels are not looked at; weights stay as they are.
    """
    if len(prepared) < 2:
        return
    norms = norms_of(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None averages over all batches instead of forgetting the first.
        norm.momentum = None
    network.train()
    for images in image_batches(prepared, batch, device):
        if len(images) > 1:
            with precision.passes():
                # All heads: their statistics were reset too.
                network.forward_heads(network_input(images, normalised=normalised), upsampled=False)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
