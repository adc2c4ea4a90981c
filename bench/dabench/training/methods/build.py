"""From a method's name to its parts."""

from __future__ import annotations

import importlib

import torch

from dabench.plan.methods import method_of
from dabench.training.config import TrainConfig
from dabench.training.methods.part import Part
from dabench.training.methods.teacher import Teacher


def parts_of(config: TrainConfig, classes: int, where: torch.device) -> list[Part]:
    """What a run's method adds to training on the source, in the order of their hooks' calls.

    Args:
        config: Of the run.
        classes: How many the labels have.
        where: The device.
    """
    method = method_of(config.method)
    # First: the others learn from its labels.
    parts: list[Part] = []
    if method.taught:
        parts.append(Teacher(config.teacher_momentum, config.confidence))
    for reference in method.parts:
        module, function = reference.split(":")
        maker = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        parts.append(maker(config, classes, where))
    return parts
