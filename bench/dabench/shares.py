"""How much of a forward pass operators take that no operation count sees."""

from __future__ import annotations

import os
from collections.abc import Collection

import torch
from torch import nn
from torch.autograd.profiler import profile

from dabench_models import ModelSpec

PASSES = 3


def time_shares(
    network: nn.Module, spec: ModelSpec, *, size: tuple[int, int], operators: Collection[str]
) -> dict[str, float]:
    """Measures the share of CPU time of some operators in an eval forward of one image.

    Args:
        network: Put into eval mode.
        spec: Of the network.
        size: Height and width of the input.
        operators: Names as in `dabench.flops.ModelCount.uncounted`.

    Returns:
        Operator -> fraction of the forward's time, its callees included. Only
        operators the profiler saw.
    """
    network.eval()
    x = torch.randn(1, spec.channels, *size)
    with torch.inference_mode():
        network(x)
        # Kineto writes to stderr that it finds no GPU, even where it is not used.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        with profile(use_kineto=False) as profiler:
            for _ in range(PASSES):
                network(x)
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    return {
        name: event.cpu_time_total / whole
        for name in operators
        for event in events
        if event.key == f"aten::{name}"
    }
