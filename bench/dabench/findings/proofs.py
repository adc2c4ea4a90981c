"""Which paths have run on the hardware they are for.

A path is a kind of device, or a runtime of its own on it. `make test-gpu` on a
machine with such a device adds a line to ``results/reference/proven.csv``; until
that is committed, rows of the path say so.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import pandas as pd

UNPROVEN = "device path not yet proven on hardware"
COLUMNS = ("path", "device_name", "torch", "dabench", "commit", "date", "tests")
FILE = "proven.csv"

_EVERYWHERE = ("cpu",)


def path_of(device: str, runtime: str) -> str:
    """The path that a measurement took: ``cuda``, ``cuda tensorrt``, ``mps``, ``xla``."""
    kind = device.partition(":")[0]
    return f"{kind} {runtime}" if kind != "cpu" and runtime != "eager" else kind


@cache
def proven() -> frozenset[str]:
    """Paths that a committed run of the tests proves, and those every machine has."""
    with resources.as_file(resources.files("dabench") / "reference" / FILE) as path:
        return frozenset({*pd.read_csv(path)["path"], *_EVERYWHERE})


def unproven_of(device: str, runtime: str) -> str:
    """What to say behind a figure whose path is not proven; empty where it is."""
    return "" if path_of(device, runtime) in proven() else f" ({UNPROVEN})"


def flags(measurements: pd.DataFrame) -> pd.Series[str]:
    """The flags of some measurements, with a word on paths that are not proven."""
    known = proven()
    paths = [
        path_of(device, runtime)
        for device, runtime in measurements[["device", "runtime"]].itertuples(index=False)
    ]
    words = [
        "; ".join(filter(None, (flag, "" if path in known else UNPROVEN)))
        for path, flag in zip(paths, measurements["flags"], strict=True)
    ]
    return pd.Series(words, index=measurements.index, dtype="str")
