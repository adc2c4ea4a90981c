"""Names of devices, resolved against what a machine has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from dabench.base.errors import UsageError
from dabench.plan.axes import ALL, DTYPES, INT8, OPTIONAL
from dabench.plan.settings import Grid, Settings


def resolve_all(
    grids: Iterable[tuple[Grid, Settings]], environment: Mapping[str, Any]
) -> tuple[list[tuple[Grid, Settings]], list[str]]:
    """Grids with their settings as this machine has them; see `resolve`."""
    found: list[tuple[Grid, Settings]] = []
    lines: dict[str, None] = {}
    for grid, settings in grids:
        resolved, left_out = resolve(grid, environment)
        found += [(each, settings) for each in resolved]
        lines |= dict.fromkeys(left_out)
    return found, list(lines)


def resolve(grid: Grid, environment: Mapping[str, Any]) -> tuple[list[Grid], list[str]]:
    """A grid with its devices and precisions as this machine has them.

    Args:
        grid: Perhaps with ``auto`` and optional dtypes.
        environment: Of `dabench.device.machine`.

    Returns:
        A grid per set of devices that have the same precisions, and a line for
        each precision that is left out.

    Raises:
        UsageError: This machine lacks a device.
    """
    devices = tuple(resolve_device(name, environment) for name in grid.devices)
    by_dtypes: dict[tuple[str, ...], list[str]] = {}
    lines: dict[str, None] = {}
    for device in devices:
        native = environment.get("native", {}).get(device.partition(":")[0], DTYPES)
        kept = [d for d in grid.dtypes if not d.endswith(OPTIONAL) or d.rstrip(OPTIONAL) in native]
        left_out = [d.rstrip(OPTIONAL) for d in grid.dtypes if d not in kept]
        lines |= {_why_left_out(d, device): None for d in left_out}
        dtypes = tuple(dict.fromkeys(d.rstrip(OPTIONAL) for d in kept))
        by_dtypes.setdefault(dtypes, []).append(device)
    grids = [
        replace(_unquantised(grid, dtypes), devices=tuple(some), dtypes=dtypes)
        for dtypes, some in by_dtypes.items()
        if dtypes
    ]
    return grids, list(lines)


def _unquantised(grid: Grid, dtypes: Collection[str]) -> Grid:
    """A grid of which int8 may have been left out, without what only that has."""
    if INT8 in dtypes:
        return grid
    return replace(grid, calibrations=(), keep_floats=(ALL,))


def _why_left_out(dtype: str, device: str) -> str:
    if dtype == INT8 and device != "cpu":
        return f"{dtype} is not offered on {device} and left out"
    lacks = "has no dot products" if dtype == INT8 else "is only emulated"
    return f"{dtype} {lacks} on {device} here and left out; --dtype {dtype} measures it"


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
