"""Files: written whole or not at all, with errors in one line; where the cache is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dabench.base.errors import ResultsError

CACHE_VARIABLE = "DABENCH_CACHE"


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file so that a reader sees the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line for the user."""
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"cannot write to {folder}: {error.strerror}; what was measured before stays readable"
        ) from error


def cache_folder() -> Path:
    """Where prepared data and the stand-in are kept: ``DABENCH_CACHE`` or the user's cache."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dabench"
