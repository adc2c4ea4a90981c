"""``dabench history``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dabench.base.units import format_interval, format_seconds, threshold_of
from dabench.cli.keeping import ROOT
from dabench.cli.options import Json, option
from dabench.cli.output import error_line, print_json, print_line, print_table

if TYPE_CHECKING:
    from dabench.findings.history import History, Point

WHOLE = 3
"""So many histories are shown run by run; of more the last run of each."""


def history(
    roots: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER...", help="Default: results.", show_default=False),
    ] = None,
    case: Annotated[
        str | None, option("--case", "Part of a case's id, such as dw-disc/cpu, or a pattern.")
    ] = None,
    delta: Annotated[
        str | None, option("--delta", "Steps of up to this are left out. Default 2%.")
    ] = None,
    json: Json = False,
) -> None:
    """Show one case over commits and dates, and where it became faster or slower.

    Each machine has a history of its own. A step is marked where the runs before
    and after differ by more than the case scatters.
    """
    from dabench.findings.history import histories
    from dabench.timing.verdicts import DELTA

    margin = DELTA if delta is None else threshold_of("--delta", delta)
    found, unreadable = histories(roots or [ROOT], case, margin)
    if json:
        known = [each.to_dict() for each in found]
        lost = {str(path): reason for path, reason in unreadable}
        print_json({"delta": margin, "histories": known, "unreadable": lost})
        return
    for path, reason in unreadable:
        error_line(f"{path} cannot be read: {reason}")
    if len(found) > WHOLE:
        _print_summary(found)
    else:
        for each in found:
            _print_whole(each)
    from dabench.timing.changes import STEP_RULE

    print_line(f"Steps of over {margin:.1%}; {STEP_RULE}.")


def _print_summary(found: Sequence[History]) -> None:
    print_table(
        "",
        ("machine", "case", "phase", "runs", "last median", "steps"),
        (
            (
                each.machine,
                each.case_id,
                each.phase,
                str(len(each.points)),
                format_seconds(each.points[-1].time.estimate),
                "; ".join(f"{_step(point)} on {point.created[:10]}" for point in each.steps),
            )
            for each in found
        ),
        words=("machine", "case", "phase", "steps"),
    )


def _print_whole(each: History) -> None:
    print_table(
        f"{each.case_id} {each.phase} on {each.machine}",
        ("begun (UTC)", "run", "commit", "median", "95% interval", "launches", "step", "changed"),
        (
            (
                point.created[:16].replace("T", " "),
                Path(point.run).name,
                point.commit,
                format_seconds(point.time.estimate),
                format_interval(point.time.low, point.time.high),
                str(point.launches),
                _step(point),
                point.changed,
            )
            for point in each.points
        ),
        words=("begun (UTC)", "run", "commit", "step", "changed"),
    )


def _step(point: Point) -> str:
    if point.step is None:
        return ""
    word = "slower" if point.step.ratio > 1 else "faster"
    return f"{word}, x {point.step.ratio:.3f}"
