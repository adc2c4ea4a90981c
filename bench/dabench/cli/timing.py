"""``dabench time`` and ``dabench sweep``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError
from dabench.cli.measurements import print_measurements
from dabench.cli.options import (
    OPTIONS,
    Json,
    Out,
    Quiet,
    ResumeFrom,
    check_alone,
    grid_of,
    named,
    option,
    typed,
    with_options,
)
from dabench.cli.output import console, print_json
from dabench.plan.grids import load_grids, presets
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.run.runner import Observer
    from dabench.run.session import Session

INTERRUPTED = 130


@with_options(*OPTIONS)
def time(
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Time forward, backward and optimiser of models.

    Options take several values, repeated or separated by commas; every
    combination is a case, measured in fresh processes.

    Example: dabench time --model disc,dw-disc --batch 8 --mode train,eval
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given)
        continue_timing(resume_from, quiet=quiet, json=json)
        return
    if "model" not in given:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    grid = grid_of(given)
    _measure([grid], out=out, name=f"time-{_names(grid[0])}", quiet=quiet, json=json)


@with_options(*OPTIONS)
def sweep(
    source: Annotated[
        str | None, typer.Argument(metavar="PRESET|FILE.toml", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, option("--preset", "The same as the argument.", presets())
    ] = None,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Measure a preset, the grids of a TOML file, or what the options say.

    The options of 'dabench time' replace a grid's own values; without a preset
    or file they are the grid.

    Example: dabench sweep --model disc,dw-disc --batch 1,8
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given)
        continue_timing(resume_from, quiet=quiet, json=json)
        return
    if source and preset:
        raise UsageError(f"--preset: {preset!r} beside {source!r}; name one")
    chosen = source or preset
    if chosen is not None:
        grids, name = load_grids(chosen, *typed(given)), Path(chosen).stem
    elif "model" in given:
        grids = [grid_of(given)]
        name = f"sweep-{_names(grids[0][0])}"
    else:
        raise UsageError(f"sweep needs a preset ({', '.join(presets())}), a .toml file or --model")
    _measure(grids, out=out, name=name, quiet=quiet, json=json)


def _names(grid: Grid) -> str:
    return "-".join(dict.fromkeys(grid.models))[:60]


def _measure(
    grids: list[tuple[Grid, Settings]], *, out: Path | None, name: str, quiet: bool, json: bool
) -> None:
    from dabench.records.folder import new_run_folder

    command = shlex.join(["dabench", *sys.argv[1:]])
    with new_run_folder(out, name) as folder:
        run_timing(grids, folder, command=command, quiet=quiet, json=json)


def run_timing(
    grids: list[tuple[Grid, Settings]], folder: Path, *, command: str, quiet: bool, json: bool
) -> None:
    """Measures grids into a new folder; prints the rows."""
    from dabench.run.session import run_grids

    _show(
        lambda observer: run_grids(grids, folder=folder, observer=observer, command=command),
        quiet=quiet,
        json=json,
    )


def continue_timing(folder: Path, *, quiet: bool, json: bool) -> None:
    """Continues the run in a folder; prints its rows."""
    from dabench.run.session import resume

    _show(lambda observer: resume(folder, observer=observer), quiet=quiet, json=json)


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Observer]:
    """A bar that shows the launches, or nothing."""
    from dabench.run.session import NoProgress

    if quiet:
        yield NoProgress()
        return
    from dabench.cli.progress import LiveProgress

    with LiveProgress() as observer:
        yield observer


def _show(run: Callable[[Observer], Session], *, quiet: bool, json: bool) -> None:
    """Runs with progress, then prints rows; says where the records are."""
    with progress(quiet=quiet or json) as observer:
        session = run(observer)
    rows = session.outcome.measurements
    if json:
        measurements = [row.to_dict() for row in rows]
        print_json({"environment": session.environment, "measurements": measurements})
    else:
        print_measurements(rows)
    say_where(session, "sweep", quiet=quiet, json=json)
    if session.outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not any(row.status == "ok" for row in rows):
        raise typer.Exit(1)


def say_where(session: Session, command: str, *, quiet: bool, json: bool) -> None:
    """Says where the records of a run are and, should it be interrupted, what continues it."""
    if json:
        return
    if not quiet:
        console(stderr=True).print(f"Records: {session.folder}", markup=False)
    if session.outcome.interrupted:
        again = f"dabench {command} --resume {session.folder}"
        console(stderr=True).print(f"Interrupted; '{again}' continues.", markup=False)
