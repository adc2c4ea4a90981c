"""Sections of a page that need not be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
        self._versions: dict[Path, str] = {}
        self._known: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._asked: set[tuple[Any, ...]] = set()

    def begin(self, runs: Iterable[Path]) -> None:
        """Notes the versions of runs before any of them is read.

        What is written while they are read is then found changed the next time.
        """
        if self._version is not None:
            self._versions = {run: self._version(run) for run in runs}

    def sections(
        self,
        part: str,
        runs: Sequence[Path],
        names: Sequence[str],
        make: Callable[[PageDocument], None],
    ) -> list[dict[str, Any]]:
        """Sections of some runs, all of which `begin` was told of.

        Args:
            part: Which of them.
            runs: Their folders.
            names: What the page calls them.
            make: Writes them where they are not known.
        """
        versions = tuple(map(self._versions.get, runs))
        key = (part, tuple(runs), tuple(names), versions)
        self._asked.add(key)
        if None in versions or key not in self._known:
            out = PageDocument()
            out.runs = list(names)
            make(out)
            self._known[key] = [each for each in out.sections if each["blocks"]]
        return self._known[key]

    def forget(self) -> None:
        """Forgets what was not asked for since the last time."""
        self._known = {key: self._known[key] for key in self._asked & self._known.keys()}
        self._asked.clear()
