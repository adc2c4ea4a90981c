"""Networks put out tensors, or tuples, lists and dicts of them: one way to go through all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings, in order; anything else is passed over."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from tensors(tuple(values.values()))
    # No other iterables: a generator would be used up before its owner sees it.
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)


def main_output(values: Any) -> Tensor:
    """The first tensor a network put out.

    Raises:
        TypeError: There is none.
    """
    first = next(tensors(values), None)
    if first is None:
        raise TypeError(f"the network put out no tensor but a {type(values).__name__}")
    return first
