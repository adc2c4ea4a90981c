"""A trained segmenter from its checkpoint: scores on a dataset, predictions for images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dabench.base.errors import UsageError, bad_value
from dabench.data.domain import Domain, check_labels
from dabench.data.labels import CLASSES, Classes, colourise, read_image
from dabench.data.prepare import prepare, resize_image
from dabench.device.base import DeviceUnavailableError
from dabench.device.registry import open_device
from dabench.network import checkpoint
from dabench.network.trained import rebuilt
from dabench.plan.trained import WEIGHTS, run_in
from dabench.scoring.metrics import SCORES, Scores
from dabench.training.config import TrainConfig
from dabench.training.evaluate import confusion_on, predict
from dabench_models.bisenet import BiSeNet


@dataclass(frozen=True, slots=True)
class Trained:
    """A segmenter as it was trained."""

    network: BiSeNet
    config: TrainConfig
    classes: Classes


def load_trained(path: Path, device: str) -> Trained:
    """Rebuilds a segmenter from a checkpoint, a ``weights.pt`` or a run's folder.

    Of a suite of one training it is that of the median seed.

    Raises:
        UsageError: No checkpoint, one whose weights are of another network, a suite of
            several trainings, or no such device.
    """
    if path.is_dir():
        path = run_in(path)
    weights = path / WEIGHTS
    state = checkpoint.load(weights if weights.is_file() else path)
    names = tuple(state["classes"])
    classes = next((known for known in CLASSES.values() if known.names == names), None)
    if classes is None:
        raise UsageError(f"{path} has classes dabench does not know: {', '.join(names[:5])}, ...")
    network = rebuilt(state, path)
    assert isinstance(network, BiSeNet)
    config = TrainConfig.of(state["config"])
    return Trained(network.to(_opened(device)).eval(), config, classes)


def _opened(device: str) -> torch.device:
    try:
        return open_device(device).torch_device()
    except DeviceUnavailableError as error:
        raise bad_value("--device", device, str(error)) from error


def score(trained: Trained, domain: Domain, *, split: str | None, device: str) -> Scores:
    """Scores on a split of a domain (the reported one if None).

    Raises:
        UsageError: The domain has other classes than the checkpoint.
        DataError: The split has no frames or no usable labels, or a file is unreadable.
    """
    if domain.classes != trained.classes:
        raise UsageError(
            f"--data: {domain.name} has {len(domain.classes)} classes of {domain.classes.name}, "
            f"the checkpoint {len(trained.classes)} of {trained.classes.name}"
        )
    check_labels(domain, split or domain.reported)
    where = _opened(device)
    config = trained.config
    frames = prepare(domain.frames(split or domain.reported), (config.height, config.width))
    matrix = confusion_on(
        trained.network,
        frames,
        classes=len(trained.classes),
        device=where,
        normalised=config.normalise,
    )
    return SCORES[config.evaluation](matrix.counts)


@torch.inference_mode()
def predict_files(
    trained: Trained, images: Sequence[Path], out: Path, *, device: str
) -> list[Path]:
    """Writes ``STEM_pred.png`` (colours) for each image, upright and at the image's size.

    Images of one stem are told apart by their folders, and by numbers where those agree too.
    """
    where = _opened(device)
    size = (trained.config.height, trained.config.width)
    written = []
    out.mkdir(parents=True, exist_ok=True)
    for path, name in zip(images, _names(images), strict=True):
        image = read_image(path, upright=True)
        pixels = torch.from_numpy(np.array(resize_image(image, size))).permute(2, 0, 1)[None]
        normalised = trained.config.normalise
        found = predict(trained.network, pixels.to(where), image.shape[:2], normalised=normalised)[
            0
        ]
        target = out / f"{name}_pred.png"
        Image.fromarray(colourise(found.cpu().numpy(), trained.classes)).save(target)
        written.append(target)
    return written


def _names(paths: Sequence[Path]) -> list[str]:
    """A name per file, each once: its stem, with as many folders before it as it takes."""
    absolute = [path.absolute().relative_to(path.absolute().anchor) for path in paths]
    names = [path.stem for path in absolute]
    for depth in range(2, max(len(path.parts) for path in absolute) + 1):
        again = Counter(names)
        if max(again.values()) == 1:
            break
        names = [
            "-".join((*path.parts[-depth:-1], path.stem)) if again[name] > 1 else name
            for path, name in zip(absolute, names, strict=True)
        ]
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique
