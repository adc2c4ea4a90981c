"""Domain discriminators: five 4x4 stride-2 layers over a segmenter's class map.

Input (N, classes, H, W) with H and W multiples of 32, output (N, 1, H, W): one
domain logit per 32x32 patch, upsampled bilinearly (corners not aligned). Three
forms of the same layer: plain, depthwise separable, and diagonalwise, which
computes what the depthwise one computes by a dense grouped convolution under a
fixed mask (Qin et al., 2018, "Diagonalwise refactorization"). Beside them the two
light ones of RTDA, whose depthwise and pointwise halves have no activation between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 256, 512, 1)
SLOPE = 0.2
GROUP_WIDTH = 32
LIGHT2_WIDTHS = (64, 128, 1)
"""RTDA's second light discriminator."""


class DiagonalwiseConv2d(nn.Module):
    """A depthwise 4x4 stride-2 convolution carried out as a masked dense one.

    Channels are convolved densely in groups of ``channels // max(channels //
    32, 1)``; a 0/1 mask keeps of each filter only its own channel. The products
    with zero are executed all the same: that is the trade it makes.

    Shape: (N, C, H, W) -> (N, C, H / 2, W / 2).

    Attributes:
        weight: (C, C / groups, 4, 4); only the entries under the mask matter.
        mask: (C, C / groups, 1, 1) of 0 and 1, a buffer that is not saved,
            since the shape determines it.
    """

    mask: Tensor

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.groups = max(channels // GROUP_WIDTH, 1)
        width = channels // self.groups
        self.weight = nn.Parameter(torch.empty(channels, width, 4, 4))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        own = torch.arange(channels)[:, None] % width == torch.arange(width)
        self.register_buffer("mask", own[:, :, None, None].float(), persistent=False)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.mask
        return F.conv2d(x, weight, self.bias, stride=2, padding=1, groups=self.groups)

    @property
    def algorithmic_fraction(self) -> Fraction:
        """Share of the executed products that the mask keeps."""
        return Fraction(1, self.weight.shape[1])

    def load_depthwise(self, conv: nn.Conv2d) -> None:
        """Takes over the function of a depthwise convolution of the same size.

        Args:
            conv: Weight (C, 1, 4, 4), with a bias only if this layer has one.

        Raises:
            ValueError: Channels differ, or one has a bias and the other not.
        """
        if conv.weight.shape[0] != self.weight.shape[0] or conv.weight.shape[1] != 1:
            raise ValueError(f"not depthwise over {self.weight.shape[0]} channels: {conv}")
        if (conv.bias is None) != (self.bias is None):
            raise ValueError("both layers need a bias, or neither")
        with torch.no_grad():
            self.weight.copy_(conv.weight * self.mask)
            if self.bias is not None:
                self.bias.copy_(cast("Tensor", conv.bias))


class Discriminator(nn.Module):
    """Five stride-2 layers and a 32x bilinear upsampling; layers as checkpoints number them.

    Shape: (N, classes, H, W) -> (N, 1, H, W), H and W multiples of 32.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv_layers(x)
        return F.interpolate(logits, scale_factor=32, mode="bilinear", align_corners=False)


def standard(num_classes: int) -> Discriminator:
    """Plain convolutions with bias, LeakyReLU(0.2) between them."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise((num_classes, *WIDTHS)):
        layers.append(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1))
        layers.append(nn.LeakyReLU(SLOPE, inplace=True))
    return Discriminator(layers[:-1])


def _separable(
    num_classes: int, depthwise_layer: Callable[[int], nn.Module], *, bias: bool
) -> Discriminator:
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise((num_classes, *WIDTHS)):
        steps = [depthwise_layer(in_channels), nn.Conv2d(in_channels, out_channels, 1, bias=bias)]
        for step in steps:
            layers.append(step)
            # The last layer has no activation, not even inside.
            if out_channels != WIDTHS[-1]:
                layers.append(nn.LeakyReLU(SLOPE, inplace=True))
    return Discriminator(layers)


def depthwise(num_classes: int) -> Discriminator:
    """Depthwise, LeakyReLU, pointwise, LeakyReLU; biases everywhere."""

    def layer(channels: int) -> nn.Module:
        return nn.Conv2d(channels, channels, 4, stride=2, padding=1, groups=channels)

    return _separable(num_classes, layer, bias=True)


def diagonalwise(num_classes: int, *, bias: bool = False) -> Discriminator:
    """The depthwise one refactored diagonalwise; without biases as published."""

    def layer(channels: int) -> nn.Module:
        return DiagonalwiseConv2d(channels, bias=bias)

    network = _separable(num_classes, layer, bias=bias)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
    return network


class SeparableConv2d(nn.Sequential):
    """A depthwise 4x4 stride-2 convolution and a pointwise one, both with bias, as RTDA has them.

    Shape: (N, C_in, H, W) -> (N, C_out, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(in_channels, in_channels, 4, stride=2, padding=1, groups=in_channels)
        self.add_module("depth_wise", depthwise)
        self.add_module("point_wise", nn.Conv2d(in_channels, out_channels, 1))


class LightDiscriminator(nn.Module):
    """Separable stride-2 layers with LeakyReLU(0.2) after each but the last; RTDA's names.

    Shape: (N, classes, H, W) -> (N, 1, H, W), H and W multiples of 2 to the number of
    layers; without upsampling (N, 1, h, w), a pixel per patch.

    Attributes:
        classifier: The last layer; those before are ``conv1``, ``conv2`` and so on.
    """

    def __init__(self, num_classes: int, widths: Sequence[int], *, upsampled: bool) -> None:
        super().__init__()
        *inner, last = pairwise((num_classes, *widths))
        self._inner = [f"conv{number}" for number, _ in enumerate(inner, start=1)]
        for name, (in_channels, out_channels) in zip(self._inner, inner, strict=True):
            self.add_module(name, SeparableConv2d(in_channels, out_channels))
        self.leaky_relu = nn.LeakyReLU(SLOPE, inplace=True)
        self.classifier = SeparableConv2d(*last)
        self._factor = 2 ** len(widths) if upsampled else 1

    def forward(self, x: Tensor) -> Tensor:
        for name in self._inner:
            x = self.leaky_relu(self.get_submodule(name)(x))
        logits: Tensor = self.classifier(x)
        if self._factor == 1:
            return logits
        return F.interpolate(
            logits, scale_factor=self._factor, mode="bilinear", align_corners=False
        )


def light(num_classes: int) -> LightDiscriminator:
    """RTDA's five layers with the widths of the plain one, upsampled 32x."""
    return LightDiscriminator(num_classes, WIDTHS, upsampled=True)


def light2(num_classes: int) -> LightDiscriminator:
    """RTDA's three layers, not upsampled."""
    return LightDiscriminator(num_classes, LIGHT2_WIDTHS, upsampled=False)


def load_depthwise(target: Discriminator, source: Discriminator) -> None:
    """Gives a diagonalwise discriminator the function of a depthwise one.

    Both need biases (``build("diag-disc", bias=True)``); outputs and gradients
    are then equal up to rounding.

    Raises:
        ValueError: The networks' layers do not match.
    """
    for ours, theirs in zip(target.conv_layers, source.conv_layers, strict=True):
        if isinstance(ours, DiagonalwiseConv2d) and isinstance(theirs, nn.Conv2d):
            ours.load_depthwise(theirs)
        else:
            ours.load_state_dict(theirs.state_dict())
