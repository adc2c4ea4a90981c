"""Settings for what nobody set, by the kind of data."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from dabench.adapt.scene import Scene

# The paper's, on its data.
_PAPER = {"height": 512, "width": 1024, "batch": 2, "epochs": 50}
_CAMVID = {"height": 128, "width": 160, "batch": 4, "steps": 600}
_SYNTHETIC = {"height": 96, "width": 192, "batch": 4, "steps": 800}

_BY_KIND = MappingProxyType({"paper": _PAPER, "camvid": _CAMVID, "synthetic": _SYNTHETIC})


def defaults_for(scene: Scene) -> dict[str, Any]:
    """Fields of `TrainConfig` for a scene."""
    if scene.synthetic:
        return dict(_BY_KIND["synthetic"])
    kind = "camvid" if scene.source.name.startswith("camvid") else "paper"
    return dict(_BY_KIND[kind])
