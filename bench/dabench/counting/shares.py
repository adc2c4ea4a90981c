"""Measures the share of a forward pass's CPU time that uncounted operators take."""

from __future__ import annotations

import os
from collections.abc import Collection

import torch
from torch import nn
from torch.autograd.profiler import profile

from dabench_models import ModelSpec

PASSES = 3


def time_shares(
    network: nn.Module,
    spec: ModelSpec,
    *,
    shape: tuple[int, int, int],
    mode: str,
    operators: Collection[str],
) -> dict[str, float]:
    """Measures the share of CPU time of some operators in a forward pass, in NCHW.

    Args:
        network: Put into the mode; in the precision of its weights.
        spec: Of the network; one image in eval, the fewest it trains on in train.
        shape: Channels, height and width of the input.
        mode: ``eval`` or ``train``: the graph of the main output or of all heads.
        operators: Names as in `dabench.counting.counted.ModelCount.uncounted`.

    Returns:
        Operator -> fraction of the forward's time, its callees included. Only
        operators the profiler saw.
    """
    training = mode == "train"
    network.train(training)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    x = torch.randn(spec.min_train_batch if training else 1, *shape, dtype=dtype)
    with torch.no_grad():
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
