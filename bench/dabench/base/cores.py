"""How many processor cores there are to work with."""

from __future__ import annotations

import os

import psutil


def usable_cores() -> int:
    """Cores that this process may run on, where the system says (Linux); else all."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else psutil.cpu_count() or 1
