"""The kernels whose best rates are a machine's ceilings; runs in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dabench.counting.forms import form_of
from dabench.device.base import Device
from dabench.profiling.layers import measure_layers
from dabench.timing.clock import host_clock
from dabench.timing.statistics import quantile

SECONDS_EACH = 0.3
SECONDS_PER_STREAM = 0.06
SECONDS_OF_FLOORS = 0.5
SHARE_OF_FLOORS = 0.1
"""Of the time a profile has for a phase."""
LIMIT_S = 15.0
"""For all of a device, precision and number of threads; with the worker's start below 20 s."""
FEWEST, MOST = 5, 200
TINY_CALLS = 300
# Bytes read and written: from what fits the nearest cache to what fits none.
STREAM_BYTES = tuple(2**exponent for exponent in range(16, 30))

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def measure_kernels(device: Device, dtype: str) -> dict[str, Any]:
    """Rates of matrix products, convolutions and memory, and what layers cost at least.

    A ceiling is what can be had, so each is the best of its passes; a bare
    operator's overhead is a median, a layer's floor a lower quartile.

    Args:
        device: Configured for the dtype and the threads.
        dtype: One of `dabench.plan.axes.DTYPES`.

    Returns:
        ``kernels``, ``streams``, ``launch_s``, ``floors`` and ``left_out`` of
        `dabench.profiling.roofline.Ceilings`.
    """
    kind = _DTYPES.get(dtype, torch.float32)
    place = device.torch_device()
    budget = _Budget(LIMIT_S)
    with torch.inference_mode():
        rates: dict[str, float] = {}
        for name, flops, run in _dense(place, kind, large=device.queues_work):
            # The first one anyhow: without a rate there is no roof.
            if not rates or budget.allows(name):
                rates[name] = flops / _best(run, device, SECONDS_EACH, budget)
        launch_s = _tiny(place, kind, device)
    floors = {
        name: measure_floors(name, dtype, device, SECONDS_OF_FLOORS)
        for name in KINDS_OF_PASS
        if budget.allows(f"floors of {name}")
    }
    streams: list[tuple[int, float, str]] = []
    # From the largest down: that is the bandwidth most work sees.
    with torch.inference_mode():
        for size in reversed(STREAM_BYTES):
            if not streams or budget.allows(f"streams of {size} bytes"):
                streams.insert(0, (size, *_fastest_stream(size, place, device, budget)))
    return {
        "kernels": rates,
        "streams": streams,
        "launch_s": launch_s,
        "floors": floors,
        "left_out": budget.left_out,
    }


class _Budget:
    """Time for all kernels together; what there was no time for is noted."""

    def __init__(self, limit_s: float) -> None:
        self._end = host_clock() + limit_s
        self.left_out: list[str] = []

    def allows(self, what: str) -> bool:
        """Whether there is time left; if not, what is left out."""
        if self.is_over:
            self.left_out.append(what)
        return not self.is_over

    @property
    def is_over(self) -> bool:
        return host_clock() >= self._end


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


