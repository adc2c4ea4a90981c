"""One training step, right: who learns what from which loss, and where the time goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dabench.data.loader import network_input
from dabench.timing.clock import Clock
from dabench.training.losses import (
    SOURCE,
    TARGET,
    belief_loss,
    discriminator_input,
    segmentation_loss,
)
from dabench_models.bisenet import BiSeNet

PARTS = ("data", "source", "target", "adversarial", "discriminator", "optimizers")
"""What a step's time is made of, in order."""


class Stopwatch:
    """Adds up the seconds of each part of the steps.

    On a device that queues work every part is synchronised, so that it holds
    its own work; the time this costs is the price of knowing.
    """

    def __init__(self, clock: Clock, synchronize: Clock | None = None) -> None:
        self._clock = clock
        self._synchronize = synchronize or (lambda: 0.0)
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times one part."""
        begin = self._clock()
        yield
        self._synchronize()
        self.seconds[name] += self._clock() - begin

    def reset(self) -> dict[str, float]:
        """Returns the seconds so far and starts again."""
        seconds, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return seconds


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

    def autocast(self) -> torch.autocast:
        """The context of forward passes."""
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.dtype]
        return torch.autocast(self.device, kind, enabled=self.dtype != "fp32")


@dataclass(slots=True)
class Learner:
    """A network with what trains it."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    clip: float | None = None

    def backward(self, loss: Tensor, inputs: Sequence[Tensor] | None = None) -> None:
        """Adds a loss's gradients, of all that it depends on or of some inputs only."""
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

    def step(self, images: Tensor, labels: Tensor, target: Tensor | None) -> StepResult:
        """One step of each network.

        Args:
            images: (N, 3, H, W) uint8 of the source.
            labels: (N, H, W) of the source.
            target: (N, 3, H, W) uint8 of the target, or None.
        """
        with self._watch.part("source"):
            with self.segmenter.precision.autocast():
                output = self._network.forward_heads(self._input(images))
            loss = segmentation_loss(output, labels, **self._losses)
            self.segmenter.backward(loss)
        if target is None or self.discriminator is None:
            with self._watch.part("optimizers"):
                self.segmenter.update()
            return StepResult(loss.detach())
        with self._watch.part("target"):
            shown_target = self._predict(target)
        on_target, adversarial = self._judge_target(shown_target)
        with self._watch.part("optimizers"):
            self.segmenter.update()
        shown_source = discriminator_input(output.main.detach().float(), self._disc_input)
        health = self._teach(shown_source, on_target)
        return StepResult(loss.detach(), adversarial, *health)

    def _input(self, images: Tensor) -> Tensor:
        return network_input(images, normalised=self._normalised)

    def _predict(self, target: Tensor) -> Tensor:
        """What the discriminator is shown of the target's prediction.

        Without an adversarial term only the batch-norm statistics learn from it.
        """
        with torch.set_grad_enabled(self._fools), self.segmenter.precision.autocast():
            logits = self._network.forward_main(self._input(target))
        return discriminator_input(logits.float(), self._disc_input)

    def _judge_target(self, shown: Tensor) -> tuple[Tensor, Tensor | None]:
        """The discriminator's answer on the target, and the adversarial loss from it.

        The target is labelled as *source*: gradients make its prediction look
        like one of the source's. The paper's repository labels it as target,
        which only helps the discriminator. Only the gradient of what is shown
        is computed, so the discriminator does not learn from this; the answer
        then serves its own loss, which saves a second pass.
        """
        assert self.discriminator is not None
        seen = shown.detach().requires_grad_(self._fools)
        with self._watch.part("adversarial" if self._fools else "discriminator"):
            with self.discriminator.precision.autocast():
                answer: Tensor = self.discriminator.network(seen)
            if not self._fools:
                return answer, None
            loss = belief_loss(answer, SOURCE)
            scaled = self.segmenter.precision.scaler.scale(self._weight * loss)
            (gradient,) = torch.autograd.grad(scaled, seen, retain_graph=True)
            shown.backward(gradient)
        return answer, loss.detach()

    def _teach(self, source: Tensor, on_target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of the discriminator: source is 1, target 0."""
        assert self.discriminator is not None
        parameters = list(self.discriminator.network.parameters())
        with self._watch.part("discriminator"):
            with self.discriminator.precision.autocast():
                on_source = self.discriminator.network(source)
            loss = (belief_loss(on_source, SOURCE) + belief_loss(on_target, TARGET)) / 2
            self.discriminator.backward(loss, parameters)
        with self._watch.part("optimizers"):
            self.discriminator.update()
        right = (on_source > 0).float().mean() + (on_target < 0).float().mean()
        return (
            loss.detach(),
            torch.sigmoid(on_source.detach().float()).mean(),
            torch.sigmoid(on_target.detach().float()).mean(),
            right / 2,
        )


def poly(progress: float, power: float = 0.9) -> float:
    """The factor on the learning rate after a share of the training."""
    return float((1 - progress) ** power)
