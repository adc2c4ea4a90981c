"""Ceilings on disk: what a run of kind ``ceilings`` holds beside its ``run.json``.

``ceilings.json`` lists documents of `dabench.profiling.roofline.Ceilings`, one per
setting.
"""

from __future__ import annotations

from pathlib import Path

from dabench.base.errors import ResultsError
from dabench.profiling.roofline import Ceilings, Setting
from dabench.records.folder import RunFolder, read_json

KIND = "ceilings"
CEILINGS = "ceilings.json"


class CeilingsRecord:
    """Adds to one run of ceilings.

    Args:
        run: Its folder.

    Attributes:
        found: Setting -> its ceilings.

    Raises:
        ResultsError: What it holds is damaged.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.found = read_ceilings(run.path)

    def keep(self, ceilings: Ceilings) -> None:
        """Adds one setting, in place of what was known of it; on disk when this returns."""
        self.found[ceilings.setting] = ceilings
        self.run.write_json(CEILINGS, [each.to_dict() for each in self.found.values()])


def read_ceilings(path: Path) -> dict[Setting, Ceilings]:
    """Reads the ceilings of a run, by setting; empty if none were written.

    Raises:
        ResultsError: Not what dabench writes.
    """
    try:
        # Those of an older dabench lack streams.
        found = [Ceilings.of({**each, "streams": each["streams"]}) for each in _documents(path)]
        return {each.setting: each for each in found}
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path / CEILINGS}: not what dabench writes: {error}") from None


def _documents(path: Path) -> list[dict[str, object]]:
    return list(read_json(path / CEILINGS) or [])
