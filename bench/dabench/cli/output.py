"""What the command line prints: rich tables for people, one JSON document for scripts."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dabench.base.errors import DabenchError

if TYPE_CHECKING:
    from rich.console import Console


# Where output goes to a file or a pipe nothing is gained by folding columns.
_UNFOLDED = 250


def console(*, stderr: bool = False) -> Console:
    """A console; made late, since rich is not needed for ``--json``."""
    from dabench.cli.consoles import UnbrokenConsole

    made = UnbrokenConsole(stderr=stderr, highlight=False, emoji=False, soft_wrap=stderr)
    if made.is_terminal:
        return made
    return UnbrokenConsole(stderr=stderr, highlight=False, emoji=False, width=_UNFOLDED)


def error_line(message: str) -> None:
    """Prints one line on standard error; where nobody can read it the exit code must do."""
    if sys.stderr is not None:
        with told():
            sys.stderr.write(f"dabench: {' '.join(message.split())}\n")
            sys.stderr.flush()


@contextmanager
def told() -> Iterator[None]:
    """A context that writes to standard error, or to nobody where that takes nothing."""
    try:
        yield
    except OSError:
        to_nobody(sys.stderr)


def to_nobody(stream: IO[str]) -> None:
    """Lets go of what is or will be written to a stream that takes nothing any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    # What a program puts in place of a stream may have no file.
    with suppress(OSError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def written_out() -> Iterator[None]:
    """A context that writes to standard output.

    A reader that has gone, such as ``head``, is no error: the exit code still says what was found.

    Raises:
        DabenchError: It cannot be written, such as to a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        to_nobody(sys.stdout)
    except OSError as error:
        to_nobody(sys.stdout)
        raise DabenchError(f"cannot write to standard output: {error.strerror or error}") from error


def write_out(text: str) -> None:
    """Writes text to standard output as it is; raises as `written_out`."""
    if sys.stdout is not None:
        with written_out():
            sys.stdout.write(text)
            sys.stdout.flush()


@contextmanager
def resumable(command: str, folder: Path | None) -> Iterator[None]:
    """Says how a run that Ctrl-C ends goes on, where it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None:
            error_line(f"interrupted; '{resuming(command, folder)}' continues")
        raise


def resuming(command: str, folder: Path | None) -> str:
    """The line that continues a run of a command (with its first options), for a shell."""
    return shlex.join(["dabench", *command.split(), "--resume", str(folder)])


def print_line(text: str, *, stderr: bool = False) -> None:
    """Prints text as it is, folded to a terminal; raises as `written_out`."""
    shown = console(stderr=stderr)
    shown.print(text, markup=False, soft_wrap=stderr or not shown.is_terminal)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one document, and nothing else, on standard output."""
    from dabench.base.files import json_text
    from dabench.records.folder import SCHEMA

    write_out(json_text({"schema": SCHEMA, **document}))


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str]
) -> None:
    """Prints a table; columns not in ``words`` are numbers and go right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Names of others may hold what rich takes for colours.
    heading = Text(title, "table.title") if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(
            name, justify="left" if name in words else "right", overflow="fold", no_wrap=False
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)
