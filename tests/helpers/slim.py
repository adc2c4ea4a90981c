"""The networks an eighth as wide: for tests of what is done with a network, whichever it is."""

import contextlib
import os
import types
from pathlib import Path
from unittest import mock

from torch import nn

from dabench_models import bisenet, blocks, discriminators, resnet, stdc

HELPERS = Path(__file__).parent
EVERYWHERE = {"PYTHONPATH": os.pathsep.join(map(str, (HELPERS / "thin", HELPERS)))}
"""In the environment of a command it makes the networks of all its processes thin."""


def thin(channels):
    """Of a layer's width an eighth; images and classes have as many channels as ever."""
    return channels // 8 if channels >= 32 else channels


WIDTHS = {
    name: tuple(map(thin, getattr(discriminators, name))) for name in ("WIDTHS", "LIGHT2_WIDTHS")
}


class Conv2d(nn.Conv2d):
    """As wide as `thin` says."""

    def __init__(self, in_channels, out_channels, *rest, groups=1, **options):
        super().__init__(
            thin(in_channels), thin(out_channels), *rest, groups=thin(groups), **options
        )


class BatchNorm2d(nn.BatchNorm2d):
    """As wide as `thin` says."""

    def __init__(self, num_features):
        super().__init__(thin(num_features))


class _Layers(types.ModuleType):
    """`torch.nn` with thin layers."""

    Conv2d, BatchNorm2d = Conv2d, BatchNorm2d

    def __getattr__(self, name):
        return getattr(nn, name)


@contextlib.contextmanager
def slim():
    """Meanwhile networks of the registry are built thin; closing what it yields ends that."""
    with contextlib.ExitStack() as patches:
        for module in (bisenet, blocks, resnet, stdc):
            patches.enter_context(mock.patch.object(module, "nn", _Layers("torch.nn")))
        patches.enter_context(mock.patch.multiple(discriminators, **WIDTHS))
        yield patches
