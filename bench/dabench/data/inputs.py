"""Images as networks take them."""

from __future__ import annotations

import torch
from torch import Tensor

from dabench.data.prepare import MEAN, STD


def network_input(images: Tensor, *, normalised: bool = True) -> Tensor:
    """(N, 3, H, W) uint8 to floats as the network takes them.

    Args:
        images: RGB.
        normalised: By ImageNet's mean and deviation per channel; else 0 to 1.
    """
    if not normalised:
        return images.float() / 255
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / std
