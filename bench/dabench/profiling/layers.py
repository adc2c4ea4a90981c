"""Where a pass's time goes: seconds per layer of the forward and the backward, by hooks.

A layer is a module without children, or what a larger one computes itself
(``PATH (functional)``): the names are those of `dabench.counting.counted.LayerCount`. The
forward is timed around each module's call, the backward around each node of
the autograd graph, which belongs to the module whose call made it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn
from torch.autograd.graph import Node

from dabench.network.calls import claim
from dabench.timing.clock import Clock
from dabench.timing.engine import DeviceTimer, TimedDevice, garbage_collection_off

FEWEST_PASSES, MOST_PASSES = 3, 50
WARMUP_PASSES = 2
LOSS = "(loss)"


class LayeredWork(Protocol):
    """A pass of `dabench.network.workload.Workload`; what it last put out is at hand."""

    output: Any

    def prepare(self) -> None: ...

    def run(self) -> None: ...

    def release(self) -> None: ...


@dataclass(slots=True)
class LayerSamples:
    """One phase of one launch, in seconds.

    Attributes:
        bare: Whole passes without hooks.
        hooked: Whole passes with them, taken in turn with the bare ones.
        layers: Layer -> seconds it took in each hooked pass.
    """

    bare: list[float] = field(default_factory=list)
    hooked: list[float] = field(default_factory=list)
    layers: dict[str, list[float]] = field(default_factory=dict)


class HostTimer:
    """A pair of marks on the host's clock, for devices that do not queue work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin = self._end = 0.0

    def start(self) -> None:
        self._begin = self._clock()

    def stop(self) -> None:
        self._end = self._clock()

    def elapsed_s(self) -> float:
        return self._end - self._begin


class LayerTimes:
    """Adds up the seconds of the layers of a network.

    Args:
        network: Hooks are put on its modules while one of the contexts lasts.
        device: Where it runs.
        clock: The host's.
    """

    def __init__(self, network: nn.Module, device: TimedDevice, clock: Clock) -> None:
        self._modules = dict(network.named_modules())
        self._device = device
        self._clock = clock
        self._spans: list[tuple[str, str | None, DeviceTimer]] = []

    @contextmanager
    def of_modules(self) -> Iterator[None]:
        """Times every module's call."""
        stack: list[tuple[str, DeviceTimer]] = []

        def before(path: str, *_arguments: Any) -> None:
            timer = self._timer()
            stack.append((path, timer))
            timer.start()

        def after(path: str, *_arguments: Any) -> None:
            timer = stack.pop()[1]
            timer.stop()
            self._spans.append((path, stack[-1][0] if stack else None, timer))

        with self._hooks(before, after):
            yield

    @contextmanager
    def owners(self) -> Iterator[dict[Node, str]]:
        """Notes which module's call made each node of the graph that is recorded."""
        owners: dict[Node, str] = {}
        stack: list[str] = []

        def before(path: str, _module: nn.Module, args: Any, kwargs: Any) -> None:
            if stack:
                # What was made up to here is the caller's own work.
                claim((args, kwargs), stack[-1], owners)
            stack.append(path)

        def after(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            stack.pop()
            claim(output, path, owners)

        with self._hooks(before, after):
            yield owners

    def time_nodes(self, loss: Tensor, owners: dict[Node, str]) -> None:
        """Times every node of the backward from a loss; nodes of no module are the loss's."""
        claim(loss, LOSS, owners)
        for node, path in owners.items():
            timer = self._timer()
            node.register_prehook(partial(_start, timer))
            node.register_hook(partial(self._stop, path, timer))

    def take(self) -> dict[str, float]:
        """Seconds per layer since the last call; the device must be idle."""
        own: dict[str, float] = defaultdict(float)
        for path, caller, timer in self._spans:
            seconds = timer.elapsed_s()
            own[self._name(path)] += seconds
            if caller is not None:
                own[self._name(caller)] -= seconds
        self._spans.clear()
        return dict(own)

    def _stop(self, path: str, timer: DeviceTimer, *_: Any) -> None:
        timer.stop()
        self._spans.append((path, None, timer))

    def _timer(self) -> DeviceTimer:
        return self._device.timer() or HostTimer(self._clock)

    def _name(self, path: str) -> str:
        module = self._modules.get(path)
        if module is None or next(module.children(), None) is None:
            return path
        return f"{path} (functional)".lstrip()

    @contextmanager
    def _hooks(self, before: Callable[..., None], after: Callable[..., None]) -> Iterator[None]:
        handles = []
        for path, module in self._modules.items():
            handles.append(
                module.register_forward_pre_hook(partial(before, path), with_kwargs=True)
            )
            handles.append(module.register_forward_hook(partial(after, path)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _start(timer: DeviceTimer, *_: Any) -> None:
    timer.start()


def measure_layers(
    network: nn.Module,
    work: LayeredWork,
    *,
    backward: bool,
    device: TimedDevice,
    clock: Clock,
    limit_s: float,
) -> LayerSamples:
    """Takes passes without and with hooks in turn, until the time is used up.

    Args:
        network: What the work runs.
        work: One pass.
        backward: Whether what is timed is the backward from the work's output.
        device: Where it runs.
        clock: The host's.
        limit_s: For all passes together; at least `FEWEST_PASSES` of each are taken.
    """
    samples = LayerSamples()
    times = LayerTimes(network, device, clock)
    with garbage_collection_off():
        begin = clock()
        for _ in range(WARMUP_PASSES):
            _pass(work, device, clock)
        passes = 0
        while passes < FEWEST_PASSES or (passes < MOST_PASSES and clock() - begin < limit_s):
            samples.bare.append(_pass(work, device, clock))
            hooked = _backward_pass if backward else _forward_pass
            samples.hooked.append(hooked(work, times, device, clock))
            for layer, seconds in times.take().items():
                samples.layers.setdefault(layer, []).append(seconds)
            passes += 1
    return samples


def _pass(work: LayeredWork, device: TimedDevice, clock: Clock) -> float:
    work.prepare()
    seconds = _timed(work, device, clock)
    work.release()
    return seconds


def _forward_pass(work: LayeredWork, times: LayerTimes, device: TimedDevice, clock: Clock) -> float:
    work.prepare()
    with times.of_modules():
        seconds = _timed(work, device, clock)
    work.release()
    return seconds


def _backward_pass(
    work: LayeredWork, times: LayerTimes, device: TimedDevice, clock: Clock
) -> float:
    with times.owners() as owners:
        work.prepare()
    times.time_nodes(work.output, owners)
    # Nodes keep what the forward saved: the hooks hold them long enough.
    owners.clear()
    seconds = _timed(work, device, clock)
    work.release()
    return seconds


def _timed(work: LayeredWork, device: TimedDevice, clock: Clock) -> float:
    device.synchronize()
    begin = clock()
    work.run()
    device.synchronize()
    return clock() - begin
