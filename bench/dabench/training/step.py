"""One training step: which network gets which gradients from which loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dabench.training.halves import Double, Halves, with_own_norms
from dabench.training.losses import segmentation_loss
from dabench.training.methods.part import Part, StepData
from dabench.training.norms import is_frozen, norms_of
from dabench.training.passes import Learner, Passes
from dabench.training.stopwatch import Stopwatch
from dabench.training.world import ALONE, World
from dabench_models.bisenet import BiSeNet, SegmenterOutput


@dataclass(frozen=True, slots=True)
class StepResult:
    """Losses and the discriminator's health of one step; None where there is none.

    Losses are before their weights.

    Attributes:
        segmentation: Loss on the source.
        adversarial: Of the target labelled as source.
        discriminator: Mean of its losses on source and target; 0.693 is chance.
        on_source: Mean belief that the source's prediction is source's.
        on_target: Mean belief that the target's prediction is source's.
        accuracy: Share of answers on the right side.
        aux_adversarial: Of the second head's discriminator, as all that begin so.
        aux_discriminator: Likewise.
        entropy: Of the predictions for the target, 0 to 1.
        mixed: Loss on target images with classes of the source pasted in.
        masked: Loss on masked target images.
        confident: Share of the target's pixels that the teacher is sure of.
    """

    segmentation: Tensor
    adversarial: Tensor | None = None
    discriminator: Tensor | None = None
    on_source: Tensor | None = None
    on_target: Tensor | None = None
    accuracy: Tensor | None = None
    aux_adversarial: Tensor | None = None
    aux_discriminator: Tensor | None = None
    entropy: Tensor | None = None
    mixed: Tensor | None = None
    masked: Tensor | None = None
    confident: Tensor | None = None


class Trainer:
    """Carries out steps.

    Args:
        segmenter: A `BiSeNet` with its optimiser.
        parts: What the method adds to training on the source.
        passes_target: Whether a part passes images of the target.
        own_norms: Whether these have batch norms of their own.
        ohem: Loss on hard pixels only.
        detail: With the STDC paper's detail loss.
        normalised: Whether images are normalised by ImageNet's statistics.
        watch: Told where the time goes.
        threads: Processor threads that source and target may share by working
            side by side; 1 takes them one after the other.
        seed: Of what parts draw.
        world: The processes that train together.

    Attributes:
        target_network: The network as the target's images pass it in evaluation: the
            segmenter's own, or that with batch norms of its own.
    """

    def __init__(
        self,
        segmenter: Learner,
        parts: Sequence[Part],
        *,
        passes_target: bool,
        own_norms: bool = False,
        ohem: bool,
        detail: bool,
        normalised: bool = True,
        watch: Stopwatch,
        threads: int = 1,
        seed: int = 0,
        world: World = ALONE,
    ) -> None:
        assert isinstance(segmenter.network, BiSeNet)
        self.segmenter, self.parts = segmenter, parts
        self.target_network = network = segmenter.network
        self._losses: dict[str, Any] = {"ohem": ohem, "detail": detail, "world": world}
        self._watch, self._seed, self._world = watch, seed, world
        # Halves at once would not talk to the other processes in the same order everywhere.
        alone = world.size == 1
        self._halves = Halves(watch, threads if passes_target and alone else 1)
        self._double: Double | None = None
        if own_norms:
            self.target_network = with_own_norms(network)
            own = [each for norm in norms_of(self.target_network) for each in norm.parameters()]
            segmenter.optimizer.add_param_group({"params": own})
        elif self._halves.at_once and not is_frozen(network):
            self._double = Double(network)
        passes = partial(Passes, segmenter, normalised=normalised, put_off=self._halves.put_off)
        # Off processors whole maps cost little to fetch; on them hard pixels are sought in them.
        whole = segmenter.precision.device != "cpu"
        self._source_passes = passes(network, upsampled=whole or ohem)
        self._target_passes = passes(self.target_network, upsampled=whole)
        self._passes_beside = self._target_passes
        if self._double is not None:
            double = self._double
            self._passes_beside = passes(double.network, upsampled=whole, passed=double.passed)
        self._averaging = [
            world.averaging(each.parameters) for each in self.learners.values() if not alone
        ]

    @property
    def learners(self) -> dict[str, Learner]:
        """All networks that are trained, by name."""
        others = {name: of for part in self.parts for name, of in part.learners().items()}
        return {"segmenter": self.segmenter, **others}

    def train(self) -> None:
        """Puts the segmenter into training mode."""
        self.segmenter.network.train()
        self.target_network.train()

    def average_buffers(self) -> None:
        """Gives all processes the mean of their running statistics."""
        for network in dict.fromkeys((self.segmenter.network, self.target_network)):
            self._world.average_buffers(network)

    def copy_norms(self) -> None:
        """Begins the target's own batch norms with the source's."""
        self.target_network.load_state_dict(self.segmenter.network.state_dict())

    def step(
        self, images: Tensor, labels: Tensor, target: Tensor | None, number: int = 0
    ) -> StepResult:
        """One step of each network.

        Args:
            images: (N, 3, H, W) uint8 of the source.
            labels: (N, H, W) of the source.
            target: (N, 3, H, W) uint8 of the target, or None.
            number: Of the step, from 0.
        """
        if target is None:
            loss, _ = self._learn_source(images, labels, self._watch)
            self._update(number)
            return StepResult(loss)
        data = StepData(number, self._seed, images, labels, target, world=self._world)
        for part in self.parts:
            part.before(data, self._target_passes, self._watch)
        # One of them beside the source, the rest with all threads: if a half had two, their sums
        # would depend on which half is faster, and the other would wait.
        beside, *rest = self._of_target(data) or [_nothing]
        loss, _ = self._halves.run(
            partial(self._source, data), partial(beside, self._passes_beside)
        )
        if self._double is not None:
            with self._watch.part("optimizers"):
                self._double.enter()
        for work in rest:
            work(self._target_passes, self._watch)
        self._update(number)
        results = {name: value for part in self.parts for name, value in part.results().items()}
        return StepResult(loss, **results)

    def _of_target(self, data: StepData) -> list[Callable[[Passes, Stopwatch], None]]:
        """What is to pass of the target, each of it once: its prediction, then views of it."""
        looking = [part for part in self.parts if part.heads]
        prediction = [partial(self._predict, looking, data)] if looking else []
        return [*prediction, *(partial(part.on_views, data) for part in self.parts if part.views)]

    def _learn_source(
        self, images: Tensor, labels: Tensor, watch: Stopwatch
    ) -> tuple[Tensor, SegmenterOutput]:
        """The segmenter's loss on the source, learnt from, and its heads of either size."""
        passes = self._source_passes
        with watch.part("source"):
            output = passes.all_heads(passes.input(images))
            loss = segmentation_loss(output, labels, **self._losses)
            self.segmenter.backward(loss)
        return loss.detach(), output

    def _source(self, data: StepData, watch: Stopwatch) -> Tensor:
        """The source's half: its segmentation loss, and what parts learn from it."""
        loss, output = self._learn_source(data.images, data.labels, watch)
        for part in self.parts:
            part.on_source(output, data, self._source_passes, watch)
        return loss

    def _predict(
        self, looking: Sequence[Part], data: StepData, passes: Passes, watch: Stopwatch
    ) -> None:
        """A prediction for the target's images, for all parts that look at it.

        Without gradients wanted only the batch-norm statistics learn from it.
        """
        names = list(dict.fromkeys(name for part in looking for name in part.heads))
        learning = [part for part in looking if part.learns]
        with watch.part("target"), torch.set_grad_enabled(bool(learning)):
            outputs = passes.heads(passes.input(data.target), names)
        leaves = {
            name: logits.detach().requires_grad_(bool(learning)) for name, logits in outputs.items()
        }
        for part in looking:
            part.on_prediction(leaves, passes, watch)
        if learning:
            with watch.part(learning[0].timed):
                passes.learn(outputs, leaves)

    def _update(self, number: int) -> None:
        """One optimiser step of every network, the segmenter's beside the others'."""
        if self._averaging:
            with self._watch.part("exchange"):
                for average in self._averaging:
                    average()
        segmenter, *others = self.learners.values()
        if others:
            self._halves.run(partial(_update, [segmenter]), partial(_update, others))
        else:
            _update([segmenter], self._watch)
        for part in self.parts:
            part.after_update(number, self._watch)


def _nothing(passes: Passes, watch: Stopwatch) -> None:
    """Of a method that passes nothing of the target."""


def _update(learners: Sequence[Learner], watch: Stopwatch) -> None:
    with watch.part("optimizers"):
        for learner in learners:
            learner.update()


def poly(progress: float, power: float = 0.9) -> float:
    """The factor on the learning rate after a share of the training."""
    return float((1 - progress) ** power)
