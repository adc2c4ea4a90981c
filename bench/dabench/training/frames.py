"""The frames of one training run: chosen, decoded, and described for its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dabench.base.errors import UsageError
from dabench.data.domain import Domain, check_labels, spread
from dabench.data.prepare import Prepared, prepare
from dabench.plan.methods import method_of
from dabench.records.folder import read_run
from dabench.training.config import TrainConfig
from dabench.training.scene import Scene


class DataObserver(Protocol):
    """Sees data being made ready."""

    def preparing(self, what: str, done: int, of: int) -> None:
        """Frames are being decoded."""

    def note(self, text: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The arrays of one run."""

    training: Prepared
    target: Prepared | None
    evaluation: Prepared


def gather(config: TrainConfig, scene: Scene, split: str | None, observer: DataObserver) -> Frames:
    """Decodes what a run needs, or finds it decoded.

    Args:
        config: Of the run.
        scene: The source and the target.
        split: Of the target, to evaluate on; None takes the reported one.
        observer: Told of the progress, and of frames that are left out.

    Raises:
        DataError: A split without frames or without usable labels, or an unreadable file.
    """
    method = method_of(config.method)
    size = (config.height, config.width)

    def ready(domain: Domain, part: str) -> Prepared:
        frames = spread(domain.frames(part), config.limit)
        prepared = prepare(
            frames, size, lambda done, of: observer.preparing(f"{domain.name} {part}", done, of)
        )
        if prepared.left_out:
            observer.note(
                f"{len(prepared.left_out)} {part} frames of {domain.name} are left out: image and "
                f"label differ in size, such as {prepared.left_out[0]}"
            )
        return prepared

    for domain in {domain.name: domain for domain in (scene.source, scene.target)}.values():
        if domain.unpaired:
            observer.note(
                f"{len(domain.unpaired)} images of {domain.name} have no label and are left out, "
                f"such as {domain.unpaired[0].name}; 'dabench data check' lists what is wrong"
            )
    # Before the minutes that decoding and training take.
    check_labels(scene.target if method.on_target else scene.source, "train")
    check_labels(scene.target, split or scene.target.reported)
    return Frames(
        ready(scene.target if method.on_target else scene.source, "train"),
        ready(scene.target, "train") if method.needs_target else None,
        ready(scene.target, split or scene.target.reported),
    )


def run_document(
    document: Mapping[str, Any],
    config: TrainConfig,
    scene: Scene,
    split: str | None,
    frames: Frames,
) -> dict[str, Any]:
    """What ``run.json`` says of one run."""
    data = {**scene.describe(split), **_sizes(frames)}
    return {**document, "config": config.to_dict(), "data": data}


def check_same_frames(folder: Path, frames: Frames) -> None:
    """Checks that a run's frames are those it was begun with, wherever they are now.

    Raises:
        UsageError: Some changed, or the run does not say what they were.
    """
    then = read_run(folder)["data"].get("digests")
    if then is None:
        raise UsageError(
            f"--resume: {folder} was begun by a dabench that did not note what its frames were; "
            "begin it anew"
        )
    now = digests_of(frames)
    differing = [part for part, key in then.items() if now.get(part) != key]
    if differing:
        raise UsageError(f"--resume: the {differing[0]} frames are not those of the run")


def digests_of(frames: Frames) -> dict[str, str | None]:
    """What is in the frames of each part."""
    return {
        "training": frames.training.digest,
        "target": None if frames.target is None else frames.target.digest,
        "evaluation": frames.evaluation.digest,
    }


def _sizes(frames: Frames) -> dict[str, Any]:
    return {
        "training_frames": len(frames.training),
        "target_frames": None if frames.target is None else len(frames.target),
        "evaluation_frames": len(frames.evaluation),
        "left_out": list(frames.training.left_out + frames.evaluation.left_out),
        "digests": digests_of(frames),
    }
