"""A network with what trains it, and how the segmenter is passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dabench.data.inputs import network_input
from dabench.training.products import ProductGradients, Task, do_at_once, pay_off
from dabench_models.bisenet import BiSeNet, SegmenterOutput


@dataclass(kw_only=True, slots=True)
class Precision:
    """How a network computes in training: autocast over fp32 weights, or as it is.

    Attributes:
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        scaler: Scales losses of fp16 so that small gradients survive; off otherwise.
    """

    device: str
    dtype: str
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == "fp16")
        if self.scaler.is_enabled():
            # It is made ready by its first use, which may be that of two threads at once.
            self.scaler.scale(torch.zeros((), device=self.device))

    def passes(
        self, put_off: Callable[[Task], None] = do_at_once
    ) -> AbstractContextManager[object]:
        """The context of forward passes.

        Args:
            put_off: Takes work that a backward pass need not wait for (`ProductGradients`).

        Autocast without its cache of cast weights, which all threads of a process share:
        one that needs no gradients would hand its casts to one that does. A pass uses
        each weight once, so nothing is lost.
        """
        if self.dtype == "fp32" and pay_off(self.device):
            return ProductGradients(put_off)
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.dtype]
        return torch.autocast(self.device, kind, enabled=self.dtype != "fp32", cache_enabled=False)


@dataclass(slots=True)
class Learner:
    """A network with what trains it."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    clip: float | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that its optimiser changes."""
        return [each for group in self.optimizer.param_groups for each in group["params"]]

    def backward(self, loss: Tensor, inputs: Sequence[Tensor] | None = None) -> None:
        """Adds a loss's gradients, of all that it depends on or of some inputs only.

        (Weights with gradients from products, see `ProductGradients`, learn in any case.)
        """
        scaled: Tensor = self.precision.scaler.scale(loss)
        scaled.backward(inputs=inputs)

    def update(self) -> None:
        """One optimiser step from the gradients gathered; then they are gone."""
        scaler = self.precision.scaler
        if self.clip is not None:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def do_nothing() -> None:
    """Nothing."""


class Passes:
    """The segmenter as images of one domain pass it in training mode.

    Args:
        learner: The segmenter's.
        network: Its own network, or one that shares its weights.
        normalised: Whether images are normalised by ImageNet's statistics.
        upsampled: Whether all heads are brought to the size of the input, or left small.
        put_off: Takes work that a backward pass need not wait for.
        passed: Called after each pass.
    """

    def __init__(
        self,
        learner: Learner,
        network: BiSeNet,
        *,
        normalised: bool,
        upsampled: bool,
        put_off: Callable[[Task], None],
        passed: Callable[[], None] = do_nothing,
    ) -> None:
        self.learner, self.network = learner, network
        self._normalised, self._upsampled = normalised, upsampled
        self.put_off, self._passed = put_off, passed

    def input(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) of 0 to 255 as the network takes them."""
        return network_input(images, normalised=self._normalised)

    def all_heads(self, x: Tensor) -> SegmenterOutput:
        """Every head.

        Args:
            x: From `input`.
        """
        with self.learner.precision.passes(self.put_off):
            output = self.network.forward_heads(x, upsampled=self._upsampled)
        self._passed()
        return output

    def heads(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The logits of some heads, (N, C, H, W) in fp32; nothing else is computed.

        Args:
            x: From `input`.
            names: Of `BiSeNet.forward_some`.
        """
        with self.learner.precision.passes(self.put_off):
            found = self.network.forward_some(x, names)
        self._passed()
        return {name: logits.float() for name, logits in found.items()}

    def gradient(self, loss: Tensor, prediction: Tensor, *, again: bool = False) -> None:
        """Adds a loss's gradient to that of a prediction that is a leaf.

        Args:
            loss: Computed from it.
            prediction: As parts of a method get it.
            again: Whether what leads from one to the other is needed once more.
        """
        scaled: Tensor = self.learner.precision.scaler.scale(loss)
        scaled.backward(inputs=[prediction], retain_graph=again)

    @staticmethod
    def learn(outputs: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """The segmenter learns from the gradients of its predictions.

        Args:
            outputs: By name, from `heads`.
            leaves: Their values, with the gradients gathered.
        """
        known = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        torch.autograd.backward([outputs[name] for name in known], list(known.values()))
