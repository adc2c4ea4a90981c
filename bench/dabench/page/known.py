"""Sections of a page that need not be made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dabench.page.document import PageDocument


class Known:
    """Sections that were made before, as long as nothing changed that they were made from.

    Args:
        version: Of a run: another one whenever a file of it changed. Without it nothing is known
            again.
    """

    def __init__(self, version: Callable[[Path], str] | None = None) -> None:
        self._version = version
        self._known: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._asked: set[tuple[Any, ...]] = set()

    def sections(
        self,
        part: str,
        runs: Sequence[Path],
        names: Sequence[str],
        make: Callable[[PageDocument], None],
    ) -> list[dict[str, Any]]:
        """Sections of some runs.

        Args:
            part: Which of them.
            runs: Their folders.
            names: What the page calls them.
            make: Writes them where they are not known.
        """
        version = self._version
        # Read first: what is written meanwhile is found changed the next time.
        versions = tuple(map(version, runs)) if version is not None else ()
        key = (part, tuple(runs), tuple(names), versions)
        self._asked.add(key)
        if version is None or key not in self._known:
            out = PageDocument()
            out.runs = list(names)
            make(out)
            self._known[key] = [each for each in out.sections if each["blocks"]]
        return self._known[key]

    def forget(self) -> None:
        """Forgets what was not asked for since the last time."""
        self._known = {key: self._known[key] for key in self._asked & self._known.keys()}
        self._asked.clear()
