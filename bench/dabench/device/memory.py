"""Resident memory of this process, and how it is given back."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

# mallopt(3); the parameters' numbers are part of glibc's interface.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER_TRIM = -1
_TRIED, _FEW_FAULTS = 64 << 20, 16
"""Size of a block in bytes, and fewer faults than even huge pages of 2 MiB would take for it."""
# What glibc's own adaptation to large blocks ends at, and its default.
_ADAPTED_MMAP, _ADAPTED_TRIM, _DEFAULT_MMAP_MAX = 32 << 20, 64 << 20, 65536


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


def can_keep_freed_pages() -> bool:
    """Whether the C library is one that can be told to (glibc)."""
    return _mallopt() is not None


def keep_freed_pages() -> None:
    """Keeps freed memory in the process for the next allocation, where the C library can.

    By default large blocks go back to the system when freed, and each page of the next one is
    faulted in again: a tenth of a training step's time, and of a pass with large maps and little
    to do for each more than half. In other threads than the main one blocks above 64 MiB still do.
    """
    tune = _mallopt()
    if tune is not None:
        tune(_MMAP_MAX, 0)
        tune(_TRIM_THRESHOLD, _NEVER_TRIM)


def freed_pages_stay() -> bool:
    """Whether a large block that was freed is there again: another allocator may not listen."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = library.malloc(_TRIED)
        if block is None:
            raise MemoryError
        ctypes.memset(block, 1, _TRIED)
        library.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    return faults() < _FEW_FAULTS


def give_freed_pages_back() -> None:
    """Gives what is free back to the system, where the C library can be asked to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _mallopt() -> Callable[[int, int], int] | None:
    if platform.system() != "Linux":
        return None
    found: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    return found


@contextmanager
def freed_pages_kept() -> Iterator[None]:
    """Meanwhile `keep_freed_pages`."""
    keep_freed_pages()
    try:
        yield
    finally:
        tune = _mallopt()
        if tune is not None:
            tune(_MMAP_MAX, _DEFAULT_MMAP_MAX)
            tune(_MMAP_THRESHOLD, _ADAPTED_MMAP)
            tune(_TRIM_THRESHOLD, _ADAPTED_TRIM)
