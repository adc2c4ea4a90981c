"""A case made real: network, input, loss, optimiser, and the passes over them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dabench.device import Device
from dabench.plan import Case
from dabench_models import build

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

LOSSES = {
    "segmenter": "cross-entropy over the main and auxiliary heads, BCE with logits on detail",
    "discriminator": "BCE with logits",
    "classifier": "cross-entropy",
}


class Workload:
    """Everything a case needs, made once, outside the timed region.

    Weights and inputs are random and the same in every launch of a seed. In
    eval mode a lower precision casts network and input; in train mode the
    weights stay fp32 and the forward runs under autocast, as one trains.
    """

    def __init__(self, case: Case, device: Device, seed: int) -> None:
        torch.manual_seed(seed)
        self.case = case
        self.device = device.torch_device()
        self.memory_format = (
            torch.channels_last if case.memory_format == "nhwc" else torch.contiguous_format
        )
        self.casts = case.mode == "eval" and case.dtype in _DTYPES
        dtype = _DTYPES[case.dtype] if self.casts else torch.float32
        model = build(case.model).to(self.device, dtype)
        # torch's stubs allow the memory format only by itself.
        self.model = model.to(memory_format=self.memory_format)
        self.model.train(case.mode == "train")
        shape = (case.batch, case.channels, case.height, case.width)
        # Random, never zeros: zeros can run faster than data does.
        x = torch.randn(shape, device=self.device)
        self.x = x.to(dtype, memory_format=self.memory_format)
        self._targets: list[Tensor] = []
        self._optimizer: torch.optim.Optimizer | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a training forward: autocast below fp32, else nothing."""
        if self.case.mode == "train" and self.case.dtype in _DTYPES:
            return torch.autocast(self.device.type, dtype=_DTYPES[self.case.dtype])
        return nullcontext()

    def forward(self) -> Any:
        """One forward pass, with the graph recorded in train mode."""
        with self.autocast():
            return self.model(self.x)

    def loss(self, output: Any) -> Tensor:
        """The family's loss against fixed random targets."""
        heads = [h for h in (output if isinstance(output, tuple) else (output,)) if h is not None]
        if not self._targets:
            self._targets = [_target(head) for head in heads]
        losses = [_loss(h.float(), t) for h, t in zip(heads, self._targets, strict=True)]
        return torch.stack(losses).sum()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum for what the paper trains by SGD, Adam for discriminators.

        The learning rate is 0: the same arithmetic, and the hundredth pass
        times the same network as the first.
        """
        if self._optimizer is None:
            parameters = self.model.parameters()
            if self.case.family == "discriminator":
                self._optimizer = torch.optim.Adam(parameters, lr=0.0)
            else:
                self._optimizer = torch.optim.SGD(
                    parameters, lr=0.0, momentum=0.9, weight_decay=5e-4
                )
        return self._optimizer

    def work(self, phase: str) -> Pass:
        """The pass of one phase."""
        if self.case.mode == "eval":
            return _InferencePass(self)
        makers: dict[str, Callable[[Workload], Pass]] = {
            "forward": _ForwardPass,
            "backward": _BackwardPass,
            "optimizer": _OptimizerPass,
            "total": _TotalPass,
        }
        return makers[phase](self)


def _target(head: Tensor) -> Tensor:
    if head.shape[1] == 1:
        return torch.randint(0, 2, head.shape, device=head.device).float()
    shape = (head.shape[0], *head.shape[2:])
    return torch.randint(0, head.shape[1], shape, device=head.device)


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, target)
    return F.cross_entropy(logits, target)


class Pass:
    """One pass of a phase (`dabench.engine.Work`).

    Attributes:
        output: What the last pass gave, or what the next one starts from.
    """

    def __init__(self, load: Workload) -> None:
        self.load = load
        self.output: Any = None

    def prepare(self) -> None:
        """Nothing is needed by default."""

    def run(self) -> None:
        """The pass itself."""
        raise NotImplementedError

    def release(self) -> None:
        """Drops the output, and with it the graph."""
        self.output = None


class _InferencePass(Pass):
    """Eval: the forward in inference mode."""

    def run(self) -> None:
        with torch.inference_mode():
            self.output = self.load.forward()


class _ForwardPass(Pass):
    """Train: the forward with its graph recorded."""

    def run(self) -> None:
        self.output = self.load.forward()


class _BackwardPass(Pass):
    """Train: from the family's loss to the parameters; input needs no gradient."""

    def prepare(self) -> None:
        self.load.model.zero_grad(set_to_none=True)
        self.output = self.load.loss(self.load.forward())

    def run(self) -> None:
        torch.autograd.backward(self.output)


class _OptimizerPass(Pass):
    """Train: one optimiser step on gradients computed once."""

    def __init__(self, load: Workload) -> None:
        super().__init__(load)
        load.model.zero_grad(set_to_none=True)
        torch.autograd.backward(load.loss(load.forward()))

    def run(self) -> None:
        self.load.optimizer.step()


class _TotalPass(Pass):
    """Train: forward, loss, backward and optimiser step in one."""

    def prepare(self) -> None:
        self.load.model.zero_grad(set_to_none=True)

    def run(self) -> None:
        torch.autograd.backward(self.load.loss(self.load.forward()))
        self.load.optimizer.step()
