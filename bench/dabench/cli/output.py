"""What the command line prints: rich tables for people, one JSON document for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


# Where output goes to a file or a pipe nothing is gained by folding columns.
_UNFOLDED = 250


def console(*, stderr: bool = False) -> Console:
    """A console; made late, since rich is not needed for ``--json``."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=stderr)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_UNFOLDED)


def error_line(message: str) -> None:
    """Prints one line on standard error."""
    sys.stderr.write(f"dabench: {' '.join(message.split())}\n")


@contextmanager
def resumable(command: str, folder: Path | None) -> Iterator[None]:
    """Says how a run that Ctrl-C ends goes on, where it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None:
            error_line(f"interrupted; 'dabench {command} --resume {folder}' continues")
        raise


def print_line(text: str) -> None:
    """Prints text as it is, folded to the terminal."""
    console().print(text, markup=False, emoji=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one document, and nothing else, on standard output."""
    from dabench.base.files import json_text
    from dabench.records.folder import SCHEMA

    sys.stdout.write(json_text({"schema": SCHEMA, **document}))


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str]
) -> None:
    """Prints a table; columns not in ``words`` are numbers and go right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(
            name, justify="left" if name in words else "right", overflow="fold", no_wrap=False
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)
