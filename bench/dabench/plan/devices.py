"""Names of devices, resolved against what a machine has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dabench.base.errors import UsageError


def resolve_device(name: str, environment: Mapping[str, Any]) -> str:
    """Replaces ``auto`` by the best device and checks that others are there.

    Raises:
        UsageError: This machine lacks the device.
    """
    available: list[str] = environment["devices"]
    if name == "auto":
        return available[0]
    kind, _, index = name.partition(":")
    gpus = len(environment["gpus"])
    has = kind in available and (not index or index.isdecimal())
    if not has or (kind == "cuda" and int(index or 0) >= gpus) or (kind != "cuda" and index):
        seen = f"torch {environment['torch']} sees " + (f"{gpus} CUDA GPUs" if gpus else "no GPU")
        raise UsageError(
            f"device {name!r} is not available: {seen}; available: {', '.join(available)}"
        )
    return name
