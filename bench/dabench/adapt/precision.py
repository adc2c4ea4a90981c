"""Which precision is faster for a network here: measured, since it differs per network."""

from __future__ import annotations

from statistics import median

import torch
from torch import nn

from dabench.adapt.step import Precision
from dabench.clock import host_clock
from dabench.device.base import Device

WARMUP, PASSES = 1, 3
CLEARLY = 0.9
"""bf16 must take less than this share of fp32's time to be worth its rounding."""


def faster_dtype(network: nn.Module, shape: tuple[int, int, int, int], device: Device) -> str:
    """``bf16`` where forward and backward are clearly faster in it, else ``fp32``.

    Args:
        network: In training mode; gets no gradients from this.
        shape: Of its input.
        device: Where it is.
    """
    took = {dtype: _seconds(network, shape, device, dtype) for dtype in ("fp32", "bf16")}
    return "bf16" if took["bf16"] < CLEARLY * took["fp32"] else "fp32"


def _seconds(
    network: nn.Module, shape: tuple[int, int, int, int], device: Device, dtype: str
) -> float:
    where = device.torch_device()
    x = torch.randn(shape, device=where).contiguous(memory_format=torch.channels_last)
    precision = Precision(device=where.type, dtype=dtype)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    times = []
    for _ in range(WARMUP + PASSES):
        device.synchronize()
        begin = host_clock()
        with precision.autocast():
            output = network(x)
        heads = output if isinstance(output, tuple) else (output,)
        loss = torch.stack([head.float().square().mean() for head in heads if head is not None])
        loss.sum().backward()
        device.synchronize()
        times.append(host_clock() - begin)
        network.zero_grad(set_to_none=True)
    network.load_state_dict(state)
    return median(times[WARMUP:])
