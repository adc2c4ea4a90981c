"""What a segmenter sees: input, truth, prediction and error, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dabench.data.labels import IGNORE, Classes, colourise
from dabench.data.prepare import Prepared
from dabench.training.evaluate import predict
from dabench_models.bisenet import BiSeNet

FRAMES = 3
_WRONG, _RIGHT = (215, 60, 50), (235, 235, 235)


@torch.inference_mode()
def draw_predictions(
    network: BiSeNet,
    frames: Prepared,
    classes: Classes,
    device: torch.device,
    path: Path,
    *,
    normalised: bool,
) -> None:
    """Writes a PNG with a row per frame, spread over the frames.

    Wrong pixels are red in the last column, ignored ones black.
    """
    network.eval()
    rows = []
    for index in np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).astype(int):
        image, truth = np.array(frames.images[index]), np.array(frames.labels[index])
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        found = predict(network, pixels, truth.shape, normalised=normalised)[0].cpu().numpy()
        error = np.where((found == truth)[..., None], _RIGHT, _WRONG).astype(np.uint8)
        error[truth == IGNORE] = 0
        shown = (image, colourise(truth, classes), colourise(found, classes), error)
        rows.append(np.concatenate(shown, axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)
