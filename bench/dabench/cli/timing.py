"""``dabench time`` and ``dabench sweep``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError
from dabench.cli.clusters import Machines, On, Where, where_of
from dabench.cli.framing import check_frame, time_frame
from dabench.cli.loads import Deadline, Percentiles, asked, loads_document, print_loads
from dabench.cli.measurements import print_measurements
from dabench.cli.options import (
    OPTIONS,
    Json,
    Out,
    Quiet,
    ResumeFrom,
    Several,
    check_alone,
    grid_of,
    named,
    option,
    typed,
    with_options,
)
from dabench.cli.output import print_json, print_line, resuming
from dabench.plan.collections import with_networks
from dabench.plan.conventions import CONVENTIONS
from dabench.plan.grids import load_grids, presets
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.run.runner import Observer
    from dabench.run.session import Session

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Shown:
    """What is printed of a run.

    Attributes:
        percentiles: Names of those to print.
        deadline_s: Of which the share within is printed; None for none.
    """

    quiet: bool
    json: bool
    percentiles: Sequence[str] = ()
    deadline_s: float | None = None


@with_options(*OPTIONS)
def time(
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    percentiles: Percentiles = None,
    deadline: Deadline = None,
    frame: Annotated[
        str | None,
        option(
            "--frame",
            "An image file, or raw:HxW for a camera's frame: its way to a label map, stage by "
            "stage.",
        ),
    ] = None,
    convention: Annotated[
        Several, option("--convention", "Of a frame: what others time. Default all.", CONVENTIONS)
    ] = None,
    **given: Any,
) -> None:
    """Time forward, backward and optimiser of models.

    Options take several values, repeated or separated by commas; every
    combination is a case, measured in fresh processes.
    """
    given = named(locals())
    if frame is not None or _is_of_frames(resume_from):
        check_frame(given)
        time_frame(given, out, quiet=quiet, json=json)
        return
    if convention:
        raise UsageError("--convention: it is of a --frame; name one")
    shown = Shown(quiet, json, *asked(percentiles, deadline))
    if resume_from is not None:
        check_alone(given, {"percentiles", "deadline"})
        continue_timing(resume_from, shown)
        return
    if "model" not in given:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    grid = grid_of(given)
    _measure([grid], shown, out=out, name=f"time-{_names(grid[0])}")


def _is_of_frames(folder: Path | None) -> bool:
    from dabench.records.folder import has_run, kind_of

    return folder is not None and has_run(folder) and kind_of(folder) == "frame"


@with_options(*OPTIONS)
def sweep(
    source: Annotated[
        str | None, typer.Argument(metavar="PRESET|FILE.toml", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, option("--preset", "The same as the argument.", presets())
    ] = None,
    checkout: Annotated[
        Path | None,
        typer.Option(
            "--source",
            metavar="PATH",
            help="Adds every network of a checkout to the preset's or the file's.",
        ),
    ] = None,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    percentiles: Percentiles = None,
    deadline: Deadline = None,
    on: On = None,
    machines: Machines = None,
    **given: Any,
) -> None:
    """Measure a preset, the grids of a TOML file, or what the options say.

    The options of 'dabench time' replace a grid's own values; without a preset
    or file they are the grid.
    """
    given = named(locals())
    shown = Shown(quiet, json, *asked(percentiles, deadline))
    where = where_of(on, machines)
    if resume_from is not None:
        check_alone(given, {"percentiles", "deadline", "on"})
        continue_timing(resume_from, shown, where)
        return
    if source and preset:
        raise UsageError(f"--preset: {preset!r} beside {source!r}; name one")
    chosen = source or preset
    if checkout is not None and chosen is None:
        raise UsageError("--source: it adds to a preset or a file; name one")
    if chosen is not None:
        grids, name = load_grids(chosen, *typed(given)), Path(chosen).stem
        if checkout is not None:
            grids = [(with_networks(grid, checkout), settings) for grid, settings in grids]
    elif "model" in given:
        grids = [grid_of(given)]
        name = f"sweep-{_names(grids[0][0])}"
    else:
        raise UsageError(f"sweep needs a preset ({', '.join(presets())}), a .toml file or --model")
    _measure(grids, shown, out=out, name=name, where=where)


def _names(grid: Grid) -> str:
    return "-".join(dict.fromkeys(grid.models))[:60]


def _measure(
    grids: list[tuple[Grid, Settings]],
    shown: Shown,
    *,
    out: Path | None,
    name: str,
    where: Where | None = None,
) -> None:
    from dabench.records.folder import new_run_folder

    command = shlex.join(["dabench", *sys.argv[1:]])
    with new_run_folder(out, name) as folder:
        run_timing(grids, folder, shown, command=command, where=where)


def run_timing(
    grids: list[tuple[Grid, Settings]],
    folder: Path,
    shown: Shown,
    *,
    command: str,
    where: Where | None = None,
) -> None:
    """Measures grids into a new folder, here or on a cluster; prints the rows."""
    if where is not None:
        _show(where.measure(grids, folder, command), folder, shown, where)
        return
    from dabench.run.session import run_grids

    _show(
        lambda observer: [run_grids(grids, folder=folder, observer=observer, command=command)],
        folder,
        shown,
    )


def continue_timing(folder: Path, shown: Shown, where: Where | None = None) -> None:
    """Continues the run in a folder, or those of a cluster; prints the rows."""
    if where is not None:
        _show(where.resume(folder), folder, shown, where)
        return
    from dabench.run.session import resume

    _show(lambda observer: [resume(folder, observer=observer)], folder, shown)


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


def _show(
    run: Callable[[Observer], list[Session]],
    folder: Path,
    shown: Shown,
    where: Where | None = None,
) -> None:
    """Runs with progress, then prints rows, machine by machine; says where the records are.

    Of a cluster JSON lists machines, however many there are.

    Raises:
        UsageError: No network can hold the rate that was asked for.
    """
    with progress(quiet=shown.quiet or shown.json) as observer:
        sessions = run(observer)
    interrupted = any(session.outcome.interrupted for session in sessions)
    command = "sweep" if where is None else f"sweep --on {where.on}"
    try:
        _print(sessions, shown, many=where is not None)
    finally:
        # Also where nothing could be printed.
        say_where(folder, command, interrupted=interrupted, quiet=shown.quiet, json=shown.json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    rows = [row for session in sessions for row in session.outcome.measurements]
    if rows and all(row.status == "overloaded" for row in rows):
        raise UsageError(rows[0].reason)
    if not any(row.status == "ok" for row in rows):
        raise typer.Exit(1)


def _print(sessions: Sequence[Session], shown: Shown, *, many: bool) -> None:
    if shown.json:
        documents = [_document(session, shown) for session in sessions]
        print_json({"machines": documents} if many else documents[0])
    else:
        for session in sessions:
            print_measurements(session.outcome.measurements)
            print_loads(*_tails(session, shown))


def _document(session: Session, shown: Shown) -> dict[str, Any]:
    measurements = [row.to_dict() for row in session.outcome.measurements]
    document = {"environment": session.environment, "measurements": measurements}
    return {**document, **loads_document(*_tails(session, shown))}


def _tails(session: Session, shown: Shown) -> tuple[Any, ...]:
    """What is looked at of a run beside its rows."""
    rows = session.outcome.measurements
    return session.folder, rows, shown.percentiles, shown.deadline_s


def say_where(
    folder: Path | None, command: str, *, interrupted: bool, quiet: bool, json: bool
) -> None:
    """Says where the records of a run are and, should it be interrupted, what continues it."""
    if not (quiet or json):
        print_line(f"Records: {folder}", stderr=True)
    if interrupted:
        print_line(f"Interrupted; '{resuming(command, folder)}' continues.", stderr=True)
