"""A part of a training step: what one method adds to training on labelled source images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dabench.training.passes import Learner, Passes
from dabench.training.stopwatch import Stopwatch
from dabench.training.world import ALONE, World
from dabench_models.bisenet import SegmenterOutput


@dataclass(frozen=True, slots=True)
class Pseudo:
    """What a teacher says of the target's images.

    Attributes:
        labels: (N, H, W) classes.
        confident: Share of the pixels whose class it gives more than the threshold.
    """

    labels: Tensor
    confident: Tensor


@dataclass(slots=True)
class StepData:
    """What the parts of one step work on.

    Attributes:
        number: Of the step, from 0; with the seed it decides all that is drawn.
        seed: Of the run.
        images: (N, 3, H, W) of the source, 0 to 255.
        labels: (N, H, W) of the source.
        target: (N, 3, H, W) uint8 of the target.
        pseudo: The teacher's labels, once it has been asked.
        world: The processes that train together, each on its share of the step's images.
    """

    number: int
    seed: int
    images: Tensor
    labels: Tensor
    target: Tensor
    pseudo: Pseudo | None = None
    world: World = ALONE

    def random(self, stream: int) -> np.random.Generator:
        """The same numbers for a step however often it is done again; other ones per process.

        Args:
            stream: One for each use, so that two do not draw the same.
        """
        process = [] if self.world.first else [self.world.rank]
        return np.random.default_rng([self.seed, self.number, stream, *process])


class Part:
    """What a method adds; of its hooks each is there to be left out.

    In a step they are called in this order: `before`; `on_source`, and perhaps at the same time,
    in another thread, `on_prediction` or, if no part looks at the prediction, the first part's
    `on_views`; then one after the other what `on_views` there is still, `results` and
    `after_update`.

    Attributes:
        name: In checkpoints.
        heads: Of the segmenter's prediction for the target that `on_prediction` looks at.
        learns: Whether that prediction is to get gradients.
        views: Whether `on_views` passes images.
        timed: The part of an epoch's time (`EPOCH_PARTS`) that their way back is counted as.
    """

    name: ClassVar[str]
    heads: Sequence[str] = ()
    learns: bool = False
    views: ClassVar[bool] = False
    timed: ClassVar[str] = "target"

    def learners(self) -> dict[str, Learner]:
        """Networks that are trained along with the segmenter, by name."""
        return {}

    def before(self, data: StepData, passes: Passes, watch: Stopwatch) -> None:
        """Changes the step's images, or adds to what is known of them, before they are passed.

        Args:
            data: Of the step.
            passes: The segmenter's, on the target.
            watch: Told where the time goes.
        """

    def on_source(
        self, output: SegmenterOutput, data: StepData, passes: Passes, watch: Stopwatch
    ) -> None:
        """Uses what the segmenter said of the source; it has learnt from it already."""

    def on_prediction(self, leaves: Mapping[str, Tensor], passes: Passes, watch: Stopwatch) -> None:
        """Uses what the segmenter says of the target's images.

        Args:
            leaves: Logits by name of head, (N, C, H, W); where the part `learns`, what it
                adds to their gradients (`Passes.gradient`) is what the segmenter learns.
            passes: The segmenter's, on the target.
            watch: Told where the time goes.
        """

    def on_views(self, data: StepData, passes: Passes, watch: Stopwatch) -> None:
        """Passes what it makes of the target's images through the segmenter, once and back."""

    def results(self) -> dict[str, Tensor]:
        """Fields of `StepResult`."""
        return {}

    def after_update(self, number: int, watch: Stopwatch) -> None:
        """The optimisers have taken their step.

        Args:
            number: Of the step, from 0.
            watch: Told where the time goes.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the learners."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` gave."""


def like(images: Tensor, other: Tensor) -> Tensor:
    """Images in the memory layout of others."""
    last = other.is_contiguous(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
