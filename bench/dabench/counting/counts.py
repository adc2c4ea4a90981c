"""Operation counts of a network: forward and backward, per layer and in total.

1 MAC (multiply-add) is 2 FLOPs. *Executed* operations are those the kernels
carry out; *algorithmic* ones are those the layer's definition needs. They
differ for diagonalwise layers, which multiply by the zeros of their mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dabench.base.errors import DabenchError
from dabench.counting.forms import form_of
from dabench.counting.operators import OperatorCounts, Trace, trace_operators
from dabench.network.build import build_network, settle
from dabench.plan.cases import input_shape
from dabench.plan.networks import spec_of
from dabench.plan.settings import Grid
from dabench_models import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

# Training batch norm per element: fvcore estimates the forward at 5. The
# backward sums dy and dy * x_hat (rebuilding x_hat) and combines them.
_NORM_BACKWARD = 5
# A sum hands its gradient on as it is.
_FREE_BACKWARD = ("add", "add_")
# Operators whose backward needs only shapes.
_SAVE_NOTHING = (
    "avg_pool2d", "adaptive_avg_pool2d", "mean", "cat", "upsample_nearest2d",
    "upsample_bilinear2d",
)  # fmt: skip
_CONVOLUTIONS = ("convolution", "linear", "addmm", "matmul")


_FLOPS = {
    "flops": "macs",
    "executed_flops": "executed_macs",
    "backward_flops": "backward_macs",
    "executed_backward_flops": "executed_backward_macs",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCount:
    """One layer: a module without children, or what a larger one computes itself.

    Attributes:
        layer: Module path; ``(functional)`` ends those of larger modules.
        kind: Class of the module.
        shape: Of the output, as ``CxHxW``; empty for functional rows.
        macs: Algorithmic multiply-adds of the forward.
        executed_macs: Those carried out.
        backward_macs: Algorithmic multiply-adds of the backward.
        executed_backward_macs: Those carried out.
        activations: Output elements of convolutions and matrix products.
        bytes_moved: Each operator's inputs, weights and outputs once.
        operators: Operators it calls in the forward.
        backward_bytes_moved: What the backward must read (the gradient of the
            output, what was saved, weights) and write (gradients), in fp32; 0 in
            eval.
        form: Of any kind of convolution, where libraries take different paths:
            ``convolution``, ``convolution 1x1`` or ``grouped convolution``.
    """

    layer: str
    kind: str
    shape: str
    params: int
    macs: int
    executed_macs: int
    backward_macs: int
    executed_backward_macs: int
    activations: int
    bytes_moved: int
    # Records made before these were counted lack them.
    operators: int = 0
    backward_bytes_moved: int = 0
    form: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCount:
    """A network's counts for one batch of one input size, in fp32.

    Attributes:
        mode: ``eval`` counts the graph of the main output, ``train`` that of
            all heads; backward counts are 0 in eval.
        params: Trainable parameters.
        min_bytes: Input, the parameters this graph uses and outputs once: no
            implementation of the forward can move less.
        bytes_moved: The sum over layers.
        by_operator: Executed forward multiply-adds per operator.
        uncounted: Calls per operator whose operations are not in any count.
    """

    model: str
    batch: int
    channels: int
    height: int
    width: int
    mode: str
    params: int
    macs: int
    executed_macs: int
    backward_macs: int
    executed_backward_macs: int
    activations: int
    min_bytes: int
    bytes_moved: int
    by_operator: Mapping[str, int]
    uncounted: Mapping[str, int]
    layers: tuple[LayerCount, ...]

    @property
    def flops(self) -> int:
        """Algorithmic FLOPs of the forward."""
        return 2 * self.macs

    def phase_macs(self, phase: str, *, executed: bool) -> int | None:
        """Multiply-adds of a phase; None for the optimiser, which has none to count."""
        forward = self.executed_macs if executed else self.macs
        backward = self.executed_backward_macs if executed else self.backward_macs
        return {"forward": forward, "backward": backward, "total": forward + backward}.get(phase)

    def to_dict(self) -> dict[str, Any]:
        """A JSON document, FLOPs beside MACs; `ModelCount.of` reads it back."""
        return {**asdict(self), **{name: 2 * getattr(self, macs) for name, macs in _FLOPS.items()}}

    def to_frame(self) -> pd.DataFrame:
        """The layers as a pandas frame, with the columns of `LayerCount`."""
        import pandas as pd

        return pd.DataFrame([asdict(layer) for layer in self.layers])

    @classmethod
    def of(cls, document: dict[str, Any]) -> ModelCount:
        """Reads what `to_dict` wrote."""
        layers = tuple(LayerCount(**layer) for layer in document["layers"])
        known = {field.name: document[field.name] for field in fields(cls)}
        return cls(**{**known, "layers": layers})


def count_model(
    name: str,
    *,
    batch: int = 1,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    mode: str = "eval",
) -> ModelCount:
    """Counts a network at an input size (its default if None), in this process.

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
        return count_network(build_network(spec.name), spec, batch=batch, shape=shape, mode=mode)
    except (RuntimeError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DabenchError(
            f"{spec.name} cannot be counted at {shape[1]}x{shape[2]}: {first}"
        ) from error


def count_network(
    network: nn.Module, spec: ModelSpec, *, batch: int, shape: tuple[int, int, int], mode: str
) -> ModelCount:
    """Counts a network that is already built; see `count_model`.

    The trace runs on the smallest batch the mode takes and is scaled, which is
    exact: every count here is proportional to the batch, weights apart.
    """
    network.train(mode == "train")
    # Batch norm in training mode refuses a single 1x1 map.
    traced_batch = 2 if mode == "train" else 1
    x = torch.randn(traced_batch, *shape)
    settle(network, x)
    trace = trace_operators(network, x)
    scale = Fraction(batch, traced_batch)
    layers = []
    operators: dict[str, int] = {}
    for path, module in network.named_modules():
        for operator, counts in trace.own.get(path, {}).items():
            operators[operator] = operators.get(operator, 0) + int(counts.macs * scale)
        layer = _layer(path, module, trace, scale, mode)
        if layer is not None:
            layers.append(layer)

    def total(field: str) -> int:
        return sum(getattr(layer, field) for layer in layers)

    ends = int((x.numel() + trace.output_elements) * scale)
    return ModelCount(
        model=spec.name,
        batch=batch,
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        mode=mode,
        params=sum(p.numel() for p in network.parameters() if p.requires_grad),
        macs=total("macs"),
        executed_macs=total("executed_macs"),
        backward_macs=total("backward_macs"),
        executed_backward_macs=total("executed_backward_macs"),
        activations=total("activations"),
        min_bytes=4 * (ends + total("params")),
        bytes_moved=total("bytes_moved"),
        by_operator={name: macs for name, macs in operators.items() if macs},
        uncounted=trace.uncounted,
        layers=tuple(layers),
    )


def _layer(
    path: str,
    module: nn.Module,
    trace: Trace,
    scale: Fraction,
    mode: str,
) -> LayerCount | None:
    own = trace.own.get(path, {})
    if not own:
        return None
    leaf = next(module.children(), None) is None
    algorithmic: Fraction = getattr(module, "algorithmic_fraction", Fraction(1))
    forward = sum(counts.macs for counts in own.values())
    backward = backward_elements = 0
    if mode == "train":
        needs = not leaf or path not in trace.first
        backward = sum(_backward_macs(op, counts, needs) for op, counts in own.items())
        backward_elements = sum(
            _backward_elements(op, counts, scale, needs) for op, counts in own.items()
        )
    return LayerCount(
        layer=path if leaf else f"{path} (functional)".lstrip(),
        kind=type(module).__name__,
        shape="x".join(map(str, trace.shapes.get(path, ())[1:])) if leaf else "",
        params=sum(p.numel() for p in module.parameters(recurse=False) if p.requires_grad),
        macs=int(forward * algorithmic * scale),
        executed_macs=int(forward * scale),
        backward_macs=int(backward * algorithmic * scale),
        executed_backward_macs=int(backward * scale),
        activations=int(sum(counts.activations for counts in own.values()) * scale),
        bytes_moved=4 * _elements_moved(own, scale, masked=algorithmic != 1),
        operators=sum(counts.calls for counts in own.values()),
        backward_bytes_moved=4 * backward_elements,
        form=form_of(module),
    )


def _backward_macs(operator: str, counts: OperatorCounts, needs_input_gradient: bool) -> int:
    """Multiply-adds of one operator's backward.

    A convolution or linear layer, grouped or not, costs its forward once for
    the weights and once more for the input if that needs a gradient. Pooling
    and upsampling scatter what they gathered.
    """
    if operator in _CONVOLUTIONS:
        return counts.macs * (2 if needs_input_gradient else 1)
    if operator == "batch_norm":
        return counts.written * _NORM_BACKWARD
    return counts.macs


def _backward_elements(
    operator: str, counts: OperatorCounts, scale: Fraction, needs_input_gradient: bool
) -> int:
    """Elements one operator's backward must read and write.

    It reads the gradient of the output and writes that of the input; what the
    forward saved (its input) and the weights are read, and gradients of weights
    written, where there are any.
    """
    if operator in _FREE_BACKWARD:
        return 0
    gradients = counts.written + (counts.read if needs_input_gradient else 0)
    saved = 0 if operator in _SAVE_NOTHING else counts.read
    return int((gradients + saved) * scale) + 2 * counts.weights


def _elements_moved(own: Mapping[str, OperatorCounts], scale: Fraction, *, masked: bool) -> int:
    moved = 0
    for operator, counts in own.items():
        activations = counts.read + counts.written
        # A masked layer's product is of weight and mask, whatever the batch.
        in_batch = not (masked and operator == "mul")
        moved += int(activations * scale) if in_batch else activations
        moved += counts.weights
    return moved
