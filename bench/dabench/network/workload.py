"""A case made real: network, input, loss, optimiser, and the passes over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from dabench.base.errors import UnsupportedError
from dabench.device.base import Device
from dabench.network.build import build_network, cast_real, notes_of, settle
from dabench.network.tensors import outputs
from dabench.plan.axes import VARIANT_AXES
from dabench.plan.cases import Case
from dabench.plan.trained import is_trained
from dabench.plan.variants import EXPORTED

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

REFERENCE_IMAGES = 2
"""Images of passes that only compare outputs."""

LOSSES = {
    "segmenter": "cross-entropy over the main and auxiliary heads, BCE with logits on detail",
    "discriminator": "BCE with logits",
    "classifier": "cross-entropy",
    "other": "cross-entropy over all outputs, BCE with logits for those of one channel",
}


class Workload:
    """Everything a case needs, made once, outside the timed region.

    Inputs and weights, but for a trained network's, are random and the same in every launch of a
    seed. In eval mode a lower precision casts network and input; in train mode the
    weights stay fp32 and the forward runs under autocast, as one trains.
    Runtimes that take an exported file get it in fp32 and lower it themselves.

    Attributes:
        model: The network, as a module.
        call: What a pass calls with the input; the model, unless
            `dabench.network.runtimes.prepare` puts something else there.
        x: The input, (N, C, H, W).
        reference: Outputs of the plain network in fp32 for ``check_x``, a list for each of
            two passes; empty in training and for cases that run the plain network.
        check_x: The first one or two images of the input in fp32, (n, C, H, W).
        remarks: Lines for the reader of the results, added by
            `dabench.network.runtimes.prepare`.
        calibration: Gives the batches that ranges of int8 are found on, (N, C, H, W) fp32; random
            ones like the input where nothing else is put there.
        calibrated_on: What these are, in words.
        exports: Folder for the exported network, which ways to run it may share; None is the
            case's own.
        changes_input: Whether the network overwrites its input; every pass then
            gets a fresh copy, outside the timed region.
    """

    def __init__(self, case: Case, device: Device, seed: int) -> None:
        torch.manual_seed(seed)
        self.case = case
        self._device = device
        self.device = device.torch_device()
        self.memory_format = (
            torch.channels_last if case.memory_format == "nhwc" else torch.contiguous_format
        )
        self.casts = case.mode == "eval" and case.dtype in _DTYPES and case.runtime not in EXPORTED
        self.dtype = _DTYPES[case.dtype] if self.casts else torch.float32
        self._built = network = build_network(case.model).to(self.device)
        network.train(case.mode == "train")
        shape = (case.batch, case.channels, case.height, case.width)
        # Whatever a network's own code drew, or seeded, the input is the same.
        torch.manual_seed(seed + 1)
        # Random, never zeros: zeros can run faster than data does.
        x = torch.randn(shape, device=self.device)
        settle(network, x.clone)
        if not is_trained(case.model):
            _unsettle_norms(network)
        checked = is_variant(case) and case.mode == "eval"
        self.check_x = x[:REFERENCE_IMAGES].clone()
        with device.full_precision():
            self.reference = [_plain(network, self.check_x) for _ in range(2)] if checked else []
        self.remarks: list[str] = []
        if case.fuse == "on":
            network = _fused(network)
        cast_real(network, self.dtype)
        # torch's stubs allow the memory format only by itself.
        self.model = network.to(memory_format=self.memory_format)
        self.call: Callable[[Tensor], Any] = self.model
        self.x = x.to(self.dtype, memory_format=self.memory_format)
        self.calibration: Callable[[], Iterator[Tensor]] = self._random_batches
        self.calibrated_on = "random input"
        self.exports: Path | None = None
        self._host_x = _on_host(x.clone()) if case.input == "host" else self.x
        self.changes_input = False
        self._seed = seed
        self._version = self.x._version
        self._targets: list[Tensor] = []
        self._optimizer: torch.optim.Optimizer | None = None

    def refresh(self) -> None:
        """Gives the next pass the input that the first one had, should that have been changed."""
        if not (self.changes_input or self.x._version != self._version):
            return
        self.changes_input = True
        torch.manual_seed(self._seed + 1)
        with torch.no_grad():
            self.x.copy_(torch.randn(self.x.shape, device=self.device))

    def computes_in(self, dtype: str) -> bool:
        """Whether the device computes in a precision, and does not only emulate it."""
        return dtype in self._device.native_dtypes()

    def _random_batches(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self._seed + 2)
        for _ in range(math.ceil(int(self.case.calibration) / self.case.batch)):
            yield torch.randn(self.x.shape, generator=generator)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a training forward: autocast below fp32, else nothing."""
        if self.case.mode == "train" and self.case.dtype in _DTYPES:
            return torch.autocast(self.device.type, dtype=_DTYPES[self.case.dtype])
        return nullcontext()

    def forward(self) -> Any:
        """One forward pass, with the graph recorded in train mode."""
        with self.autocast():
            return self.call(self.x)

    def forward_from_host(self) -> Tensor:
        """A forward with what an application has to do around it.

        The fp32 image is copied to the device and brought into dtype and layout there; the main
        output's classes are chosen there too.
        """
        # A copy on the CPU too: what a network does to its input must not reach the image.
        x = self._host_x.to(self.device, non_blocking=True, copy=self.changes_input)
        x = x.to(self.dtype, memory_format=self.memory_format)
        return outputs(self.call(x))[0].argmax(1)

    def logits(self, images: Tensor) -> Tensor:
        """The main output for real images, as many as the batch or fewer.

        Args:
            images: (n, C, H, W) fp32, or from `taken`.
        """
        return outputs(self.call(self.taken(images)))[0][: len(images)]

    def taken(self, images: Tensor) -> Tensor:
        """Real images as a pass takes them: of the case's precision and layout.

        What was captured or exported takes whole batches: the last image fills them up.

        Args:
            images: (n, C, H, W) fp32, as many as the batch or fewer.

        Returns:
            As many as the batch; the images themselves where they are like that already.
        """
        missing = self.case.batch - len(images)
        x = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        return x.to(self.dtype, memory_format=self.memory_format)

    def loss(self, output: Any) -> Tensor:
        """The family's loss (`LOSSES`) against fixed random targets, a scalar.

        Raises:
            UnsupportedError: No output can be differentiated.
        """
        heads = [h for h in outputs(output) if h.is_floating_point() and h.requires_grad]
        if not heads:
            kinds = ", ".join(
                sorted({str(h.dtype).removeprefix("torch.") for h in outputs(output)})
            )
            raise UnsupportedError(
                f"no output of the network can be differentiated (it puts out {kinds}), so it "
                "cannot be trained; use --mode eval"
            )
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

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the network, a line each."""
        changes = "the network overwrites its input: every pass gets a fresh copy, untimed"
        built = notes_of(self._built)
        return [*[built] * bool(built), *self.remarks, *[changes] * self.changes_input]

    def peak_bytes(self) -> int | None:
        """Peak memory of the device in the last passes; None where nobody can tell.

        The allocator that is asked knows nothing of what another runtime holds, and
        a compiler's memory cannot be told from the network's in a process's
        resident size.
        """
        own = getattr(self.call, "peak_bytes", None)
        if own is not None:
            return int(own())
        in_process = not self._device.queues_work and self.case.compile != "off"
        if self.case.runtime in EXPORTED or in_process:
            return None
        return self._device.peak_bytes()

    def work(self, phase: str) -> Pass:
        """The pass of one phase."""
        if self.case.mode == "eval":
            return _HostPass(self) if self.case.input == "host" else _InferencePass(self)
        makers: dict[str, Callable[[Workload], Pass]] = {
            "forward": _ForwardPass,
            "backward": _BackwardPass,
            "optimizer": _OptimizerPass,
            "total": _TotalPass,
        }
        return makers[phase](self)


def is_variant(case: Case) -> bool:
    """Whether a case runs its network in another way than torch's plain one."""
    apart = ("compile", "fuse", "runtime")
    return any(getattr(case, axis) != VARIANT_AXES[axis] for axis in apart)


