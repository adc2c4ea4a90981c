"""A segmenter with the weights that ``dabench train`` gave it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dabench.base.errors import UsageError
from dabench.network import checkpoint
from dabench_models import build


@dataclass(frozen=True, slots=True)
class Restored:
    """A network and what its checkpoint says of it.

    Attributes:
        network: In training mode.
        config: Of its training.
        classes: Their names.
    """

    network: nn.Module
    config: dict[str, Any]
    classes: tuple[str, ...]


def restore(path: Path) -> Restored:
    """Rebuilds a segmenter from a checkpoint, or the newest one of a run's folder.

    Raises:
        UsageError: No checkpoint, or one whose weights are of another network.
    """
    state = checkpoint.load(path)
    config, classes = state["config"], tuple(state["classes"])
    network = build(config["model"], num_classes=len(classes))
    try:
        network.load_state_dict(state["segmenter"]["network"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"{path} does not fit {config['model']}: {reason}") from error
    return Restored(network, config, classes)
