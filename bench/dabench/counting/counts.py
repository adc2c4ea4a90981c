"""Counts the operations of a network: forward and backward, per layer and in total."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from dabench.base.errors import DabenchError, clean_line
from dabench.counting.counted import LayerCount, ModelCount
from dabench.counting.forms import form_of
from dabench.counting.operators import (
    BACKWARD,
    FORWARD,
    OperatorCounts,
    Trace,
    trace_operators,
)
from dabench.network.build import build_network, notes_of, settle
from dabench.network.tensors import input_dtype
from dabench.plan.cases import input_shape
from dabench.plan.networks import spec_of
from dabench.plan.settings import Grid
from dabench_models import ModelSpec


def count_model(
    name: str,
    *,
    batch: int = 1,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    mode: str = "eval",
    also: Sequence[int] = (),
) -> ModelCount:
    """Counts a network at an input size (its default if None), in this process.

    Args:
        name: Of the registry, or a reference.
        batch: Images.
        height: Of the input.
        width: Of the input.
        channels: Of the input.
        mode: ``eval`` or ``train``.
        also: Other batches that are to follow from the counts, if ``linear`` says so.

    Raises:
        UsageError: Unknown model or mode, a batch that is not positive, or a
            size the network cannot take.
        DabenchError: The network could not be run at that size.
    """
    spec = spec_of(name)
    size = (
        *(() if channels is None else (channels,)),
        spec.height if height is None else height,
        spec.width if width is None else width,
    )
    Grid(models=(name,), batches=(batch,), sizes=(size,), modes=(mode,))  # checks each value
    shape = input_shape(spec, size)
    try:
        network = build_network(spec.name)
    except (RuntimeError, MemoryError) as error:
        first = clean_line(str(error)) or type(error).__name__
        raise DabenchError(f"{spec.name} cannot be built: {first}") from error
    try:
        count = count_network(network, spec, batch=batch, shape=shape, mode=mode, also=also)
        notes = filter(None, (notes_of(network), count.note))
        return replace(count, note="; ".join(notes))
    except (RuntimeError, MemoryError) as error:
        first = clean_line(str(error)) or type(error).__name__
        raise DabenchError(
            f"{spec.name} cannot be counted at {shape[1]}x{shape[2]}: {first}"
        ) from error


def count_network(
    network: nn.Module,
    spec: ModelSpec,
    *,
    batch: int,
    shape: tuple[int, int, int],
    mode: str,
    also: Sequence[int] = (),
) -> ModelCount:
    """Counts a network that is already built; see `count_model`.

    Batches of 2 and 4 images are traced, and the batch asked for and those of ``also`` (of a
    network that must be run on data small ones only). If the
    multiply-adds of every layer are a constant (products of weights alone) plus a part in
    proportion to the batch, the counts of any batch follow exactly. If not (products between
    images of a batch, or a network that takes one image only), those of the batch asked for
    are used.
    """
    network.train(mode == "train")
    settle(network, lambda: torch.randn(_SMALLER, *shape).to(input_dtype(network)))

    def trace(images: int) -> Trace:
        return trace_operators(network, (images, *shape), backward=mode == "train")

    first, second, growth = _traced(network, trace, batch, also)
    one, two = _layers(network, first), _layers(network, second)
    layers = {path: growth.layer(one[path], two[path]) for path in one}
    totals = {name: _total(layers, name) for name in (*_MACS, "activations", "bytes_moved")}
    fixed = {name: growth.fixed(_total(one, name), _total(two, name)) for name in _MACS}
    ends, parameters = (
        growth(getattr(first, name), getattr(second, name))
        for name in ("end_elements", "parameters")
    )
    operators = growth.each(_by_operator(first), _by_operator(second))
    return ModelCount(
        model=spec.name,
        batch=batch,
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        mode=mode,
        params=sum(p.numel() for p in network.parameters() if p.requires_grad),
        **totals,
        min_bytes=4 * (ends + parameters),
        by_operator={name: macs for name, macs in operators.items() if macs},
        uncounted=first.uncounted,
        layers=tuple(layers.values()),
        without=first.without,
        dropped_macs=growth(*(_sum(each, FORWARD, "for_nothing") for each in (first, second))),
        fixed={name: value for name, value in fixed.items() if value},
        linear=growth.linear,
        note=first.note,
        graph=first.graph,
    )


# Batch norm in training mode refuses a single 1x1 map, and torch has kernels of its own for one.
_SMALLER = 2
_MACS = ("macs", "executed_macs", "backward_macs", "executed_backward_macs")
_GROWING = (*_MACS, "activations", "bytes_moved", "backward_bytes_moved")


def _total(layers: Mapping[str, LayerCount], name: str) -> int:
    return sum(getattr(layer, name) for layer in layers.values())


def _traced(
    network: nn.Module, trace: Callable[[int], Trace], batch: int, also: Sequence[int]
) -> tuple[Trace, Trace, _Growth]:
    """Two traces, and how a batch's counts follow from theirs."""
    traces: dict[int, Trace] = {}
    # At least three: through two any line goes.
    for images in dict.fromkeys((_SMALLER, 2 * _SMALLER, batch, *also, 3 * _SMALLER)):
        if images == 3 * _SMALLER and len(traces) > 2 and images not in (batch, *also):
            continue
        # With data a batch takes the memory and the time of a real one.
        if images > 3 * _SMALLER and any(each.on_data for each in traces.values()):
            continue
        # Of a batch that a network does not take nothing can be said.
        with suppress(Exception):
            traces[images] = trace(images)
    if {_SMALLER, 2 * _SMALLER} <= traces.keys() and len(traces) > 2:
        growth = _Growth(_SMALLER, batch)
        layers = {images: _layers(network, each) for images, each in traces.items()}
        if all(_follows(layers, images) for images in traces):
            return traces[_SMALLER], traces[2 * _SMALLER], growth
    only = traces[batch] if batch in traces else trace(batch)
    return only, only, _Same()


