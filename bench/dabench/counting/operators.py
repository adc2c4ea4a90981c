"""Operations, activations and moved elements per operator, by fvcore's trace.

Everything that knows fvcore (which traces with torch.jit, which torch is
retiring) is in this module; the rest sees `OperatorCounts`.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from dabench.network.tensors import FlatOutputs, tensors

with warnings.catch_warnings():
    # torch.jit announces its retirement on import and at every trace.
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_analysis import JitModelAnalysis
    from fvcore.nn.jit_handles import get_shape

Handle = Callable[[list[Any], list[Any]], Any]

# Operators with weights: which inputs those are.
_WEIGHTED = {
    "aten::_convolution": (1, 2),
    "aten::linear": (1, 2),
    "aten::addmm": (0, 2),
    "aten::batch_norm": (1, 2, 3, 4),
}

# Operators whose arithmetic is not multiply-adds: only their traffic is known.
_TRAFFIC_ONLY = (
    "relu", "relu_", "leaky_relu", "leaky_relu_", "sigmoid", "add", "add_", "mul", "mul_", "pow",
    "cat", "max_pool2d", "hardtanh", "hardtanh_", "silu", "gelu", "softmax",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OperatorCounts:
    """What one operator, over all its calls in one module, amounts to.

    Attributes:
        calls: How often it is called.
        macs: Multiply-adds executed.
        activations: Elements that convolutions and matrix products put out
            (the definition of RegNet and fvcore).
        read: Elements read, each input once, weights apart.
        written: Elements written.
        weights: Elements of weights and buffers read.
    """

    calls: int = 0
    macs: int = 0
    activations: int = 0
    read: int = 0
    written: int = 0
    weights: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced forward pass.

    Attributes:
        own: Module path -> operator -> counts, of the calls the module itself
            makes, its children's left out.
        uncounted: Operator -> calls whose multiply-adds nobody counted.
        shapes: Module path -> output shape (N, ...), where that is a tensor.
        first: Paths of modules that see the network's own input, which needs
            no gradient in training.
        output_elements: Of all heads together.
    """

    own: Mapping[str, Mapping[str, OperatorCounts]]
    uncounted: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    first: frozenset[str]
    output_elements: int


def trace_operators(network: nn.Module, x: Tensor) -> Trace:
    """Runs the network once and counts what its operators do.

    fvcore's counts, with pooling added: an average over k x k costs k * k per
    output, as bilinear upsampling costs 4.

    Args:
        network: In the mode whose graph is wanted.
        x: An input, (N, C, H, W).

    Raises:
        TypeError: It puts out no tensor: nothing would be traced.
    """
    wrapped = FlatOutputs(network)
    watch = _Watch(network)
    analysis = JitModelAnalysis(wrapped, (x,))
    analysis.set_op_handle(**_handles(wrapped, x))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        inclusive = analysis.by_module_and_operator()
        unsupported = Counter(analysis.unsupported_ops())
    watch.remove()
    own = {}
    for path in inclusive:
        name = path.removeprefix("network").removeprefix(".")
        if path:
            own[name] = _split(_own_counts(path, inclusive))
    for operator in _TRAFFIC_ONLY:
        unsupported[f"aten::{operator}"] = int(inclusive[""].get(f"{operator}/calls", 0))
    return Trace(
        own=own,
        uncounted={name.removeprefix("aten::"): n for name, n in unsupported.items() if n},
        shapes=watch.shapes,
        first=frozenset(watch.first),
        output_elements=watch.output_elements,
    )


class _Watch:
    """Hooks that note shapes, and who sees the network's input, during the trace."""

    def __init__(self, network: nn.Module) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.first: set[str] = set()
        self.output_elements = 0
        self._input = 0
        self._handles = []
        for path, module in network.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._before(path)))
            self._handles.append(module.register_forward_hook(self._after(path)))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, path: str) -> Callable[[nn.Module, Any], None]:
        def hook(_module: nn.Module, inputs: Any) -> None:
            if path == "":
                self._input = inputs[0].data_ptr()
            if any(isinstance(x, Tensor) and x.data_ptr() == self._input for x in inputs):
                self.first.add(path)

        return hook

    def _after(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.shapes[path] = tuple(int(side) for side in output.shape)
            if path == "":
                self.output_elements = sum(int(head.numel()) for head in tensors(output))

        return hook


def _handles(network: nn.Module, x: Tensor) -> dict[str, Handle]:
    macs: dict[str, Handle] = dict(FlopCountAnalysis(network, (x,))._op_handles)
    macs["aten::avg_pool2d"] = _pooling_macs
    macs["aten::mean"] = macs["aten::adaptive_avg_pool2d"]
    macs.update({f"aten::{name}": _no_macs for name in _TRAFFIC_ONLY})
    return {name: _counting(name, handle) for name, handle in macs.items() if handle is not None}


def _counting(name: str, macs: Handle) -> Handle:
    """Wraps a handler of multiply-adds into one that counts the traffic too."""
    operator = name.removeprefix("aten::").removeprefix("_")
    weighted = _WEIGHTED.get(name, ())

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        value = macs(inputs, outputs)
        count = sum(value.values()) if isinstance(value, Counter) else int(value)
        written = sum(_elements(o) for o in outputs[:1])
        produces = name in ("aten::_convolution", "aten::linear", "aten::addmm", "aten::matmul")
        return Counter(
            {
                f"{operator}/calls": 1,
                f"{operator}/macs": count,
                f"{operator}/activations": written if produces else 0,
                f"{operator}/read": sum(
                    _elements(v) for i, v in enumerate(inputs) if i not in weighted
                ),
                f"{operator}/written": written,
                f"{operator}/weights": sum(_elements(inputs[i]) for i in weighted),
            }
        )

    return handle


def _elements(value: Any) -> int:
    """Elements of a traced tensor, or of a traced list of tensors; 0 for scalars."""
    if str(value.type()) == "Tensor[]":
        return sum(_elements(item) for item in value.node().inputs())
    shape = get_shape(value)
    return 0 if shape is None else prod(int(side) for side in shape)


def _no_macs(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _pooling_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Average pooling: one addition per element under the kernel."""
    kernel = [side.toIValue() for side in inputs[1].node().inputs()]
    return int(prod(kernel)) * int(prod(get_shape(outputs[0])))


def _own_counts(path: str, inclusive: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    """What a module does itself: its counts less those of its children."""
    counts = Counter(inclusive[path])
    for other, theirs in inclusive.items():
        if other.startswith(f"{path}.") and "." not in other[len(path) + 1 :]:
            counts.subtract(theirs)
    return counts


def _split(counts: Counter[str]) -> dict[str, OperatorCounts]:
    by_operator: dict[str, dict[str, int]] = {}
    for key, value in counts.items():
        operator, _, quantity = key.partition("/")
        by_operator.setdefault(operator, {})[quantity] = int(value)
    return {
        operator: OperatorCounts(**found)
        for operator, found in by_operator.items()
        if found["calls"]
    }
