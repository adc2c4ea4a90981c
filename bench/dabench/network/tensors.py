"""Finds the tensors in a network's output: a tensor, tuple, list, dict or dataclass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in nested outputs, in order; anything else is passed over."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from tensors(tuple(values.values()))
    elif is_dataclass(values) and not isinstance(values, type):
        yield from tensors(tuple(getattr(values, each.name) for each in fields(values)))
    # No other iterables: a generator would be used up before its owner sees it.
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)


def outputs(values: Any) -> list[Tensor]:
    """All tensors a network put out, the main one first.

    Raises:
        TypeError: There is none.
    """
    found = list(tensors(values))
    if not found:
        raise TypeError(f"the network put out no tensor but a {type(values).__name__}")
    return found


def input_dtype(network: nn.Module) -> torch.dtype:
    """The dtype of inputs that a network takes: that of its first real weights, else fp32."""
    for values in (network.parameters(), network.buffers()):
        for value in values:
            if value.is_floating_point():
                return value.dtype
    return torch.float32


class FlatOutputs(nn.Module):
    """A network with its outputs as a plain tuple, as tracers and exporters need them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(outputs(self.network(x)))
