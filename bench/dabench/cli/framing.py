"""What ``dabench time --frame`` does and prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dabench.base.errors import UsageError, check_choice
from dabench.cli.options import check_alone, grid_of
from dabench.cli.output import error_line, print_json, print_line, print_table, resumable
from dabench.plan.conventions import CONVENTIONS
from dabench.plan.references import split_names

if TYPE_CHECKING:
    from dabench.findings.frames import FrameTimes
    from dabench.plan.cases import Case


def check_frame(given: Mapping[str, Any]) -> None:
    """Checks the options beside ``--frame``.

    Raises:
        UsageError: One that means nothing there, or a convention that is none.
    """
    if "resume_from" in given:
        check_alone(given, {"convention"})
    elif "model" not in given:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    for key in ("percentiles", "deadline", "target_ci", "max_time", "phase", "rate", "order"):
        if key in given:
            option = "--" + key.replace("_", "-")
            raise UsageError(f"{option}: with --frame a launch has --repeat passes; leave it out")
    for name in _conventions(given):
        check_choice("--convention", name, tuple(CONVENTIONS))


def _conventions(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that are to be shown; all where none is named."""
    names = tuple(p for text in given.get("convention", ()) for p in split_names(text))
    return names or tuple(CONVENTIONS)


def time_frame(given: Mapping[str, Any], out: Path | None, *, quiet: bool, json: bool) -> None:
    """Times a frame's way into a new folder, or goes on with a run; prints its stages.

    Args:
        given: Checked by `check_frame`.
        out: The folder; None makes one.
        quiet: Whether launches are timed without a word.
        json: Whether one document is printed.
    """
    from dabench.plan.cases import expand
    from dabench.records.folder import new_run_folder
    from dabench.run.frames import check_cases, frames_into, parse_source, resume_frames

    told = _told(quiet=quiet or json)
    if "resume_from" in given:
        folder = Path(given["resume_from"])
        with resumable("time", folder):
            resume_frames(folder, told=told)
        _show(folder, _conventions(given), quiet=quiet, json=json)
        return
    grid, settings = grid_of(given)
    check_cases(expand(grid, settings))
    source = parse_source(given["frame"])
    command = shlex.join(["dabench", *sys.argv[1:]])
    with new_run_folder(out, f"frame-{'-'.join(grid.models)}"[:60]) as folder:
        with resumable("time", folder):
            frames_into(folder, grid, settings, source, command=command, told=told)
        _show(folder, _conventions(given), quiet=quiet, json=json)


def _told(*, quiet: bool) -> Callable[[Case], None]:
    def told(case: Case) -> None:
        if not quiet:
            error_line(f"timing {case.case_id}")

    return told


def _show(folder: Path, conventions: tuple[str, ...], *, quiet: bool, json: bool) -> None:
    from dabench.findings.frames import FRAME_RULE, frames_frame, read_frames

    document, found = read_frames(folder)
    good = [each for each in found if each.status == "ok"]
    if json:
        rows = frames_frame([folder]).astype(object)
        hidden = (rows["kind"] == "convention") & ~rows["part"].isin(conventions)
        rows = rows[~hidden]
        print_json(
            {
                "source": document["source"],
                "times": rows.where(rows.notna(), None).to_dict("records"),
            }
        )
    else:
        for each in good:
            _print(each, conventions)
        for each in found:
            said = (each.failed, each.notes) if each.status == "ok" else (each.status, each.reason)
            if any(said):
                print_line(f"{each.case.case_id}: {'; '.join(part for part in said if part)}")
        for line in document["left_out"]:
            print_line(f"{line}.")
        for name in conventions:
            if differs := CONVENTIONS[name].differs:
                print_line(f"{name}: {differs}.")
        if good:
            print_line(f"{FRAME_RULE[0].upper()}{FRAME_RULE[1:]}.")
        if not quiet:
            error_line(f"Records: {folder}")
    if not good:
        raise typer.Exit(1)


def _print(each: FrameTimes, conventions: tuple[str, ...]) -> None:
    from dabench.report.frames import convention_rows, stage_rows, way_of

    for rows, words in (
        (stage_rows(each), ("stage",)),
        (
            [row for row in convention_rows(each) if row["convention"] in conventions],
            ("convention", "leaves out"),
        ),
    ):
        title = f"{each.case.model}, {way_of(each)}" if "stage" in rows[0] else ""
        print_table(title, tuple(rows[0]), [tuple(row.values()) for row in rows], words=words)
