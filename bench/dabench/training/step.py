"""One training step: which network gets which gradients from which loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from dabench.data.loader import network_input
from dabench.training.halves import Double, Halves
from dabench.training.losses import (
    SOURCE,
    TARGET,
    belief_loss,
    discriminator_input,
    full_size,
    segmentation_loss,
)
from dabench.training.products import ProductGradients, Task, do_at_once, no_weights, pay_off
from dabench.training.stopwatch import Stopwatch
from dabench_models.bisenet import BiSeNet

FOOLED = SOURCE
"""What the adversarial term labels the target as."""


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
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Losses and the discriminator's health of one step; None where there is none.

    Attributes:
        segmentation: Loss on the source.
        adversarial: Of the target labelled as source, before lambda.
        discriminator: Mean of its losses on source and target; 0.693 is chance.
        on_source: Mean belief that the source's prediction is source's.
        on_target: Mean belief that the target's prediction is source's.
        accuracy: Share of answers on the right side.
    """

    segmentation: Tensor
    adversarial: Tensor | None = None
    discriminator: Tensor | None = None
    on_source: Tensor | None = None
    on_target: Tensor | None = None
    accuracy: Tensor | None = None


class Trainer:
    """Carries out steps.

    Args:
        segmenter: A `BiSeNet` with its optimiser.
        discriminator: Likewise; None for methods that do not see the target.
        fools: Whether the adversarial term has weight.
        weight: Lambda.
        disc_input: What of a prediction the discriminator sees.
        ohem: Loss on hard pixels only.
        detail: With the STDC paper's detail loss.
        normalised: Whether images are normalised by ImageNet's statistics.
        watch: Told where the time goes.
        threads: Processor threads that source and target may share by working
            side by side; 1 takes them one after the other.
    """

    def __init__(
        self,
        segmenter: Learner,
        discriminator: Learner | None,
        *,
        fools: bool,
        weight: float,
        disc_input: str,
        ohem: bool,
        detail: bool,
        normalised: bool = True,
        watch: Stopwatch,
        threads: int = 1,
    ) -> None:
        assert isinstance(segmenter.network, BiSeNet)
        self.segmenter = segmenter
        self.discriminator = discriminator
        self._network = segmenter.network
        self._fools = fools and weight > 0
        self._weight = weight
        self._disc_input = disc_input
        self._losses = {"ohem": ohem, "detail": detail}
        self._normalised = normalised
        self._watch = watch
        # Hard pixels are sought in whole maps; off processors these cost little to fetch.
        self._upsampled = ohem or segmenter.precision.device != "cpu"
        self._halves = Halves(watch, threads if discriminator is not None else 1)
        self._double = Double(segmenter.network) if self._halves.at_once else None

    def step(self, images: Tensor, labels: Tensor, target: Tensor | None) -> StepResult:
        """One step of each network.

        Args:
            images: (N, 3, H, W) uint8 of the source.
            labels: (N, H, W) of the source.
            target: (N, 3, H, W) uint8 of the target, or None.
        """
        if target is None or self.discriminator is None:
            loss, _ = self._learn_source(images, labels, self._watch)
            with self._watch.part("optimizers"):
                self.segmenter.update()
            return StepResult(loss)
        (loss, of_source), (adversarial, of_target) = self._halves.run(
            lambda watch: self._source(images, labels, watch),
            lambda watch: self._target(target, watch),
        )
        if self._double is not None:
            with self._watch.part("optimizers"):
                self._double.enter()
        self._halves.run(*(partial(_update, of) for of in (self.segmenter, self.discriminator)))
        return StepResult(loss, adversarial, **_health(of_source, of_target))

    def _learn_source(
        self, images: Tensor, labels: Tensor, watch: Stopwatch
    ) -> tuple[Tensor, Tensor]:
        """The segmenter's loss on the source, learnt from, and the main logits of either size."""
        with watch.part("source"):
            with self.segmenter.precision.passes(self._halves.put_off):
                output = self._network.forward_heads(self._input(images), upsampled=self._upsampled)
            loss = segmentation_loss(output, labels, **self._losses)
            self.segmenter.backward(loss)
        return loss.detach(), output.main.detach()

    def _source(self, images: Tensor, labels: Tensor, watch: Stopwatch) -> tuple[Tensor, _Answered]:
        """The source's half: its segmentation loss, and what the discriminator learns from it."""
        loss, logits = self._learn_source(images, labels, watch)
        with watch.part("discriminator"):
            shown = discriminator_input(full_size(logits, labels), self._disc_input)
            return loss, self._teach(self._answer(shown), SOURCE)

    def _target(self, target: Tensor, watch: Stopwatch) -> tuple[Tensor | None, _Answered]:
        """The target's half: its adversarial loss, and what the discriminator learns from it.

        The target is labelled as *source*: gradients make its prediction look
        like one of the source's. The paper's repository labels it as target,
        which only helps the discriminator. Only the gradient of what is shown
        is computed, so the discriminator does not learn from this; the answer
        then serves its own loss, which saves a second pass. Without an
        adversarial term only the batch-norm statistics learn from the target.
        """
        network = self._network if self._double is None else self._double.network
        with watch.part("target"):
            with (
                torch.set_grad_enabled(self._fools),
                self.segmenter.precision.passes(self._halves.put_off),
            ):
                logits = network.forward_main(self._input(target))
            shown = discriminator_input(logits.float(), self._disc_input)
        seen = shown.detach().requires_grad_(self._fools)
        loss = None
        with watch.part("adversarial" if self._fools else "discriminator"):
            answer = self._answer(seen)
            if self._fools:
                loss = belief_loss(answer, FOOLED)
                scaled = self.segmenter.precision.scaler.scale(self._weight * loss)
                with no_weights():
                    (gradient,) = torch.autograd.grad(scaled, seen, retain_graph=True)
                shown.backward(gradient)
                loss = loss.detach()
        with watch.part("discriminator"):
            return loss, self._teach(answer, TARGET)

    def _input(self, images: Tensor) -> Tensor:
        return network_input(images, normalised=self._normalised)

    def _answer(self, shown: Tensor) -> Tensor:
        assert self.discriminator is not None
        with self.discriminator.precision.passes(self._halves.put_off):
            answer: Tensor = self.discriminator.network(shown)
        return answer

    def _teach(self, answer: Tensor, truth: float) -> _Answered:
        """The discriminator learns from its answer: source is 1, target 0."""
        assert self.discriminator is not None
        loss = belief_loss(answer, truth) / 2
        self.discriminator.backward(loss, list(self.discriminator.network.parameters()))
        return _Answered(loss.detach(), answer.detach().float())


@dataclass(frozen=True, slots=True)
class _Answered:
    """The discriminator's loss on one domain, and its logits."""

    loss: Tensor
    logits: Tensor


def _update(learner: Learner, watch: Stopwatch) -> None:
    with watch.part("optimizers"):
        learner.update()


def _health(source: _Answered, target: _Answered) -> dict[str, Tensor]:
    """The discriminator's part of a `StepResult`."""
    right = (source.logits > 0).float().mean() + (target.logits < 0).float().mean()
    return {
        "discriminator": source.loss + target.loss,
        "on_source": torch.sigmoid(source.logits).mean(),
        "on_target": torch.sigmoid(target.logits).mean(),
        "accuracy": right / 2,
    }


def poly(progress: float, power: float = 0.9) -> float:
    """The factor on the learning rate after a share of the training."""
    return float((1 - progress) ** power)
