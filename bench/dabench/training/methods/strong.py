"""Strong changes of colour and sharpness, as DACS and MIC make them before the student looks.

Whether an image is changed is drawn for each; there it is for a batch of two.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

JITTER_SHARE = 0.8
"""Of the images whose colours change."""
BLUR_SHARE = 0.5
BLUR_SIGMA = (0.15, 1.15)
"""In pixels."""
BLUR_WINDOW = 11
"""Pixels: more than four deviations to each side. Published is a tenth of the image, whose rest
changes nothing.
"""


def strongly(images: Tensor, jitter: float, random: np.random.Generator) -> Tensor:
    """Changes colours of most images and blurs half of them.

    Args:
        images: (N, 3, H, W), 0 to 255 or a little beyond; left as they are.
        jitter: By how much at most: brightness, contrast and saturation as factors, hue as
            part of a turn.
        random: Draws.

    Returns:
        (N, 3, H, W) of 0 to 255.
    """
    changed = images.clamp(0, 255) / 255
    for index in range(len(changed)):
        if random.random() < JITTER_SHARE:
            changed[index] = _jittered(changed[index], jitter, random)
        if random.random() < BLUR_SHARE:
            changed[index] = _blurred(changed[index], random.uniform(*BLUR_SIGMA))
    return changed * 255


def _jittered(image: Tensor, most: float, random: np.random.Generator) -> Tensor:
    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for index in random.permutation(len(changes)):
        change, by = changes[index], random.uniform(-most, most)
        image = change(image, by if change is F.adjust_hue else 1 + by)
    return image


def _blurred(image: Tensor, sigma: float) -> Tensor:
    # Rows and columns one after the other: two windows of 11 in place of one of 121.
    for window in ([BLUR_WINDOW, 1], [1, BLUR_WINDOW]):
        image = F.gaussian_blur(image, window, [sigma, sigma])
    return image
