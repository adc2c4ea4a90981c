"""Networks as ``dabench train`` left them, by the name ``trained:PATH``; read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError

SOURCE = "trained"
"""Stands where a reference to somebody else's network says whose it is."""

WEIGHTS, CHECKPOINTS = "weights.pt", "checkpoints"
"""Of a run: what it ended with, and the folder of what it has until then."""

BEFORE = "resized bilinearly with antialiasing"
"""How an image becomes what a trained segmenter takes; whether normalised, its weights know."""

AFTER = "logits brought to the label's size bilinearly, the largest of each pixel"
"""How what it says becomes a label map."""

EARLIER = {
    "before": "resized bilinearly with antialiasing",
    "after": "logits brought to the label's size bilinearly, the largest of each pixel",
}
"""Both in versions whose records do not say it of each trained network."""

RELEASED = "released.json"
"""Of a suite: label -> the run whose weights stand for it, that of the median seed."""

_RUN = "run.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained segmenter.

    Attributes:
        weights: The file.
        model: The network's name in the registry.
        classes: Names of those it tells apart.
        height: Of what it was trained on, in pixels.
        width: Likewise.
        normalised: Whether images were normalised before it.
        evaluation: ``official`` or ``paper``: which mIoU it was scored by.
        target: Name of the domain that it is for.
    """

    weights: Path
    model: str
    classes: tuple[str, ...]
    height: int
    width: int
    normalised: bool
    evaluation: str
    target: str = ""


def is_trained(name: str) -> bool:
    """Whether a network is named as one that dabench trained."""
    return name.partition(":")[0] == SOURCE


def trained_at(path: Path) -> Trained:
    """Finds what a path stands for.

    Args:
        path: A run's folder, that of a suite of one training (its median seed), or a file of a
            run's weights.

    Raises:
        UsageError: None of these, or a run that is not over.
    """
    weights = path if path.is_file() else _weights_in(run_in(path))
    document = _document(weights.parent) or _document(weights.parent.parent)
    try:
        config = document["config"]
        return Trained(
            weights,
            str(config["model"]),
            tuple(document["data"]["classes"]),
            int(config["height"]),
            int(config["width"]),
            # Runs of earlier versions always were.
            bool(config.get("normalise", True)),
            str(config["evaluation"]),
            str(document["data"].get("target", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"no {_RUN} of a training is beside {weights}") from None


def files_of_trained(path: Path) -> list[Path]:
    """The files that `trained_at` and a worker read of what a path stands for.

    Raises:
        UsageError: As `trained_at`.
    """
    weights = trained_at(path).weights
    beside = (path / RELEASED, weights.parent / _RUN, weights.parent.parent / _RUN)
    return [weights, *(each for each in beside if each.is_file())]


def run_in(folder: Path) -> Path:
    """The run that a folder stands for: of a suite of one training its median seed, or itself.

    Raises:
        UsageError: A suite of several trainings.
    """
    released = _read(folder / RELEASED)
    if len(released) > 1:
        runs = ", ".join(f"{folder / run} ({label})" for label, run in released.items())
        raise UsageError(f"{folder} holds several trainings; name a run, of median seeds: {runs}")
    return folder.joinpath(*released.values())


def _weights_in(run: Path) -> Path:
    if (run / WEIGHTS).is_file():
        return run / WEIGHTS
    if any((run / CHECKPOINTS).glob("*.pt")):
        # The newest one would be another tomorrow, or within what is measured.
        raise UsageError(f"{run} is not over yet; name one of the files in {run / CHECKPOINTS}")
    raise UsageError(f"{run} holds no weights of a training")


def _document(folder: Path) -> dict[str, Any]:
    document = _read(folder / _RUN)
    return document if document.get("kind") == "train" else {}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one for what is not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    return found if isinstance(found, dict) else {}
