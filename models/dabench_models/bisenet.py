"""BiSeNet segmenters (Yu et al., ECCV 2018) on STDC and ResNet backbones.

Module names follow the checkpoints of STDC-Seg (``cp``, ``ffm``, ``conv_out``,
...), so that they load as they are. Tensors are NCHW; heads return logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dabench_models.blocks import (
    ConvBNReLU,
    global_average,
    kaiming_init,
    upsample_bilinear,
    upsample_nearest,
)
from dabench_models.resnet import ResNet18Backbone
from dabench_models.stdc import STDCBackbone

BackboneName = Literal["stdc1", "stdc2", "resnet18"]


class SegmenterOutput(NamedTuple):
    """What a segmenter returns in training mode: logits of every head.

    Attributes:
        main: (N, classes, H, W), from the fused features.
        aux16: (N, classes, H, W), from the context path at 1/8 (the head the
            publications name after the 1/16 features it refines).
        aux32: (N, classes, H, W), from the context path at 1/16.
        detail: (N, 1, H / 8, W / 8), boundary logits from stage 3, not
            upsampled; None for networks without a detail head.
    """

    main: Tensor
    aux16: Tensor
    aux32: Tensor
    detail: Tensor | None


class AttentionRefinementModule(nn.Module):
    """ARM: a 3x3 block weighted per channel by its own global context.

    Shape: (N, C_in, H, W) -> (N, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        attention = self.bn_atten(self.conv_atten(global_average(features)))
        weighted: Tensor = features * torch.sigmoid(attention)
        return weighted


class ContextFeatures(NamedTuple):
    """Context path outputs: the backbone's 1/8 features, and the refined 1/8 and 1/16."""

    s8: Tensor
    cp8: Tensor
    cp16: Tensor


class ContextPath(nn.Module):
    """Backbone, global context on its tail, ARM on stages 4 and 5.

    Shape: (N, 3, H, W) -> `ContextFeatures`, cp8 and cp16 with 128 channels.
    """

    def __init__(self, backbone: STDCBackbone | ResNet18Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        _, channels16, channels32 = backbone.channels
        self.arm16 = AttentionRefinementModule(channels16, 128)
        self.arm32 = AttentionRefinementModule(channels32, 128)
        self.conv_head32 = ConvBNReLU(128, 128)
        self.conv_head16 = ConvBNReLU(128, 128)
        self.conv_avg = ConvBNReLU(channels32, 128, kernel_size=1)

    def forward(self, x: Tensor) -> ContextFeatures:
        s8, s16, s32 = self.backbone(x)
        # The published network repeats the 1x1 context to 1/32 before adding;
        # broadcasting adds the same numbers without the copy.
        refined32 = self.arm32(s32) + self.conv_avg(global_average(s32))
        cp16 = self.conv_head32(upsample_nearest(refined32, like=s16))
        cp8 = self.conv_head16(upsample_nearest(self.arm16(s16) + cp16, like=s8))
        return ContextFeatures(s8, cp8, cp16)


class SpatialPath(nn.Module):
    """BiSeNet's spatial path: three stride-2 blocks.

    Shape: (N, 3, H, W) -> (N, 128, H / 8, W / 8).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(3, 64, kernel_size=7, stride=2)
        self.conv2 = ConvBNReLU(64, 64, stride=2)
        self.conv3 = ConvBNReLU(64, 64, stride=2)
        self.conv_out = ConvBNReLU(64, 128, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_out(self.conv3(self.conv2(self.conv1(x))))
        return out


class FeatureFusionModule(nn.Module):
    """FFM: fuses spatial and context features, reweighted per channel.

    Shape: (N, C_s, H, W) and (N, 128, H, W) -> (N, 256, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int = 256) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(in_channels, out_channels, kernel_size=1)
        self.conv1 = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        features = self.convblk(torch.cat([spatial, context], dim=1))
        attention = self.conv2(F.relu(self.conv1(global_average(features))))
        fused: Tensor = features * torch.sigmoid(attention) + features
        return fused


class Head(nn.Module):
    """A 3x3 block and a 1x1 classifier: (N, C_in, H, W) -> (N, classes, H, W)."""

    def __init__(self, in_channels: int, mid_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, mid_channels)
        self.conv_out = nn.Conv2d(mid_channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class BiSeNet(nn.Module):
    """A two-path segmenter.

    The spatial side is either BiSeNet's own spatial path or, as in the STDC
    paper, stage 3 of the backbone, which a detail head then guides in training.
    (STDC-Seg normalises outside its backbone with an in-place batch norm whose
    older releases scaled by the weight's absolute value; this is plain batch
    norm, as in its later forks, equal wherever those weights are positive.)

    Shape: (N, 3, H, W) -> `SegmenterOutput` in training mode; in eval mode the
    main logits (N, num_classes, H, W) alone, and nothing else is computed.
    Training needs N >= 2: the global context is one value per channel and
    image, which batch norm cannot normalise alone.
    """

    def __init__(
        self,
        backbone: STDCBackbone | ResNet18Backbone,
        num_classes: int,
        *,
        spatial_path: bool = False,
        detail: bool = True,
    ) -> None:
        super().__init__()
        self.cp = ContextPath(backbone)
        self.sp = SpatialPath() if spatial_path else None
        spatial_channels = 128 if spatial_path else backbone.channels[0]
        self.ffm = FeatureFusionModule(spatial_channels + 128)
        self.conv_out = Head(256, 256, num_classes)
        self.conv_out16 = Head(128, 64, num_classes)
        self.conv_out32 = Head(128, 64, num_classes)
        guided = detail and not spatial_path
        self.conv_out_sp8 = Head(backbone.channels[0], 64, 1) if guided else None
        for name, child in self.named_children():
            if name != "cp":
                kaiming_init(child)
        for name, child in self.cp.named_children():
            if name != "backbone":
                kaiming_init(child)

    def _fuse(self, x: Tensor) -> tuple[Tensor, ContextFeatures]:
        context: ContextFeatures = self.cp(x)
        spatial = context.s8 if self.sp is None else self.sp(x)
        return self.ffm(spatial, context.cp8), context

    def forward_heads(self, x: Tensor, *, upsampled: bool = True) -> SegmenterOutput:
        """Computes every head, in either mode.

        Args:
            x: (N, 3, H, W).
            upsampled: Brought to the size of the input; else as the heads put them out,
                at 1/8 and the last at 1/16 of it.
        """
        fused, context = self._fuse(x)
        small = self.conv_out(fused), self.conv_out16(context.cp8), self.conv_out32(context.cp16)
        main, aux16, aux32 = (upsample_bilinear(s, like=x) for s in small) if upsampled else small
        return SegmenterOutput(
            main,
            aux16,
            aux32,
            detail=None if self.conv_out_sp8 is None else self.conv_out_sp8(context.s8),
        )

    def forward_some(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Computes some heads, in either mode, at the size of the input.

        Args:
            x: (N, 3, H, W).
            names: Of ``main``, ``aux16`` and ``aux32``.
        """
        fused, context = self._fuse(x)
        heads = {
            "main": (self.conv_out, fused),
            "aux16": (self.conv_out16, context.cp8),
            "aux32": (self.conv_out32, context.cp16),
        }
        chosen = {name: heads[name] for name in names}
        return {name: upsample_bilinear(of(seen), like=x) for name, (of, seen) in chosen.items()}

    def forward_main(self, x: Tensor, *, upsampled: bool = True) -> Tensor:
        """Computes the main logits alone, in either mode.

        Args:
            x: (N, 3, H, W).
            upsampled: Brought to the size of the input; else as the head puts them out, at 1/8.
        """
        fused, _ = self._fuse(x)
        small: Tensor = self.conv_out(fused)
        return upsample_bilinear(small, like=x) if upsampled else small

    def forward(self, x: Tensor) -> SegmenterOutput | Tensor:
        return self.forward_heads(x) if self.training else self.forward_main(x)


def bisenet(
    backbone: BackboneName,
    num_classes: int,
    *,
    spatial_path: bool = False,
    detail: bool = True,
) -> BiSeNet:
    """Builds a BiSeNet on one of the backbones.

    Args:
        backbone: ``stdc1``, ``stdc2`` or ``resnet18``.
        num_classes: Channels of the main and auxiliary logits.
        spatial_path: BiSeNet's own spatial path instead of stage 3.
        detail: Whether stage 3 gets a detail head. The checkpoints of STDC-Seg
            have one, those of the paper's repository do not.
    """
    features = ResNet18Backbone() if backbone == "resnet18" else STDCBackbone(backbone)
    return BiSeNet(features, num_classes, spatial_path=spatial_path, detail=detail)
