"""Gradients of convolutions' weights as products of matrices.

oneDNN computes them from channels-last maps at about half of the rate of its other
passes where a processor has AVX2 and no AVX-512. The product of the outputs' gradient
with a matrix of all windows of the input is the same sum; two cores of a Zen 3 take
0.6 to 0.8 of the time for it, windows written out and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

ROOM_BYTES = 2 << 20
"""Of windows written out at a time: few enough to stay in the cache."""

FEWEST = 32
"""Output channels below which writing windows out takes longer than it saves: each number that
is written is then used that often.
"""

SHORTEST = 16
"""Numbers in a row of a window, channels times width, below which copying it is slow."""

_wanted: ContextVar[bool] = ContextVar("weights_gradients_wanted", default=True)


def pay_off(device: str) -> bool:
    """Whether products are faster than the library's own way there."""
    return device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


@contextmanager
def no_weights() -> Iterator[None]:
    """For backward passes of this thread that ask for the gradient of the input alone.

    torch tells its own functions which gradients are asked for, but not ours: without this
    they would be computed, and thrown away.
    """
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


Task = Callable[[], None]


def do_at_once(task: Task) -> None:
    """Puts nothing off."""
    task()


class ProductGradients(TorchFunctionMode):
    """A context: convolutions called in it get their weights' gradients from products.

    Those that are grouped, dilated, 1x1, of few outputs (`FEWEST`) or narrow windows
    (`SHORTEST`), or whose weight does not lie in channels-last order stay as they are.
    Gradients are added to the weights' own, as `Tensor.backward` does, whichever are asked
    for: `torch.autograd.grad` finds none of these weights' and adds them nevertheless
    (`no_weights` keeps it from that).

    Args:
        put_off: Takes the work of each weight's gradient, which nothing in a backward pass
            waits for; by default it is done there and then.
    """

    def __init__(self, put_off: Callable[[Task], None] = do_at_once) -> None:
        super().__init__()
        self._put_off = put_off

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is not torch.conv2d:
            return func(*args, **named)
        if "input" in named:
            args = (named.pop("input"),)
        return _convolved(self._put_off, *args, **named)


Pair = tuple[int, int]


def _pair(value: int | Sequence[int]) -> Pair:
    """One number for both directions, or one for each, as torch takes them."""
    values = (value,) if isinstance(value, int) else value
    return values[0], values[-1]


def _convolved(
    put_off: Callable[[Task], None],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv2d``, by whichever way to its weight's gradient."""
    ours = (
        torch.is_grad_enabled()
        and weight.requires_grad
        and weight.is_leaf
        and groups == 1
        and _pair(dilation) == (1, 1)
        and weight.shape[0] >= FEWEST
        and max(weight.shape[2:]) > 1
        and weight.shape[1] * weight.shape[3] >= SHORTEST
        and weight.is_contiguous(memory_format=torch.channels_last)
        and x.dim() == 4
        and len(x) > 0
    )
    if isinstance(padding, str) or not ours:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    # As the library does inside, where nobody could use it again.
    x = x.contiguous(memory_format=torch.channels_last)
    # oneDNN computes the gradients of weight and bias together: both must be out of its sight.
    fixed = None if bias is None else bias.detach()
    output = torch.conv2d(x, weight.detach(), fixed, stride, padding)
    parameters = (weight,) if bias is None else (weight, bias)
    convolution = _Convolution(parameters, _pair(stride), _pair(padding), put_off)
    learning: Tensor = _ParametersLearn.apply(output, x.detach(), convolution, *parameters)
    return learning


@dataclass(frozen=True, slots=True)
class _Convolution:
    """What is known of a convolution in its forward pass."""

    parameters: tuple[Tensor, ...]
    stride: Pair
    padding: Pair
    put_off: Callable[[Task], None]

    def learn(self, x: Tensor, gradient: Tensor) -> None:
        """Adds the gradients of weight and bias to those they have.

        Args:
            x: The input.
            gradient: Of the output.
        """
        weight, *bias = self.parameters
        kernel = _pair(weight.shape[2:])
        _add(weight, weight_gradient(x, gradient, kernel, self.stride, self.padding))
        for each in bias:
            if each.requires_grad:
                _add(each, gradient.sum((0, 2, 3)))


_adding = Lock()


def _add(parameter: Tensor, gradient: Tensor) -> None:
    """Adds to a gradient that another thread may be adding to."""
    with _adding:
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad += gradient


class _ParametersLearn(torch.autograd.Function):
    """A convolution's output as it is; on the way back, its parameters learn.

    They are arguments so that the output depends on them, which it need not on its input.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, x: Tensor, convolution: _Convolution, *parameters: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.convolution = convolution
        ctx.mark_dirty(output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        convolution: _Convolution = ctx.convolution
        if _wanted.get():
            (x,) = ctx.saved_tensors
            convolution.put_off(partial(convolution.learn, x, gradient))
        return gradient, None, None, *(None for _ in convolution.parameters)


def weight_gradient(
    x: Tensor, gradient: Tensor, kernel: Pair, stride: Pair, padding: Pair
) -> Tensor:
    """The gradient of a convolution's weight.

    Args:
        x: The input, (N, C, H, W) in channels-last order.
        gradient: Of the output, (N, O, H', W').
        kernel: Height and width of the weight.
        stride: Down and to the right.
        padding: At the top and bottom, and at the sides.

    Returns:
        (O, C, *kernel), in channels-last order.
    """
    images, channels, height, width = x.shape
    high, wide = kernel
    maps = x.permute(0, 2, 3, 1)
    if any(padding):
        top, left = padding
        padded = x.new_zeros(images, height + 2 * top, width + 2 * left, channels)
        padded[:, top : top + height, left : left + width] = maps
        maps = padded
    outputs, rows, columns = gradient.shape[1:]
    # A window's row is one piece of memory: its pixels' channels follow each other.
    by_image, by_row, by_column, _ = maps.stride()
    windows = maps.as_strided(
        (images, rows, columns, high, wide * channels),
        (by_image, stride[0] * by_row, stride[1] * by_column, by_row, 1),
    )
    gradients = gradient.permute(0, 2, 3, 1)
    total = x.new_empty(outputs, high * wide * channels)
    positions = ROOM_BYTES // (total.shape[1] * total.element_size())
    many = min(images, max(1, positions // (rows * columns)))
    few = min(rows, max(1, positions // columns))
    room = x.new_empty(many * few * columns, total.shape[1])
    of_before = 0.0
    for image in range(0, images, many):
        for row in range(0, rows, few):
            here = slice(image, image + many), slice(row, row + few)
            rights = gradients[here].reshape(-1, outputs)
            written = room[: len(rights)]
            written.view(windows[here].shape).copy_(windows[here])
            total.addmm_(rights.T, written, beta=of_before)
            of_before = 1.0
    return total.view(outputs, high, wide, channels).permute(0, 3, 1, 2)
