"""Losses of segmentation and of adversarial adaptation."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dabench.data.labels import IGNORE
from dabench.training.world import ALONE, World
from dabench_models.bisenet import SegmenterOutput

SOURCE, TARGET = 1.0, 0.0
"""What the discriminator learns to answer."""

BAND_BYTES = 1 << 20
"""Of logits at full size that a loss on small ones holds at a time."""

OHEM_THRESHOLD = 0.7
OHEM_SHARE = 1 / 16
DISC_INPUTS = ("softmax", "logits", "entropy")

_LAPLACIAN = ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0))
_DETAIL_THRESHOLD = 0.1
_DETAIL_WEIGHTS = (0.6, 0.3, 0.1)


def cross_entropy(logits: Tensor, labels: Tensor, world: World = ALONE) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 if all are.

    Of several processes the mean of what each gets is that over all their pixels.

    Args:
        logits: (N, C, H, W), or smaller ones, for which those at full size (`full_size`)
            are never in memory as a whole.
        labels: (N, H, W) classes.
        world: The processes that share the batch.
    """
    # The mean over no pixels would be a NaN.
    valid = world.total((labels != IGNORE).sum()).clamp(min=1) / world.size
    if logits.shape[2:] == labels.shape[1:]:
        total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    else:
        total = _BandedCrossEntropy.apply(logits.float(), labels, None)
    return total / valid


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy times a weight per pixel, divided by the number of all pixels.

    As DACS and MIC have it: pixels that are ignored or count little leave the divisor as it is,
    so that an unsure teacher teaches little.

    Args:
        logits: As `cross_entropy` takes them.
        labels: (N, H, W) classes.
        weights: (N, H, W), 0 to 1.
    """
    if logits.shape[2:] == labels.shape[1:]:
        losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
        return (losses * weights).sum() / labels.numel()
    total: Tensor = _BandedCrossEntropy.apply(logits.float(), labels, weights)
    return total / labels.numel()


def full_size(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits brought to the size of the labels as the segmenters do it, in fp32 and NCHW.

    Args:
        logits: (N, C, h, w).
        labels: (N, H, W).
    """
    logits, size = logits.float().contiguous(), labels.shape[1:]
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=True)


