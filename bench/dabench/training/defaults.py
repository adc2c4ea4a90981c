"""Settings for what nobody set, by the kind of data."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from dabench.training.scene import Scene

# The paper's, on its data.
_PAPER: dict[str, Any] = {"height": 512, "width": 1024, "batch": 2, "epochs": 50}
# Small enough for a CPU, from scratch. Learning rates and steps were chosen on the
# val split of the synthetic stand-in; scores are reported on its test split.
_SMALL: dict[str, Any] = {"batch": 4, "steps": 600, "lr": 0.03, "disc_lr": 1e-3}
_CAMVID: dict[str, Any] = {"height": 128, "width": 160, **_SMALL}
_SYNTHETIC: dict[str, Any] = {"height": 96, "width": 192, **_SMALL, "steps": 800}

_BY_KIND = MappingProxyType({"paper": _PAPER, "camvid": _CAMVID, "synthetic": _SYNTHETIC})


def defaults_for(scene: Scene) -> dict[str, Any]:
    """Fields of `TrainConfig` for a scene."""
    if scene.synthetic:
        return dict(_BY_KIND["synthetic"])
    kind = "camvid" if scene.source.name.startswith("camvid") else "paper"
    return dict(_BY_KIND[kind])
