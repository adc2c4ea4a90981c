"""Short-Term Dense Concatenate networks (Fan et al., CVPR 2021).

Module names follow the published checkpoints: ``features.N`` for the backbone,
``conv_last``, ``fc``, ``bn``, ``linear`` for the classifier on top of it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dabench_models.blocks import ConvBNReLU, global_average

Arch = Literal["stdc1", "stdc2"]

STAGES: dict[str, tuple[int, int, int]] = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
"""Modules in stages 3, 4 and 5 (table 2 of the paper)."""


class Features(NamedTuple):
    """A backbone's feature maps by stride, (N, C, H / stride, W / stride)."""

    s8: Tensor
    s16: Tensor
    s32: Tensor


class STDCModule(nn.Module):
    """Four blocks of halving width whose outputs are concatenated.

    With stride 2 a depthwise convolution after the first block halves the
    resolution, and average pooling halves the first block's own contribution.

    Shape: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.conv_list = nn.ModuleList(
            [
                ConvBNReLU(in_channels, half, kernel_size=1),
                ConvBNReLU(half, quarter),
                ConvBNReLU(quarter, eighth),
                ConvBNReLU(eighth, eighth),
            ]
        )
        self.stride = stride
        if stride == 2:
            self.avd_layer = nn.Sequential(
                nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False),
                nn.BatchNorm2d(half),
            )
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.conv_list
        x = first(x)
        if self.stride == 2:
            outputs = [self.skip(x)]
            x = self.avd_layer(x)
        else:
            outputs = [x]
        for block in rest:
            x = block(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def _feature_layers(arch: Arch) -> nn.Sequential:
    layers: list[nn.Module] = [ConvBNReLU(3, 32, stride=2), ConvBNReLU(32, 64, stride=2)]
    channels = 64
    for width, count in zip((256, 512, 1024), STAGES[arch], strict=True):
        for index in range(count):
            layers.append(STDCModule(channels, width, stride=2 if index == 0 else 1))
            channels = width
    return nn.Sequential(*layers)


class STDCBackbone(nn.Module):
    """The feature extractor, without the classifier a segmenter never uses.

    Shape: (N, 3, H, W) -> `Features` of 256, 512 and 1024 channels.
    """

    channels = (256, 512, 1024)

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.features = _feature_layers(arch)
        three, four, five = STAGES[arch]
        self._ends = (1 + three, 1 + three + four, 1 + three + four + five)
        init_backbone(self)

    def forward(self, x: Tensor) -> Features:
        ends = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._ends:
                ends.append(x)
        return Features(*ends)


class STDCClassifier(nn.Module):
    """The ImageNet classifier.

    ``bn`` is in the published checkpoints and in their parameter count, and
    takes no part in the forward pass.

    Shape: (N, 3, H, W) -> (N, num_classes).
    """

    def __init__(self, arch: Arch, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = _feature_layers(arch)
        self.conv_last = ConvBNReLU(1024, 1024, kernel_size=1)
        self.fc = nn.Linear(1024, 1024, bias=False)
        self.bn = nn.BatchNorm1d(1024)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1024, num_classes, bias=False)
        init_backbone(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_last(self.features(x)).pow(2)
        x = F.relu(self.fc(global_average(x).flatten(1)))
        logits: Tensor = self.linear(self.dropout(x))
        return logits


def stdc_classifier(arch: Arch, num_classes: int = 1000) -> STDCClassifier:
    """Builds the ImageNet classifier ``arch``."""
    return STDCClassifier(arch, num_classes)


def init_backbone(module: nn.Module) -> None:
    """Initialises as STDC-Seg's backbones: Kaiming by fan-out, linear layers 0.001."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.001)
