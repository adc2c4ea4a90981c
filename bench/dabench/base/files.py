"""Files: written whole or not at all, with errors in one line; where the cache is."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError

CACHE_VARIABLE = "DABENCH_CACHE"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Read once, at import: reading it means setting it, which another thread would see.
_UMASK = _umask()


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file so that a reader sees the old one or the new one, whole.

    The temporary file has a name of its own, so that two writers never share one; the folder is
    synced, so that the new name survives a power cut.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # Readable as any other file: temporary ones are the user's alone.
        os.fchmod(descriptor, 0o666 & ~_UMASK)
        # A name of a file may be no text.
        with os.fdopen(
            descriptor, "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def slug(text: str) -> str:
    """A text as part of a file name: ``GTA5 -> Cityscapes`` is ``gta5-to-cityscapes``."""
    words = "".join(c if c.isalnum() else " " for c in text.lower().replace(" -> ", " to "))
    return "-".join(words.split())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(document: object) -> str:
    """A document as JSON; what is no number, which JSON cannot hold, is null."""
    return json.dumps(finite(document), indent=1, allow_nan=False) + "\n"


def finite(value: object) -> object:
    """A document whose numbers JSON can hold: what is no number is None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def parse_json(path: Path, text: str) -> Any:
    """The document in a file's text.

    Raises:
        ResultsError: It is none; names file and line.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} line {error.lineno}: not JSON: {error.msg}") from None
    except ValueError:
        raise ResultsError(f"{path}: not what any tool writes: a number is too long") from None
    except RecursionError:
        raise ResultsError(f"{path}: not of any tool: nested too deeply") from None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A context that turns an OSError into one line for the user.

    Raises:
        ResultsError: The folder could not be written.
    """
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"cannot write to {folder}: {error.strerror or error}; "
            "what was measured before stays readable"
        ) from error


def cache_folder() -> Path:
    """Where what costs time to make again is kept: ``DABENCH_CACHE`` or the user's cache."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dabench"
