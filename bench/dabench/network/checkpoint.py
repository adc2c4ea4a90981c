"""Checkpoints: written whole or not at all, and known to be whole when read."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from dabench.base.errors import ResultsError, UsageError

FORMAT = 1
KEEP = 2
"""The last one, and the one before should it be damaged."""

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")

State = dict[str, Any]


def save(folder: Path, step: int, state: State) -> Path:
    """Writes a checkpoint; its name holds its digest. Older ones but one are removed.

    Raises:
        ResultsError: The disk is full or gone; earlier checkpoints stay.
    """
    content = _bytes(state)
    name = f"step-{step:08d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    _write(folder / name, content)
    for old in _all(folder)[KEEP:]:
        old.unlink()
    return folder / name


def write(path: Path, state: State) -> None:
    """Writes a state under a name of its own, whole or not at all.

    Raises:
        ResultsError: The disk is full or gone.
    """
    _write(path, _bytes(state))


def remove_all(folder: Path) -> None:
    """Removes a run's checkpoints once they are of no more use."""
    for path in _all(folder):
        path.unlink()


def _bytes(state: State) -> memoryview:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    return buffer.getbuffer()


def _write(path: Path, content: memoryview) -> None:
    unfinished = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ResultsError(
            f"cannot write a checkpoint to {path.parent}: {error.strerror}; earlier ones stay"
        ) from error


def last_whole(folder: Path) -> tuple[bytes, list[Path]]:
    """The newest checkpoint that is whole, nothing if there is none, and the damaged ones."""
    damaged: list[Path] = []
    for path in _all(folder):
        content = path.read_bytes()
        match = _NAME.fullmatch(path.name)
        if match and hashlib.sha256(content).hexdigest().startswith(match[2]):
            return content, damaged
        damaged.append(path)
    return b"", damaged


def load_last(folder: Path) -> tuple[State | None, list[Path]]:
    """The newest checkpoint that is whole, and the damaged ones passed over."""
    content, damaged = last_whole(folder)
    return parse(content, folder) if content else None, damaged


def parse(content: bytes, folder: Path) -> State:
    """Reads what a checkpoint's file holds.

    Args:
        content: Of the file.
        folder: Where it is, for what is said of it.

    Raises:
        UsageError: Not a checkpoint of dabench.
    """
    return _load(io.BytesIO(content), folder)


def load(path: Path) -> State:
    """Reads a checkpoint, or the newest one of a run's folder.

    Raises:
        UsageError: Nothing there, or not a checkpoint of dabench.
    """
    if path.is_dir():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        state, damaged = load_last(folder)
        if state is None:
            extra = f"; {len(damaged)} are damaged" if damaged else ""
            raise UsageError(f"{path} holds no checkpoint{extra}")
        return state
    if not path.is_file():
        raise UsageError(f"checkpoint {str(path)!r} does not exist")
    return _load(path, path)


def _load(source: Path | io.BytesIO, path: Path) -> State:
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own words advise to run what the file may hold.
        raise UsageError(f"{path} is no checkpoint: it does not hold weights alone") from error
    except Exception as error:  # torch.load raises many kinds for a file that is none
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is no checkpoint: {first}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is no checkpoint of dabench train")
    return state


def _all(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)
