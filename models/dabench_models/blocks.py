"""What segmenters and classifiers share: conv-BN-ReLU, pooling, upsampling, initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU (``ConvX`` in the STDC paper).

    Shape: (N, C_in, H, W) -> (N, C_out, H', W').
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 if padding is None else padding,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def global_average(x: Tensor) -> Tensor:
    """Mean over height and width, kept as 1x1: (N, C, H, W) -> (N, C, 1, 1)."""
    return F.adaptive_avg_pool2d(x, 1)


def upsample_nearest(x: Tensor, like: Tensor) -> Tensor:
    """Nearest-neighbour upsampling of ``x`` to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def upsample_bilinear(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear upsampling, corners aligned, as the published segmenters end.

    While a graph is recorded, in fp32 and NCHW whatever came in: the few small
    logits are cheap to convert, and the losses that follow run there anyway.
    """
    if torch.is_grad_enabled():
        x = x.float().contiguous()
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def kaiming_init(module: nn.Module) -> None:
    """Kaiming normal (a = 1) for the convolutions, as STDC-Seg initialises its heads."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
