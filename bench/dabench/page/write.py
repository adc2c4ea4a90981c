"""The page as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dabench.base.errors import UsageError
from dabench.base.files import write_atomically
from dabench.page.bundle import bundled
from dabench.page.gather import gather


def write_page(runs: Sequence[Path], *, folder: Path, name: str) -> Path:
    """Writes ``folder/name.html``, which needs nothing beside it and asks for nothing.

    Args:
        runs: Folders of runs, of whatever kinds and machines.
        folder: Made if missing.
        name: Of the file, and the page's title.

    Raises:
        UsageError: A folder without a run, or one that cannot be written.
        ResultsError: Damaged records.
    """
    text = bundled(gather(runs, f"dabench: {name}"))
    path = folder / f"{name}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
    return path
