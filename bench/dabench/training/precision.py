"""Which precision is faster for a network here: measured, since it differs per network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dabench.device.base import Device
from dabench.timing.clock import Clock, host_clock
from dabench.training.passes import Precision

PASSES = 4
LIMIT_S = 2.0
"""For one network's trial: two of them stay within 5 s at a training's start."""
LARGEST = (2, 128, 256)
"""Images, height and width of a processor's trial: which is faster shows on a part as well.

On devices that queue work it does not: there a small pass is the time to ask for its work.
"""

CLEARLY = 0.9
"""bf16 must take less than this share of fp32's time to be worth its rounding."""
FAR = 2.0
"""Where the first passes differ by this factor no more are needed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision, and what it rests on.

    Attributes:
        why: In words, for the record.
    """

    dtype: str
    why: str


def faster_dtype(
    network: nn.Module,
    shape: tuple[int, int, int, int],
    device: Device,
    memory_format: str,
    clock: Clock = host_clock,
) -> Choice:
    """``bf16`` where forward and backward are clearly faster in it, else ``fp32``.

    Where the device only emulates bf16 it is not tried. The two alternate, and
    the fastest pass of each counts: whatever else the machine does only ever
    makes a pass slower. The trial ends as soon as the answer is clear, and at
    the latest after the pair of passes in which `LIMIT_S` is over.

    Args:
        network: In training mode; is as before afterwards.
        shape: Of its input; of which processors try a part (`LARGEST`).
        device: Where it is.
        memory_format: Of the input.
        clock: The host's.
    """
    if "bf16" not in device.native_dtypes():
        return Choice("fp32", f"bf16 is only emulated on {device.name} here and not tried")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images, channels, height, width = shape
    if not device.queues_work:
        images, height, width = map(min, (images, height, width), LARGEST)
    x = torch.randn(images, channels, height, width, device=device.torch_device())
    layout = torch.channels_last if memory_format == "nhwc" else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    begin = clock()
    try:
        _seconds(network, x, device, "fp32", clock)
    except torch.OutOfMemoryError:
        network.zero_grad(set_to_none=True)
        network.load_state_dict(state)
        return Choice("bf16", f"in fp32 {'x'.join(map(str, x.shape))} does not fit in memory")
    _seconds(network, x, device, "bf16", clock)
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    bounded = ""
    for taken in range(PASSES):
        for dtype, seconds in times.items():
            seconds.append(_seconds(network, x, device, dtype, clock))
        if _is_clear(times):
            break
        if clock() - begin > LIMIT_S and taken + 1 < PASSES:
            bounded = f", ended by its limit of {LIMIT_S:g} s"
            break
    network.load_state_dict(state)
    fp32, bf16 = (min(seconds) for seconds in times.values())
    passes = len(times["fp32"])
    why = (
        f"measured on {'x'.join(map(str, x.shape))}: bf16 takes {bf16 / fp32:.2f} of the time of "
        f"fp32, {passes} pass{'es' if passes > 1 else ''} each{bounded}"
    )
    return Choice("bf16" if bf16 < CLEARLY * fp32 else "fp32", why)


def _is_clear(times: dict[str, list[float]]) -> bool:
    fp32, bf16 = (min(seconds) for seconds in times.values())
    return not 1 / FAR < bf16 / fp32 < FAR


def _seconds(network: nn.Module, x: Tensor, device: Device, dtype: str, clock: Clock) -> float:
    precision = Precision(device=x.device.type, dtype=dtype)
    device.synchronize()
    begin = clock()
    with precision.passes():
        output = network(x)
    heads = output if isinstance(output, tuple) else (output,)
    loss = torch.stack([head.float().square().mean() for head in heads if head is not None])
    loss.sum().backward()
    device.synchronize()
    taken = clock() - begin
    network.zero_grad(set_to_none=True)
    return taken
