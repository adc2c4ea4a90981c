"""Operators on fake tensors whose results are written down instead of worked out.

Torch finds the shapes of a batch norm, an upsampling or an activation by taking them apart into
a dozen operators, each of which it runs on fake tensors: more than half of the time of tracing a
segmenter. What comes out is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor


def known_result(function: Any, args: Sequence[Any]) -> Any:
    """What an operator gives for fake tensors in fp32; None where it is to be run.

    Args:
        function: As a dispatch mode gets it.
        args: Those by position.
    """
    known = _KNOWN.get(function)
    if known is None or len(args) < known.reads:
        return None
    tensors = [each for each in args if isinstance(each, Tensor)]
    # Of other precisions and devices statistics are others. Weights, which are no maps, may hold
    # data; a vector that is worked on may, too.
    if any(each.dtype != torch.float32 or each.device.type != "cpu" for each in tensors):
        return None
    maps = [each for each in tensors if each.dim() > 1]
    if not any(args[0] is each for each in maps):
        return None
    if not all(_without_data(each) for each in maps) or not _alike(maps):
        return None
    return known.result(*args)


def _without_data(tensor: Tensor) -> bool:
    """Whether it is fake, and not what the network's code wrote out, of which torch keeps track."""
    return isinstance(tensor, FakeTensor) and tensor.constant is None


def _alike(maps: Sequence[Tensor]) -> bool:
    """Whether all are laid out in one of the usual ways, so that what comes out is, too."""
    if all(each.is_contiguous() for each in maps):
        return True
    return all(
        each.dim() == 4 and each.is_contiguous(memory_format=torch.channels_last) for each in maps
    )


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    kept = x.shape[1] if training else 0
    return torch.empty_like(x), x.new_empty(kept), x.new_empty(kept)


def _batch_norm_backward(
    gradient: Tensor, x: Tensor, *rest: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    _, of_weight, of_bias = rest[-1]  # which are asked for; that of x is there in any case
    return (
        torch.empty_like(x),
        x.new_empty(x.shape[1]) if of_weight else None,
        x.new_empty(x.shape[1]) if of_bias else None,
    )


def _in_place(x: Tensor, *_: Any) -> Tensor:
    return x


def _of_both(gradient: Tensor, x: Tensor, *_: Any) -> Tensor | None:
    return torch.empty_like(x) if gradient.shape == x.shape else None


def _upsampling(x: Tensor, size: Sequence[int], *_: Any) -> Tensor | None:
    if x.dim() != 4 or len(size) != 2 or min(*x.shape, *size) < 1:
        return None  # torch says what is wrong
    if x.shape[1] == 1 or prod(size) == 1:
        return None  # both layouts at once
    return torch.empty((*x.shape[:2], *size), memory_format=suggest_memory_format(x))


class _Known(NamedTuple):
    """A result, and how many arguments by position it is made from."""

    reads: int
    result: Callable[..., Any]


_KNOWN: Mapping[Any, _Known] = {
    torch.ops.aten.native_batch_norm.default: _Known(8, _batch_norm),
    torch.ops.aten.native_batch_norm_backward.default: _Known(10, _batch_norm_backward),
    torch.ops.aten.relu_.default: _Known(1, _in_place),
    torch.ops.aten.leaky_relu_.default: _Known(1, _in_place),
    torch.ops.aten.threshold_backward.default: _Known(2, _of_both),
    torch.ops.aten.leaky_relu_backward.default: _Known(2, _of_both),
    torch.ops.aten.upsample_bilinear2d.default: _Known(2, _upsampling),
}
