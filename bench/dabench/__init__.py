"""dabench: time, count and compare segmenters and discriminators.

>>> import dabench
>>> m = dabench.time("dw-disc", device="cpu", batch=8, mode="eval")
>>> m.median_s, m.ci_low_s, m.ci_high_s
>>> m.to_frame()

Importing this package imports next to nothing; its names are loaded when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dabench.api import TimeResult, choose, compare, count, load_results, sweep, time
    from dabench.base.errors import DabenchError, ResultsError, UsageError

__all__ = [
    "DabenchError",
    "ResultsError",
    "TimeResult",
    "UsageError",
    "choose",
    "compare",
    "count",
    "load_results",
    "sweep",
    "time",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'dabench' has no attribute {name!r}")
    home = "dabench.base.errors" if name.endswith("Error") else "dabench.api"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
