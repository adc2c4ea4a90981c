"""A segmenter with the weights that ``dabench train`` gave it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dabench.base.errors import UsageError
from dabench.network.checkpoint import State
from dabench_models import build


def rebuilt(state: State, path: Path) -> nn.Module:
    """The network of a checkpoint, in training mode.

    Args:
        state: The checkpoint.
        path: Where it is from, for errors.

    Raises:
        UsageError: Its weights are of another network than it says.
    """
    model = state["config"]["model"]
    network = build(model, num_classes=len(state["classes"]))
    try:
        network.load_state_dict(state["segmenter"]["network"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"{path} does not fit {model}: {reason}") from error
    return network
