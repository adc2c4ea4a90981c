"""What counting a network gives: its totals and its layers. No torch.

1 MAC (multiply-add) is 2 FLOPs. *Executed* operations are those the kernels
carry out; *algorithmic* ones are those the result needs. They differ for
diagonalwise layers, which multiply by the zeros of their mask, for heads that
are computed and dropped, and for layers that are computed again in the backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

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
        operators: Operators it calls in the forward; views are none.
        backward_bytes_moved: What the backward's operators read (the gradient of
            the output, what was saved, weights) and write (gradients), in fp32; 0
            in eval.
        uncounted: Calls in either phase that may do arithmetic nobody counted.
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
    uncounted: int = 0


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
        uncounted: Calls per operator whose arithmetic is not in any count: totals
            are then lower bounds.
        without: Calls per operator that is known to have no multiply-adds.
        dropped_macs: Multiply-adds of the forward whose results nobody gets.
        fixed: Field -> what of it does not grow with the batch.
        linear: Whether the rest grows in proportion to the batch; else the counts
            hold for this batch alone.
        note: What a reader must know of how it was counted.
        graph: A digest of the forward's operators (`dabench.counting.operators.Trace`); counts of
            two runs with the same are of the same network, whatever its weights. Empty where
            that is not known.
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
    # Records made before these were counted lack them.
    without: Mapping[str, int] = field(default_factory=dict)
    dropped_macs: int = 0
    fixed: Mapping[str, int] = field(default_factory=dict)
    linear: bool = True
    note: str = ""
    graph: str = ""

    @property
    def at_least(self) -> bool:
        """Whether an operator in it may do arithmetic that nobody counted."""
        return bool(self.uncounted)

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
        known = {each.name: document[each.name] for each in fields(cls) if each.name in document}
        return cls(**{**known, "layers": layers})
