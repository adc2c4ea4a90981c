"""FDA: source images with the low frequencies of the target's.

Yang and Soatto, "FDA: Fourier domain adaptation for semantic segmentation", CVPR 2020. The
amplitudes of each channel's lowest frequencies are exchanged for those of a target image, the
phases stay: light and colours of the one, things of the other. Published settings: beta of
0.01, 0.05 and 0.09 for the three networks whose mean is the paper's result. (Its entropy term
on the target is another method: ``minent+fda``, in MinEnt's form.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from dabench.training.config import TrainConfig
from dabench.training.methods.part import Part, StepData, like
from dabench.training.passes import Passes
from dabench.training.stopwatch import Stopwatch


def swap_amplitudes(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """Source images with the target's amplitudes up to a frequency.

    Args:
        source: (N, 3, H, W), of any range.
        target: As many, of the same size and range.
        beta: The square that is exchanged reaches b = floor(beta * min(H, W)) periods per
            image to each side of the mean, which is always exchanged: the paper's square and
            its repository's demonstration; there training leaves out b itself on one side.

    Returns:
        (N, 3, H, W) floats, which may leave the range a little.
    """
    height, width = source.shape[2:]
    reach = int(beta * min(height, width))
    ours = torch.fft.rfft2(source.float())
    theirs = torch.fft.rfft2(target.float())
    rows = torch.arange(-reach, reach + 1, device=source.device)
    low = ours[..., rows, : reach + 1]
    amplitudes = theirs[..., rows, : reach + 1].abs()
    ours[..., rows, : reach + 1] = torch.polar(amplitudes, low.angle())
    styled: Tensor = torch.fft.irfft2(ours, s=(height, width))
    return styled


class Fourier(Part):
    """Every source image gets the amplitudes of the target image beside it in the batch."""

    name = "fda"

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def before(self, data: StepData, passes: Passes, watch: Stopwatch) -> None:
        with watch.part("target"):
            data.images = like(swap_amplitudes(data.images, data.target, self._beta), data.images)


def part(config: TrainConfig, classes: int, where: torch.device) -> Part:
    """For a run."""
    return Fourier(config.fda_beta)
