"""Which precision is faster for a network here: measured, since it differs per network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dabench.device.base import Device
from dabench.timing.clock import host_clock
from dabench.training.step import Precision

WARMUP, PASSES = 1, 4
CLEARLY = 0.9
"""bf16 must take less than this share of fp32's time to be worth its rounding."""


def faster_dtype(
    network: nn.Module, shape: tuple[int, int, int, int], device: Device, memory_format: str
) -> str:
    """``bf16`` where forward and backward are clearly faster in it, else ``fp32``.

    The two alternate, and the fastest pass of each counts: whatever else the
    machine does only ever makes a pass slower.

    Args:
        network: In training mode; is as before afterwards.
        shape: Of its input.
        device: Where it is.
        memory_format: Of the input.
    """
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = torch.randn(shape, device=device.torch_device())
    layout = torch.channels_last if memory_format == "nhwc" else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(WARMUP + PASSES):
        for dtype, taken in times.items():
            taken.append(_seconds(network, x, device, dtype))
    network.load_state_dict(state)
    fp32, bf16 = (min(taken[WARMUP:]) for taken in times.values())
    return "bf16" if bf16 < CLEARLY * fp32 else "fp32"


def _seconds(network: nn.Module, x: Tensor, device: Device, dtype: str) -> float:
    precision = Precision(device=x.device.type, dtype=dtype)
    device.synchronize()
    begin = host_clock()
    with precision.autocast():
        output = network(x)
    heads = output if isinstance(output, tuple) else (output,)
    loss = torch.stack([head.float().square().mean() for head in heads if head is not None])
    loss.sum().backward()
    device.synchronize()
    taken = host_clock() - begin
    network.zero_grad(set_to_none=True)
    return taken
