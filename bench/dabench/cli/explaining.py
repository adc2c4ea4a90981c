"""``dabench explain`` and ``dabench audit``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dabench.base.errors import UsageError, bad_value
from dabench.cli.output import console, error_line, print_json, print_line, print_table
from dabench.cli.profiling import finish, run_with_progress
from dabench.cli.timing import (
    Inputs,
    Json,
    ModelArgs,
    Out,
    Pretrained,
    Quiet,
    grid_of,
    progress,
    set_pretrained,
)
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.findings.explain import Explanation

SETTINGS = (("fp32", "bf16?"), ("nchw", "nhwc"))
PHASES = "forward,backward"


def explain(
    first: Annotated[str, typer.Argument(help="The network to compare with.")] = "disc",
    second: Annotated[str, typer.Argument(help="The one that should be faster.")] = "dw-disc",
    device: Annotated[str, typer.Option(metavar="DEVICE", help="As in 'dabench time'.")] = "auto",
    batch: Annotated[str, typer.Option(metavar="BATCH", help="Images per pass.")] = "2",
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Default: the model's own.")
    ] = None,
    input_: Inputs = None,
    model_arg: ModelArgs = None,
    pretrained: Pretrained = None,
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="eval: forward; train: forward and backward.")
    ] = "eval",
    threads: Annotated[
        str | None, typer.Option(metavar="THREADS", help="Default: torch's.")
    ] = None,
    max_time: Annotated[str, typer.Option(metavar="TIME", help="Per network and setting.")] = "12s",
    trials: Annotated[
        bool,
        typer.Option(
            "--trials/--no-trials", help="Also time torch.compile, other batches and threads."
        ),
    ] = True,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say in plain words why one network is not as much faster as its operations promise.

    Profiles both in fp32 and bf16, NCHW and NHWC, and tells from which layers
    and causes the difference comes; then what compiling, other batches and
    threads change.

    Example: dabench explain disc dw-disc --batch 2 --threads 1
    """
    set_pretrained(pretrained)
    dtypes, formats = SETTINGS
    given = {
        "model": [first, second],
        "device": [device],
        "batch": [batch],
        "mode": [mode],
        "dtype": [",".join(dtypes)],
        "memory_format": [",".join(formats)],
        "phase": [PHASES],
        "max_time": max_time,
        **({"size": [size]} if size else {}),
        **({"input": input_} if input_ else {}),
        **({"model_arg": model_arg} if model_arg else {}),
        **({"threads": [threads]} if threads else {}),
    }
    grid = grid_of(given)
    one, two = _pair(*grid)
    from dabench.findings.explain import BASE, runs_of
    from dabench.findings.explain import explain as explained
    from dabench.findings.trials import read_trials
    from dabench.records.folder import new_run_folder

    with new_run_folder(out, f"profile-{one}-{two}") as folder:
        done = run_with_progress([grid], folder, trace=False, quiet=quiet or json)
    runs = runs_of(done.models, done.layers)
    if (one, BASE) not in runs or (two, BASE) not in runs:
        for row in done.models:
            if row.status != "ok":
                error_line(f"{row.case_id} {row.phase}: {row.status}: {row.reason}")
        finish(done)
        raise typer.Exit(1)
    interrupted = done.interrupted
    if trials and not interrupted:
        interrupted = _try_changes(grid[0], done.folder, quiet=quiet or json)
    text = explained(one, two, runs, BASE, read_trials(done.folder, one, two))
    _print_explanation(text, json=json)
    if not (json or quiet):
        console(stderr=True).print(f"Records: {done.folder}", markup=False)
    finish(replace(done, interrupted=interrupted))


def _pair(axes: Grid, settings: Settings) -> tuple[str, str]:
    """The two networks of an explanation, checked to be comparable.

    Raises:
        UsageError: They are one, or more, or do not take one input.
    """
    from dabench.plan.cases import expand

    single = (axes.batches, axes.modes, axes.sizes, axes.threads, axes.devices)
    if len(axes.models) != 2 or any(len(values) > 1 for values in single):
        raise UsageError(
            "explain compares two networks at one device, batch, size, mode and number of threads"
        )
    if axes.inputs != ("device",):
        raise bad_value("--input", "host", "an explanation is of the network alone; name CxHxW")
    shapes = {
        case.model: f"{case.channels}x{case.height}x{case.width}"
        for case in (planned.case for planned in expand(replace(axes, phases=()), settings))
    }
    if len(shapes) < 2:
        raise UsageError(f"explain needs two networks, not {axes.models[0]!r} twice")
    (one, shape), (two, other) = shapes.items()
    if shape != other:
        raise UsageError(
            f"--input: {one} takes {shape} and {two} {other} unless you say otherwise; networks "
            "are compared on one input, such as --input 3x512x1024"
        )
    return one, two


def _print_explanation(text: Explanation, *, json: bool) -> None:
    from dabench.findings.explain import EVIDENCE_COLUMNS

    if json:
        evidence = [dict(zip(EVIDENCE_COLUMNS, row, strict=True)) for row in text.evidence]
        print_json({"sentences": text.sentences, "evidence": evidence})
        return
    for sentence in text.sentences:
        print_line(f"- {sentence}")
    print_table("", EVIDENCE_COLUMNS, text.evidence, words=EVIDENCE_COLUMNS[1:4])


def _try_changes(grid: Grid, folder: Path, *, quiet: bool) -> bool:
    """Times whole passes with one thing changed, into the profile's folder.

    Returns:
        Whether Ctrl-C ended it.
    """
    from dabench.device.machine import describe_host
    from dabench.findings.trials import FOLDER, trial_grids
    from dabench.run.session import run_grids

    grids = trial_grids(grid, int(describe_host()["usable_cores"]))
    command = shlex.join(["dabench", *sys.argv[1:]])
    with progress(quiet=quiet) as observer:
        session = run_grids(grids, folder=folder / FOLDER, observer=observer, command=command)
    for row in session.outcome.measurements:
        if row.status != "ok":
            error_line(f"{row.case_id}: {row.status}: {row.reason}")
    return session.outcome.interrupted


def audit(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Runs of time or sweep, besides the published."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write audit.md into this folder.")] = None,
    json: Json = False,
) -> None:
    """Find times that cannot be true: below what the chip could do, or at odds with each other.

    Without runs it audits the published tables.
    """
    from dataclasses import asdict

    from dabench.findings.tables import load, parts_of
    from dabench.records.folder import kind_of
    from dabench.report.audit import audited, write_audit

    folders = [path for folder in runs or [] for path in parts_of(folder) or [folder]]
    for path in folders:
        if kind_of(path) != "timing":
            raise UsageError(f"{path} holds no timings; audit takes runs of time or sweep")
    loaded = load(folders) if folders else None
    findings, unknown = audited(loaded, with_published=True)
    if json:
        print_json({"findings": [asdict(f) for f in findings], "no_peak_known": unknown})
    else:
        for finding in findings:
            print_line(f"{finding.source}, {finding.machine}, {finding.what}: {finding.finding}")
            print_line(f"    {finding.evidence}")
        print_line(f"{len(findings)} findings; no peak is listed for: {', '.join(unknown) or '-'}.")
    if out is not None:
        console(stderr=True).print(str(write_audit(loaded, out)), markup=False)
