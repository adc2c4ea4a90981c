"""Forms of convolutions, for which libraries take different paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

CONVOLUTION, CONVOLUTION_1X1 = "convolution", "convolution 1x1"
GROUPED_CONVOLUTION = "grouped convolution"


def form_of(layer: nn.Module) -> str:
    """The form of a convolution (`LayerCount.form`); empty for any other layer."""
    from torch.nn.modules.conv import _ConvNd as Convolution

    if not isinstance(layer, Convolution):
        return ""
    if layer.groups > 1:
        return GROUPED_CONVOLUTION
    return CONVOLUTION_1X1 if set(layer.kernel_size) == {1} else CONVOLUTION