class _BandedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of logits brought to full size a band of rows at a time.

    At full size logits, probabilities and gradients are maps of classes times pixels,
    and a processor spends its time on fetching them from memory: a band stays in its
    cache. Its gradient is computed with it, at the size that the logits came in.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        _, classes, height, width = logits.shape
        down, right = (
            _linear(*lengths).to(logits.device)
            for lengths in zip((height, width), labels.shape[1:], strict=True)
        )
        rows = max(1, BAND_BYTES // (4 * classes * len(right)))
        gradients = torch.empty_like(logits, memory_format=torch.contiguous_format)
        total = logits.new_zeros(())
        for index, (scores, label) in enumerate(zip(logits, labels, strict=True)):
            wide = scores @ right.T
            of_wide = torch.zeros_like(wide)
            bands = label.split(rows)
            shares = bands if weights is None else weights[index].split(rows)
            for part, band, share in zip(down.split(rows), bands, shares, strict=True):
                logs = torch.log_softmax(part @ wide, dim=0)
                counts = band != IGNORE
                truth = torch.where(counts, band, 0).unsqueeze(0)
                losses = logs.gather(0, truth)[0].where(counts, 0)
                # Of the logits: what is believed, less what is true.
                true = -torch.ones_like(truth, dtype=logs.dtype)
                of_logits = logs.exp_().scatter_add_(0, truth, true).where(counts, 0)
                if weights is not None:
                    losses, of_logits = losses * share, of_logits.mul_(share)
                total -= losses.sum()
                of_wide += part.T @ of_logits
            torch.matmul(of_wide, right, out=gradients[index])
        ctx.save_for_backward(gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * of_total, None, None


def _linear(short: int, long: int) -> Tensor:
    """Weights of linear interpolation with aligned corners, (long, short)."""
    return F.interpolate(torch.eye(short)[None], size=long, mode="linear", align_corners=True)[0].T


def ohem_cross_entropy(logits: Tensor, labels: Tensor, world: World = ALONE) -> Tensor:
    """Cross-entropy of the hard pixels only (online hard example mining).

    As in STDC-Seg: the mean over the pixels whose true class got a probability below 0.7, or
    over the hardest sixteenth of all, whichever are more; 0 if all pixels are ignored. Of several
    processes the mean of what each gets is that over all their pixels.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) classes.
        world: The processes that share the batch.
    """
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    ordered = losses[labels != IGNORE].sort(descending=True).values
    least = max(int(labels.numel() * world.size * OHEM_SHARE), 1)
    hard = (ordered > -math.log(OHEM_THRESHOLD)).sum()
    counts = world.total(torch.stack([hard, hard.new_tensor(len(ordered))])).tolist()
    if counts[0] >= least:
        own, chosen = int(hard), counts[0]
    else:
        own, chosen = _own_hardest(ordered, least, world), min(least, counts[1])
    hardest: Tensor = ordered[:own].sum() / (max(chosen, 1) / world.size)
    return hardest


def _own_hardest(ordered: Tensor, least: int, world: World) -> int:
    """How many of the hardest pixels of all processes are this one's, the first of its order."""
    room = torch.full((least,), -math.inf, device=ordered.device)
    few = ordered.detach()[:least]
    room[: len(few)] = few
    of_all = torch.cat(world.gathered(room)).argsort(descending=True, stable=True)[:least]
    own = (of_all // least == world.rank).sum()
    return min(int(own), len(few))


def detail_target(labels: Tensor) -> Tensor:
    """Boundaries of the label map, as the STDC paper's detail guidance draws them.

    The Laplacian at strides 1, 2 and 4, each clamped at 0 and thresholded,
    brought to full size (nearest), fused and thresholded again.

    Args:
        labels: (N, H, W).

    Returns:
        (N, 1, H, W) of 0 and 1.
    """
    kernel = torch.tensor(_LAPLACIAN, device=labels.device).view(1, 1, 3, 3)
    maps = labels.unsqueeze(1).float()
    fused = torch.zeros_like(maps)
    for stride, weight in zip((1, 2, 4), _DETAIL_WEIGHTS, strict=True):
        edges = F.conv2d(maps, kernel, stride=stride, padding=1).clamp(min=0)
        binary = (edges > _DETAIL_THRESHOLD).float()
        fused += weight * F.interpolate(binary, size=maps.shape[2:], mode="nearest")
    return (fused > _DETAIL_THRESHOLD).float()


def detail_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy and dice loss (smoothing 1) of the detail head.

    Args:
        logits: (N, 1, h, w), brought bilinearly to the size of the labels.
        labels: (N, H, W).
    """
    target = detail_target(labels)
    full = F.interpolate(logits.float(), target.shape[2:], mode="bilinear", align_corners=True)
    binary = F.binary_cross_entropy_with_logits(full, target)
    belief, truth = torch.sigmoid(full).flatten(1), target.flatten(1)
    overlap = (belief * truth).sum(1)
    dice = 1 - (2 * overlap + 1) / (belief.sum(1) + truth.sum(1) + 1)
    return binary + dice.mean()


def segmentation_loss(
    output: SegmenterOutput,
    labels: Tensor,
    *,
    ohem: bool = False,
    detail: bool = False,
    world: World = ALONE,
) -> Tensor:
    """The sum over the main and both auxiliary heads, and the detail head if asked for."""
    of_head = ohem_cross_entropy if ohem else cross_entropy
    heads = (output.main, output.aux16, output.aux32)
    loss = torch.stack([of_head(head, labels, world) for head in heads]).sum()
    if detail and output.detail is not None:
        loss = loss + detail_loss(output.detail, labels)
    return loss


def pseudo_loss(output: SegmenterOutput, labels: Tensor, weights: Tensor) -> Tensor:
    """`weighted_cross_entropy` of a teacher's labels, summed over the heads that have classes.

    The published networks have one head; these learn from labels at three.
    """
    heads = (output.main, output.aux16, output.aux32)
    return torch.stack([weighted_cross_entropy(head, labels, weights) for head in heads]).sum()


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of the pixels' predictions over its largest value: 0 (sure) to 1.

    -sum_c p_c log p_c / log C, as MinEnt has it (Vu et al., CVPR 2019).

    Args:
        logits: (N, C, H, W).
    """
    return discriminator_input(logits, "entropy").sum(dim=1).mean()


def discriminator_input(logits: Tensor, kind: str) -> Tensor:
    """What the discriminator is shown of a prediction.

    Args:
        logits: (N, C, H, W) of the main head.
        kind: ``softmax`` as in AdaptSegNet, ``logits``, or ``entropy``: the
            weighted self-information of ADVENT, -p log2 p / log2 C.
    """
    if kind == "logits":
        return logits
    if kind == "softmax":
        return torch.softmax(logits, dim=1)
    log = torch.log_softmax(logits, dim=1)
    return -log.exp() * log / math.log(logits.shape[1])


def belief_loss(answer: Tensor, truth: float) -> Tensor:
    """Binary cross-entropy with logits against one answer for all pixels."""
    return F.binary_cross_entropy_with_logits(
        answer.float(), torch.full_like(answer, truth).float()
    )
