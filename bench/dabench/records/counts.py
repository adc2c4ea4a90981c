"""Operation counts on disk: what a run of kind ``count`` holds beside its ``run.json``.

``counts.json`` lists documents of `dabench.counting.counted.ModelCount`, and of
networks that could not be counted their graph with the reason. Runs of timings
keep theirs in the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError
from dabench.records.folder import RunFolder, read_json

KIND = "count"
COUNTS = "counts.json"


def write_counts(
    run: RunFolder, counts: Iterable[Mapping[str, Any]], uncounted: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Replaces a run's counts, and of what could not be counted the reason."""
    run.write_json(COUNTS, [*counts, *uncounted])


def read_counts(path: Path) -> list[dict[str, Any]]:
    """Reads the operation counts; empty if none were written."""
    return [count for count in _counts(path) if "reason" not in count]


def read_uncounted(path: Path) -> list[dict[str, Any]]:
    """Reads which networks could not be counted, with the reason."""
    return [count for count in _counts(path) if "reason" in count]


def _counts(path: Path) -> list[dict[str, Any]]:
    counts = read_json(path / COUNTS)
    if counts is None:
        return []
    if not (isinstance(counts, list) and all(map(_is_count, counts))):
        raise ResultsError(f"{path / COUNTS} line 1: not what dabench writes")
    return counts


_GRAPH = {"model", "channels", "height", "width", "mode"}
_COUNTED = {"batch", "macs", "executed_macs", "backward_macs", "executed_backward_macs"}


def _is_count(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    return document.keys() >= (_GRAPH if "reason" in document else _GRAPH | _COUNTED)