def _follows(layers: Mapping[int, Mapping[str, LayerCount]], images: int) -> bool:
    """Whether the multiply-adds of a batch follow from those of the two smallest."""
    one, two, found = (layers[each] for each in (_SMALLER, 2 * _SMALLER, images))
    growth = _Growth(_SMALLER, images)
    return one.keys() == two.keys() == found.keys() and all(
        growth(getattr(one[path], name), getattr(two[path], name)) == getattr(found[path], name)
        for path in one
        for name in _MACS
    )


class _Growth:
    """Counts of a batch from those of one batch and of another twice as large."""

    linear = True

    def __init__(self, smaller: int, batch: int) -> None:
        self._scale = Fraction(batch, smaller)

    def fixed(self, one: int, two: int) -> int:
        """What does not grow with the batch."""
        return 2 * one - two

    def __call__(self, one: int, two: int) -> int:
        return int(self.fixed(one, two) + (two - one) * self._scale)

    def each(self, one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, int]:
        """Named counts; a name that one of the two lacks is 0 there."""
        return {name: self(one.get(name, 0), two.get(name, 0)) for name in {**one, **two}}

    def layer(self, one: LayerCount, two: LayerCount) -> LayerCount:
        """A layer at the batch."""
        grown: dict[str, Any] = {n: self(getattr(one, n), getattr(two, n)) for n in _GROWING}
        return replace(one, **grown)


class _Same(_Growth):
    """Counts of the very batch that was traced."""

    linear = False

    def __init__(self) -> None:
        super().__init__(1, 1)

    def fixed(self, one: int, two: int) -> int:
        return 0

    def __call__(self, one: int, two: int) -> int:
        return one


def _layers(network: nn.Module, trace: Trace) -> dict[str, LayerCount]:
    """The layers of a traced pass, by path."""
    found = {}
    for path, module in network.named_modules():
        forward = trace.own.get((FORWARD, path), {})
        backward = trace.own.get((BACKWARD, path), {})
        if forward or backward:
            found[path] = _layer(path, module, forward, backward, trace.shapes.get(path, ()))
    return found


def _layer(
    path: str,
    module: nn.Module,
    forward: Mapping[str, OperatorCounts],
    backward: Mapping[str, OperatorCounts],
    shape: tuple[int, ...],
) -> LayerCount:
    leaf = next(module.children(), None) is None
    algorithmic: Fraction = getattr(module, "algorithmic_fraction", Fraction(1))

    def macs(operators: Mapping[str, OperatorCounts]) -> tuple[int, int]:
        executed = sum(counts.macs for counts in operators.values())
        wasted = sum(counts.for_nothing for counts in operators.values())
        return int((executed - wasted) * algorithmic), executed

    return LayerCount(
        layer=path if leaf else f"{path} (functional)".lstrip(),
        kind=type(module).__name__,
        shape="x".join(map(str, shape[1:])) if leaf else "",
        params=sum(p.numel() for p in module.parameters(recurse=False) if p.requires_grad),
        macs=macs(forward)[0],
        executed_macs=macs(forward)[1],
        backward_macs=macs(backward)[0],
        executed_backward_macs=macs(backward)[1],
        activations=sum(counts.activations for counts in forward.values()),
        bytes_moved=4 * sum(counts.moved for counts in forward.values()),
        operators=sum(counts.calls for counts in forward.values()),
        backward_bytes_moved=4 * sum(counts.moved for counts in backward.values()),
        form=form_of(module),
        uncounted=sum(c.uncounted for each in (forward, backward) for c in each.values()),
    )


def _by_operator(trace: Trace) -> dict[str, int]:
    """Executed multiply-adds of the forward per operator."""
    found: dict[str, int] = {}
    for (phase, _), operators in trace.own.items():
        if phase == FORWARD:
            for name, counts in operators.items():
                found[name] = found.get(name, 0) + counts.macs
    return found


def _sum(trace: Trace, wanted: str, name: str) -> int:
    return sum(
        getattr(counts, name)
        for (phase, _), operators in trace.own.items()
        if phase == wanted
        for counts in operators.values()
    )
