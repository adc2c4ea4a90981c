"""A mean teacher: the average of the segmenters so far, which labels the target's images.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, as DACS and MIC
have it: the weights are an exponential moving average with momentum min(1 - 1 / (t + 1), m)
after step t, its batch norms take the statistics of the batch, and its labels count as much as
it is sure of them: the share of pixels whose class it gives at least 0.968.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dabench.training.methods.part import Part, Pseudo, StepData
from dabench.training.passes import Passes
from dabench.training.stopwatch import Stopwatch
from dabench_models.bisenet import BiSeNet


def pseudo_labels(logits: Tensor, threshold: float) -> Pseudo:
    """The likeliest classes, and how much they count.

    Args:
        logits: (N, C, H, W).
        threshold: The probability from which a pixel counts as sure.
    """
    logits = logits.float()
    highest, labels = logits.max(dim=1)
    # The probability of the likeliest class, without a map of all.
    probability = (highest - logits.logsumexp(dim=1)).exp()
    return Pseudo(labels, (probability >= threshold).float().mean())


class Teacher(Part):
    """Labels the target's images once per step for all parts that learn from them.

    Args:
        momentum: Of the moving average at its largest.
        threshold: See `pseudo_labels`.
    """

    name = "teacher"

    def __init__(self, momentum: float, threshold: float) -> None:
        self._momentum, self._threshold = momentum, threshold
        self._student: BiSeNet | None = None
        self._network: BiSeNet | None = None
        self._known: Mapping[str, Any] = {}
        self._confident: Tensor

    def before(self, data: StepData, passes: Passes, watch: Stopwatch) -> None:
        network = self._ready(passes.network)
        with watch.part("teacher"), torch.no_grad():
            with passes.learner.precision.passes():
                logits = network.forward_main(passes.input(data.target))
            found = pseudo_labels(logits, self._threshold)
            # As published it is a share of the whole batch.
            data.pseudo = replace(found, confident=data.world.mean(found.confident))
        self._confident = data.pseudo.confident

    def _ready(self, student: BiSeNet) -> BiSeNet:
        """The teacher's network; at first the student's weights, or those of a checkpoint."""
        if self._network is None:
            self._student = student
            self._network = copy.deepcopy(student).requires_grad_(requires_grad=False).train()
            if self._known:
                self._network.load_state_dict(self._known)
        return self._network

    def results(self) -> dict[str, Tensor]:
        return {"confident": self._confident}

    @torch.no_grad()
    def after_update(self, number: int, watch: Stopwatch) -> None:
        assert self._network is not None
        assert self._student is not None
        momentum = min(1 - 1 / (number + 1), self._momentum)
        with watch.part("teacher"):
            average(self._network, self._student, momentum)

    def state(self) -> dict[str, Any]:
        return {} if self._network is None else self._network.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._known = dict(state)


def average(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves the teacher's weights towards the student's: momentum of its own, the rest of theirs.

    Running statistics of batch norm are not touched: neither network uses the teacher's.
    """
    ours, theirs = list(teacher.parameters()), list(student.parameters())
    get_ema_multi_avg_fn(momentum)(ours, theirs, 0)
