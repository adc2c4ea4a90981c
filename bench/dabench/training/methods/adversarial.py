"""The segmenter against discriminators: AdaptSegNet's single and multi level, AdvEnt, the control.

A discriminator learns to tell the source's predictions (1) from the target's (0). The target
is labelled as *source* in the segmenter's term: its gradients make the prediction look like one
of the source's. (The paper's repository labels it as target, which only helps the
discriminator.)

Published settings: lambda 0.001, and 0.0002 at the second head; Adam at 1e-4 with betas of 0.9
and 0.99 for discriminators (`dabench.training.learners`). AdvEnt, which takes the same, shows
the discriminator weighted self-information in place of probabilities; it is published at two
levels as well as at one, which is what dabench has. Auxiliary heads' losses on the source count
fully, as in BiSeNet; AdaptSegNet's second head counts a tenth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dabench.training.config import TrainConfig
from dabench.training.learners import discriminator_of
from dabench.training.losses import SOURCE, TARGET, belief_loss, discriminator_input, full_size
from dabench.training.methods.part import Part, StepData
from dabench.training.passes import Learner, Passes
from dabench.training.products import no_weights
from dabench.training.stopwatch import Stopwatch
from dabench_models.bisenet import SegmenterOutput

FOOLED = SOURCE
"""What the adversarial term labels the target as."""

AUX_SEED = 1 << 21
"""Added to the seed for the weights of the second head's discriminator."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """A discriminator's loss on one domain, and its logits."""

    loss: Tensor
    logits: Tensor


class Level:
    """A discriminator at one head of the segmenter.

    Args:
        head: Of `BiSeNet.forward_some`.
        discriminator: With its optimiser.
        weight: Lambda; with 0 the discriminator learns and nobody fools it.
        disc_input: What of a prediction it sees (`discriminator_input`).
    """

    def __init__(
        self, head: str, discriminator: Learner, *, weight: float, disc_input: str
    ) -> None:
        self.head, self.discriminator, self.weight = head, discriminator, weight
        self._disc_input = disc_input
        self._source: _Answered
        self._target: _Answered
        self._fooled: Tensor | None = None

    def source(self, logits: Tensor, labels: Tensor, passes: Passes) -> None:
        """Learns from a prediction for the source, logits of either size."""
        shown = discriminator_input(full_size(logits, labels), self._disc_input)
        self._source = self._teach(self._answer(shown, passes), SOURCE)

    def target(self, logits: Tensor, passes: Passes, watch: Stopwatch) -> None:
        """Adds the adversarial term's gradient to the logits; learns from the same answer.

        One pass serves both. Only the gradient of what is shown is computed for the term, so
        the discriminator does not learn from it.
        """
        fools = self.weight > 0
        with watch.part("adversarial" if fools else "discriminator"):
            shown = discriminator_input(logits, self._disc_input)
            answer = self._answer(shown, passes)
            if fools:
                loss = belief_loss(answer, FOOLED)
                with no_weights():
                    passes.gradient(self.weight * loss, logits, again=True)
                self._fooled = loss.detach()
        with watch.part("discriminator"):
            self._target = self._teach(answer, TARGET)

    def _answer(self, shown: Tensor, passes: Passes) -> Tensor:
        with self.discriminator.precision.passes(passes.put_off):
            answer: Tensor = self.discriminator.network(shown)
        return answer

    def _teach(self, answer: Tensor, truth: float) -> _Answered:
        """The discriminator learns from its answer: source is 1, target 0."""
        loss = belief_loss(answer, truth) / 2
        self.discriminator.backward(loss, list(self.discriminator.network.parameters()))
        return _Answered(loss.detach(), answer.detach().float())

    def losses(self) -> dict[str, Tensor]:
        """Of the last step: of fooling it, and its own."""
        own = {"discriminator": self._source.loss + self._target.loss}
        return own if self._fooled is None else {"adversarial": self._fooled, **own}

    def beliefs(self) -> dict[str, Tensor]:
        """Of the last step: what it made of either domain."""
        source, target = self._source.logits, self._target.logits
        right = (source > 0).float().mean() + (target < 0).float().mean()
        return {
            "on_source": torch.sigmoid(source).mean(),
            "on_target": torch.sigmoid(target).mean(),
            "accuracy": right / 2,
        }


class Adversary(Part):
    """One discriminator at the main head, or one at each of two.

    Args:
        levels: The main head's first.
    """

    name = "adversary"
    timed = "adversarial"

    def __init__(self, levels: Sequence[Level]) -> None:
        self._levels = levels
        self.heads = [level.head for level in levels]
        self.learns = any(level.weight > 0 for level in levels)

    def learners(self) -> dict[str, Learner]:
        names = ("discriminator", "discriminator_aux")
        return {name: level.discriminator for name, level in zip(names, self._levels, strict=False)}

    def on_source(
        self, output: SegmenterOutput, data: StepData, passes: Passes, watch: Stopwatch
    ) -> None:
        with watch.part("discriminator"):
            for level in self._levels:
                level.source(getattr(output, level.head).detach(), data.labels, passes)

    def on_prediction(self, leaves: Mapping[str, Tensor], passes: Passes, watch: Stopwatch) -> None:
        for level in self._levels:
            level.target(leaves[level.head], passes, watch)

    def results(self) -> dict[str, Tensor]:
        main, *others = self._levels
        aux = {f"aux_{name}": loss for level in others for name, loss in level.losses().items()}
        return {**main.losses(), **main.beliefs(), **aux}


def adversarial(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """AdaptSegNet's single level: a discriminator on the main head's prediction."""
    weight, shown = config.adversarial_weight, config.disc_input
    discriminator = discriminator_of(config, classes, where)
    return Adversary([Level("main", discriminator, weight=weight, disc_input=shown)])


def control(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """The same path without the adversarial term."""
    return adversarial(replace(config, adversarial_weight=0.0), classes, where)


def advent(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """AdvEnt: the discriminator sees weighted self-information (Vu et al., CVPR 2019)."""
    return adversarial(replace(config, disc_input="entropy"), classes, where)


def multi_level(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """AdaptSegNet's multi level: a second discriminator on the auxiliary head at 1/8.

    AdaptSegNet has its second head on the features before its last ones; of BiSeNet's heads
    that is the one on the context path, before spatial features are fused in.
    """
    main = Level(
        "main",
        discriminator_of(config, classes, where),
        weight=config.adversarial_weight,
        disc_input=config.disc_input,
    )
    aux = Level(
        "aux16",
        discriminator_of(config, classes, where, seed=AUX_SEED),
        weight=config.aux_weight,
        disc_input=config.disc_input,
    )
    return Adversary([main, aux])