def _fastest_stream(
    moved: int, place: torch.device, device: Device, budget: _Budget
) -> tuple[float, str]:
    """The highest rate at which so many bytes are read or written, and by what.

    A copy to other memory reads what it overwrites on many processors, which
    nobody counts: work in place, or that only reads, can be twice as fast.
    """
    half, whole = (torch.full((moved // size,), 1.5, device=place) for size in (8, 4))
    target = torch.empty_like(half)
    ways: dict[str, Callable[[], Any]] = {
        "copy": partial(target.copy_, half),
        "in place": partial(half.mul_, 1.0),
        "read": whole.sum,
        "write": partial(whole.fill_, 1.0),
    }
    rates = {
        how: moved / _best(run, device, SECONDS_PER_STREAM, budget) for how, run in ways.items()
    }
    best = max(rates, key=lambda how: rates[how])
    return rates[best], best


KINDS_OF_PASS = ("eval forward", "train forward", "train backward")
_CHANNELS = 8


class _First(nn.Conv2d):
    """Pays for what is cold when a pass begins, so that no kind of layer does."""


class _Tiny:
    """A pass over one layer of each common kind, on maps of a single pixel."""

    def __init__(self, kind_of_pass: str, kind: torch.dtype, place: torch.device) -> None:
        self.mode, self.phase = kind_of_pass.split()
        layers = (
            _First(_CHANNELS, _CHANNELS, 1),
            nn.Conv2d(_CHANNELS, _CHANNELS, 1),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, groups=_CHANNELS),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU(),
            nn.LeakyReLU(),
            nn.Sigmoid(),
            nn.MaxPool2d(1),
            nn.AvgPool2d(1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(_CHANNELS, _CHANNELS),
        )
        # As networks run: cast in eval, autocast over fp32 weights in training.
        dtype = kind if self.mode == "eval" else torch.float32
        lower = self.mode == "train" and kind != torch.float32
        self._autocast = partial(torch.autocast, place.type, dtype=kind, enabled=lower)
        self.network = nn.Sequential(*layers).to(place, dtype).train(self.mode == "train")
        self._x = torch.randn(2, _CHANNELS, 1, 1, device=place, dtype=dtype)
        self.output: Any = None

    def prepare(self) -> None:
        self.network.zero_grad(set_to_none=True)
        if self.phase == "backward":
            with self._autocast():
                self.output = self.network(self._x).sum()

    def run(self) -> None:
        if self.phase == "backward":
            torch.autograd.backward(self.output)
        else:
            with torch.inference_mode(self.mode == "eval"), self._autocast():
                self.output = self.network(self._x)

    def release(self) -> None:
        self.output = None

    def kinds(self) -> Iterator[tuple[str, str]]:
        """Paths of the layers and their kinds, as `floor_s` looks them up."""
        for path, layer in list(self.network.named_children())[1:]:
            yield path, form_of(layer) or type(layer).__name__


def measure_floors(
    kind_of_pass: str, dtype: str, device: Device, limit_s: float
) -> dict[str, float]:
    """Seconds that layers take with next to nothing to do, as a profile would time them.

    Args:
        kind_of_pass: One of `KINDS_OF_PASS`.
        dtype: One of `dabench.plan.axes.DTYPES`.
        device: Configured for the dtype and the threads.
        limit_s: For all passes together.

    Returns:
        Form of a convolution or class of another layer -> seconds.
    """
    kind = _DTYPES.get(dtype, torch.float32)
    work = _Tiny(kind_of_pass, kind, device.torch_device())
    samples = measure_layers(
        work.network,
        work,
        backward=work.phase == "backward",
        device=device,
        clock=host_clock,
        limit_s=limit_s,
    )
    # The lower quartile: a floor must not hold what disturbed a pass now and then.
    return {
        name: quantile(sorted(samples.layers[path]), 0.25)
        for path, name in work.kinds()
        if path in samples.layers
    }


def _tiny(place: torch.device, kind: torch.dtype, device: Device) -> float:
    """Seconds per call of an operator that has next to nothing to do, calls in a row."""
    x = torch.randn(8, device=place).to(kind)

    def calls() -> None:
        for _ in range(TINY_CALLS):
            torch.relu(x)

    times = sorted(_seconds(calls, device) for _ in range(9))
    return times[len(times) // 2] / TINY_CALLS


def _best(run: Callable[[], Any], device: Device, limit_s: float, budget: _Budget) -> float:
    """Seconds of the fastest pass, of as many as there is time for."""
    begin = host_clock()
    best = _seconds(run, device)
    passes = 0
    while not budget.is_over and (
        passes < FEWEST or (passes < MOST and host_clock() - begin < limit_s)
    ):
        best = min(best, _seconds(run, device))
        passes += 1
    return best


def _seconds(run: Callable[[], Any], device: Device) -> float:
    device.synchronize()
    begin = host_clock()
    run()
    device.synchronize()
    return host_clock() - begin
