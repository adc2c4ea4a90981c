"""The networks of a run with their optimisers, placed and in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from dabench.device.base import Device
from dabench.device.registry import open_device
from dabench.plan.methods import method_of
from dabench.training.config import TrainConfig
from dabench.training.frames import DataObserver
from dabench.training.norms import set_norms
from dabench.training.passes import Learner, Precision
from dabench.training.precision import faster_dtype
from dabench.training.world import ALONE, World
from dabench_models import build

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
ADAM_BETAS = (0.9, 0.99)
"""The paper's SGD; AdaptSegNet's Adam, the paper names none."""

DISC_SEED = 1 << 20
"""Added to the seed for the discriminator's weights, so that they are its own."""


def settle(
    config: TrainConfig, classes: int, observer: DataObserver, world: World = ALONE
) -> TrainConfig:
    """Resolves ``auto`` precisions by measuring each network; configures the device for the run.

    Args:
        config: Its device must be resolved already (not ``auto``).
        classes: How many the labels have.
        observer: Told what was chosen, and why.
        world: The processes that train together; the first measures for all.

    Raises:
        DeviceUnavailableError: This machine lacks the device.
    """
    device = configured(config, world)
    where = device.torch_device()
    size = config.crop or (config.height, config.width)
    # Batch norm cannot train on one.
    images = max(config.batch // world.size, 2)
    segmenter, disc = config.segmenter_dtype, config.disc_dtype

    def faster(name: str, learner: Callable[[], Learner], channels: int) -> str:
        # Nothing else holds the network, so that it is gone when the next is tried.
        choice = faster_dtype(
            learner().network, (images, channels, *size), device, config.memory_format
        )
        observer.note(f"precision of {name}: {choice.dtype}; {choice.why}")
        return choice.dtype

    # What is tried must not wait for the other processes.
    tried = replace(
        config, segmenter_dtype="fp32", disc_dtype="fp32", batch_norm="local", processes=1
    )
    if segmenter == "auto":
        of_segmenter = partial(segmenter_of, tried, classes, where)
        segmenter = world.share(partial(faster, config.model, of_segmenter, 3))
    if disc == "auto":
        disc = "fp32"
        if method_of(config.method).judged:
            of_disc = partial(discriminator_of, tried, classes, where)
            disc = world.share(partial(faster, config.disc, of_disc, classes))
    return replace(config, segmenter_dtype=segmenter, disc_dtype=disc)


def configured(config: TrainConfig, world: World = ALONE) -> Device:
    """The device of this process, set up for a training.

    Raises:
        DeviceUnavailableError: This machine lacks it.
    """
    device = open_device(world.device(config.device))
    device.configure(dtype="fp32", threads=config.threads or world.threads, autotune=True)
    return device


def segmenter_of(
    config: TrainConfig, classes: int, where: torch.device, world: World = ALONE
) -> Learner:
    """The segmenter with SGD; its weights follow from the seed."""
    torch.manual_seed(config.seed)
    network = build(config.model, num_classes=classes)
    network = _placed(set_norms(network, config.batch_norm, where, world), config, where)
    optimizer = torch.optim.SGD(
        network.parameters(), config.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY,
        fused=_fused(where, config.segmenter_dtype),
    )  # fmt: skip
    return Learner(network, optimizer, Precision(device=where.type, dtype=config.segmenter_dtype),
                   config.clip)  # fmt: skip


def discriminator_of(
    config: TrainConfig, classes: int, where: torch.device, seed: int = DISC_SEED
) -> Learner:
    """A discriminator with Adam.

    Args:
        config: Of the run.
        classes: How many the labels have.
        where: Its device.
        seed: Added to the run's for its weights.
    """
    torch.manual_seed(config.seed + seed)
    network = _placed(build(config.disc, num_classes=classes), config, where)
    optimizer = torch.optim.Adam(
        network.parameters(), config.disc_lr, betas=ADAM_BETAS,
        fused=_fused(where, config.disc_dtype),
    )  # fmt: skip
    return Learner(network, optimizer, Precision(device=where.type, dtype=config.disc_dtype),
                   config.clip)  # fmt: skip


def _fused(where: torch.device, dtype: str) -> bool | None:
    """Whether an optimiser reads and writes each weight once; None leaves it to torch.

    Otherwise processors go through all weights once per operation. Not where losses are
    scaled: torch's fused SGD keeps memory that nothing was written to as momentum when the
    first gradients overflow, as they do in fp16.
    """
    return True if where.type == "cpu" and dtype != "fp16" else None


def _placed(network: torch.nn.Module, config: TrainConfig, where: torch.device) -> torch.nn.Module:
    nhwc = config.memory_format == "nhwc"
    layout = torch.channels_last if nhwc else torch.contiguous_format
    # torch's stubs allow the memory format only by itself.
    return network.to(where).to(memory_format=layout)