def _on_host(x: Tensor) -> Tensor:
    """Pinned where there is a GPU: from there the copy need not be waited for."""
    return x.cpu().pin_memory() if x.is_cuda else x.cpu()


def _plain(network: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return [output.clone() for output in outputs(network(x.clone()))]


def _unsettle_norms(network: nn.Module) -> None:
    """Moves the statistics and weights of batch norms at random from where they are.

    Those of a new network are 0 and 1: almost nothing would be folded away, and
    folding it wrongly would go unseen. A little is enough to see it, and what a
    network scales to zero stays there: activations keep their size in deep ones.
    """
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, BatchNorm)):
            for shifted in (norm.running_mean, norm.bias):
                if shifted is not None:
                    shifted.add_(torch.empty_like(shifted).normal_(0.0, 0.1))
            for scaled in (norm.running_var, norm.weight):
                if scaled is not None:
                    scaled.mul_(torch.empty_like(scaled).uniform_(0.75, 1.25))


def _fused(network: nn.Module) -> nn.Module:
    """The network with batch norm folded into the convolutions before it, in fp32.

    Raises:
        UnsupportedError: There is nothing to fold.
    """
    from torch.fx.experimental.optimization import fuse

    folded: nn.Module = fuse(network)
    if _norms(folded) == _norms(network):
        raise UnsupportedError("nothing to fold: no convolution is followed by a batch norm")
    return folded


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, BatchNorm) for module in network.modules())


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
    """One pass of a phase (`dabench.timing.engine.Work`).

    Attributes:
        output: What the last pass gave, or what the next one starts from.
    """

    def __init__(self, load: Workload) -> None:
        self.load = load
        self.output: Any = None

    def prepare(self) -> None:
        """A fresh input, for networks that overwrite theirs (seen by the pass before)."""
        self.load.refresh()

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


class _HostPass(Pass):
    """Eval, end to end: from an image on the host to a label map on the device."""

    def run(self) -> None:
        with torch.inference_mode():
            self.output = self.load.forward_from_host()


class _ForwardPass(Pass):
    """Train: the forward with its graph recorded."""

    def run(self) -> None:
        self.output = self.load.forward()


class _BackwardPass(Pass):
    """Train: from the family's loss to the parameters; input needs no gradient."""

    def prepare(self) -> None:
        super().prepare()
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
        super().prepare()
        self.load.model.zero_grad(set_to_none=True)

    def run(self) -> None:
        torch.autograd.backward(self.load.loss(self.load.forward()))
        self.load.optimizer.step()
