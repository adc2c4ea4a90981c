"""The kernels whose best rates are a machine's ceilings; runs in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch.nn import functional as F

from dabench.clock import host_clock
from dabench.device.base import Device

SECONDS_EACH = 0.4
FEWEST, MOST = 5, 200
TINY_CALLS = 300
# Bytes read and written: from what fits the nearest cache to what fits none.
COPY_BYTES = tuple(2**exponent for exponent in (16, 18, 20, 22, 24, 26, 28, 29))

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def measure_kernels(device: Device, dtype: str) -> dict[str, Any]:
    """Rates of matrix products, convolutions, copies and an empty operator.

    A ceiling is what can be had, so each is the best of its passes, while the
    operator's overhead is a median.

    Args:
        device: Configured for the dtype and the threads.
        dtype: Of `dabench.config.DTYPES`.

    Returns:
        ``kernels``, ``copies`` and ``launch_s`` of `dabench.roofline.Ceilings`.
    """
    kind = _DTYPES.get(dtype, torch.float32)
    place = device.torch_device()
    with torch.inference_mode():
        rates = {
            name: flops / _best(run, device)
            for name, flops, run in _dense(place, kind, large=device.queues_work)
        }
        copies = [(size, size / _best(_copy(size, place), device)) for size in COPY_BYTES]
        launch_s = _tiny(place, kind, device)
    return {"kernels": rates, "copies": copies, "launch_s": launch_s}


def _dense(
    place: torch.device, kind: torch.dtype, *, large: bool
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Dense kernels with their FLOPs: the shapes libraries are tuned for."""
    for side in (1024, 2048, *((4096, 8192) if large else ())):
        a, b = (torch.randn(side, side, device=place).to(kind) for _ in range(2))
        yield f"matmul {side}", 2 * side**3, partial(torch.matmul, a, b)
    side, channels, batch = (64, 256, 16) if large else (64, 256, 1)
    layouts = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    for (layout_name, layout), kernel in product(layouts.items(), (3, 1)):
        x = torch.randn(batch, channels, side, side, device=place)
        weight = torch.randn(channels, channels, kernel, kernel, device=place)
        run = partial(
            F.conv2d,
            x.to(kind, memory_format=layout),
            weight.to(kind, memory_format=layout),
            padding=kernel // 2,
        )
        flops = 2 * x.numel() * channels * kernel * kernel
        yield f"conv {kernel}x{kernel} of {channels} channels, {layout_name}", flops, run


def _copy(moved: int, place: torch.device) -> Callable[[], Any]:
    source = torch.randn(moved // 8, device=place)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _tiny(place: torch.device, kind: torch.dtype, device: Device) -> float:
    """Seconds per call of an operator that has next to nothing to do, calls in a row."""
    x = torch.randn(8, device=place).to(kind)

    def calls() -> None:
        for _ in range(TINY_CALLS):
            torch.relu(x)

    times = sorted(_seconds(calls, device) for _ in range(9))
    return times[len(times) // 2] / TINY_CALLS


def _best(run: Callable[[], Any], device: Device) -> float:
    """Seconds of the fastest pass."""
    begin = host_clock()
    _seconds(run, device)
    best = _seconds(run, device)
    passes = 0
    while passes < FEWEST or (passes < MOST and host_clock() - begin < SECONDS_EACH):
        best = min(best, _seconds(run, device))
        passes += 1
    return best


def _seconds(run: Callable[[], Any], device: Device) -> float:
    device.synchronize()
    begin = host_clock()
    run()
    device.synchronize()
    return host_clock() - begin
