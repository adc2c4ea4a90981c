"""``dabench profile``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value
from dabench.base.units import (
    format_count,
    format_interval,
    format_seconds,
    significant,
)
from dabench.cli.options import (
    Json,
    Out,
    Quiet,
    ResumeFrom,
    check_alone,
    grid_of,
    named,
    with_options,
)
from dabench.cli.output import error_line, print_json, print_line, print_table, resuming
from dabench.cli.timing import INTERRUPTED, progress

if TYPE_CHECKING:
    from dabench.records.profiles import LayerRow, ModelRow
    from dabench.run.profiler import Profile


PROFILED = (
    "model", "device", "batch", "size", "mode", "dtype", "memory_format", "threads", "input",
    "allocator", "model_arg", "pretrained", "max_time", "launches", "timeout", "seed",
)  # fmt: skip
"""Options of a sweep that a profile has, too."""


@with_options(*PROFILED)
def profile(
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Keep a Chrome/Perfetto trace and the memory over time."),
    ] = False,
    rows: Annotated[int, typer.Option(help="Layers printed per model; all are kept.")] = 12,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Show where the time goes, layer by layer, and what holds each layer back."""
    given = named(locals())
    _check_rows(rows)
    if resume_from is not None:
        check_alone(given, {"rows"})
        from dabench.run.profiler import resume_profile

        with progress(quiet=quiet or json) as observer:
            done = resume_profile(resume_from, observer=observer)
        _show(done, rows=rows, quiet=quiet, json=json)
        return
    if "model" not in given:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    given.setdefault("max_time", "12s")
    grid = grid_of(given)
    if grid[0].inputs != ("device",):
        raise bad_value("--input", "host", "a profile is of the network alone; it takes CxHxW")
    from dabench.records.folder import new_run_folder

    name = "-".join(dict.fromkeys(grid[0].models))[:60]
    with new_run_folder(out, f"profile-{name}") as folder:
        done = run_with_progress([grid], folder, trace=trace, quiet=quiet or json)
    _show(done, rows=rows, quiet=quiet, json=json)


def _check_rows(rows: int) -> None:
    if rows < 1:
        raise bad_value("--rows", rows, "it takes a whole number of at least 1")


def _show(done: Profile, *, rows: int, quiet: bool, json: bool) -> None:
    """Prints a profile and ends the command with the exit code that fits."""
    if json:
        from dataclasses import asdict

        print_json(
            {
                "ceilings": [each.to_dict() for each in done.ceilings.values()],
                "models": [asdict(row) for row in done.models],
                "layers": [asdict(row) for row in done.layers],
            }
        )
    else:
        _print_profile(done, rows)
        if not quiet:
            print_line(f"Records: {done.folder}", stderr=True)
    finish(done, "profile")


def run_with_progress(
    grids: list[Any],
    folder: Path,
    *,
    trace: bool = False,
    quiet: bool,
    explains: dict[str, Any] | None = None,
) -> Profile:
    """Profiles grids into a folder, with a bar unless quiet."""
    from dabench.run.profiler import run_profile

    command = shlex.join(["dabench", *sys.argv[1:]])
    with progress(quiet=quiet) as observer:
        return run_profile(
            grids, folder=folder, observer=observer, command=command, trace=trace, explains=explains
        )


def finish(done: Profile, command: str) -> None:
    """Ends a command with the exit code that fits; an interrupted one says how to go on."""
    if done.interrupted:
        error_line(f"interrupted; '{resuming(command, done.folder)}' continues")
        raise typer.Exit(INTERRUPTED)
    if not any(row.status == "ok" for row in done.models):
        raise typer.Exit(1)


def _print_profile(done: Profile, limit: int) -> None:
    for row in done.models:
        if row.status != "ok":
            print_line(f"{row.case_id} {row.phase}: {row.status}: {row.reason}")
            continue
        mine = [r for r in done.layers if (r.case_id, r.phase) == (row.case_id, row.phase)]
        _print_layers(row, mine, limit)
    print_line(
        "roof: share of what the machine's ceilings allow, which 'dabench ceilings' shows; '!': "
        "faster than they allow, so the ceiling is too low and says little."
    )


def _print_layers(model: ModelRow, rows: list[LayerRow], limit: int) -> None:
    from dabench.profiling.roofline import format_roof

    first = sorted(rows, key=lambda row: -row.median_s)[:limit]
    low, high = model.ci_low_s or 0.0, model.ci_high_s or 0.0
    print_table(
        f"{model.case_id} {model.phase}: {format_seconds(model.median_s)} "
        f"({format_interval(low, high)}), {_percent(model.roof_fraction)} of its roof, "
        f"mostly {model.bound or 'unknown'}; "
        f"hooks {model.disturbance:+.1%}, {model.passes} passes in {model.launches} launches",
        ("layer", "kind", "time", "share", "MACs", "FLOP/byte", "GFLOP/s", "GB/s", "roof", "bound"),
        [
            (
                row.layer, row.kind, format_seconds(row.median_s), _percent(row.share),
                format_count(row.macs), _number(row.intensity),
                _number(None if row.flops_per_s is None else row.flops_per_s / 1e9),
                _number(None if row.bytes_per_s is None else row.bytes_per_s / 1e9),
                format_roof(row.roof_fraction), row.bound or "-",
            )
            for row in first
        ],
        words=("layer", "kind", "bound"),
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else significant(value)
