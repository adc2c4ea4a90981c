"""Resident memory of this process and the name of its processor."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """Memory of this process that is in RAM now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most that was in RAM since the process began or `reset_peak`."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage if platform.system() == "Darwin" else usage * 1024)


def reset_peak() -> None:
    """Sets the peak back to the current use, where the system can (Linux)."""
    if _CLEAR_REFS.exists() and os.access(_CLEAR_REFS, os.W_OK):
        # 5 resets the "high water mark" (proc(5)).
        _CLEAR_REFS.write_text("5")


def cpu_model() -> str:
    """The processor's marketing name, or an empty string."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
