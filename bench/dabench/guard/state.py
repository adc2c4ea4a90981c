"""What the plugin keeps during a session of pytest; light, since every session imports it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

FAIL_SLOWER, STORAGE, SAVE = "dabench_fail_slower", "dabench_storage", "dabench_save_baseline"
"""Names under which pytest keeps the options."""


class Tape:
    """A timer that plays back: pytest-benchmark measures with it what dabench measured.

    Attributes:
        seconds: What each of its rounds is to take.
    """

    def __init__(self) -> None:
        self.seconds: Iterator[float] = iter(())
        self._running = False

    def __call__(self) -> float:
        """Zero at the start of a round, its seconds at the end."""
        self._running = not self._running
        if self._running:
            return 0.0
        try:
            return next(self.seconds)
        except StopIteration:
            raise RuntimeError(
                "a test that uses the fixture dabench cannot time something with benchmark, too"
            ) from None


TAPE = pytest.StashKey[Tape]()
"""Of a test."""

TESTS = pytest.StashKey[int]()
"""How many tests are judged at once."""

SAID = pytest.StashKey[list[str]]()
"""Lines for the end of the session."""

FOLDER = pytest.StashKey[Path]()
"""Of the session's runs."""

ENDING = pytest.StashKey[ExitStack]()
"""What is to be done at the end."""
