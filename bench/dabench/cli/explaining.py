"""``dabench explain``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value, named_as
from dabench.cli.options import (
    Inputs,
    Json,
    ModelArgs,
    Out,
    Pretrained,
    Quiet,
    ResumeFrom,
    check_alone,
    grid_of,
    named,
)
from dabench.cli.output import error_line, print_json, print_line, print_table
from dabench.cli.profiling import finish, run_with_progress
from dabench.cli.timing import progress
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.findings.explain import Explanation
    from dabench.run.profiler import Profile

SETTINGS = (("fp32", "bf16?"), ("nchw", "nhwc"))
PHASES = "forward,backward"
MAX_TIME = "12s"


def explain(
    first: Annotated[
        str | None, typer.Argument(help="The network to compare with.", show_default="disc")
    ] = None,
    second: Annotated[
        str | None, typer.Argument(help="The one that should be faster.", show_default="dw-disc")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="As in 'dabench time'.", show_default="auto"),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Images per pass.", show_default="2")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Default: the model's own.")
    ] = None,
    input_: Inputs = None,
    model_arg: ModelArgs = None,
    pretrained: Pretrained = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE", help="eval: forward; train: forward and backward.", show_default="eval"
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="THREADS", help="Default: torch's.")
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Per network and setting.", show_default="12s"),
    ] = None,
    launches: Annotated[
        str | None,
        typer.Option(
            metavar="LAUNCHES",
            help="Fresh processes per network and setting.",
            show_default="3, more while time allows",
        ),
    ] = None,
    trials: Annotated[
        bool | None,
        typer.Option(
            "--trials/--no-trials",
            help="Also time torch.compile, other batches and threads.",
            show_default="trials",
        ),
    ] = None,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say in plain words why one network is not as much faster as its operations promise.

    Profiles both in fp32 and bf16, NCHW and NHWC, and tells from which layers
    and causes the difference comes; then what compiling, other batches and
    threads change.
    """
    given = named(locals())
    hidden = quiet or json
    if resume_from is not None:
        check_alone(given if trials is None else {**given, "trials": trials})
        done, asked = _resumed(resume_from, quiet=hidden)
    else:
        done, asked = _begun(given, out=out, trials=trials is not False, quiet=hidden)
    from dabench.findings.explain import BASE, runs_of
    from dabench.findings.explain import explain as explained
    from dabench.findings.trials import read_trials

    one, two = asked["networks"]
    runs = runs_of(done.models, done.layers)
    if (one, BASE) not in runs or (two, BASE) not in runs:
        for row in done.models:
            if row.status != "ok":
                error_line(f"{row.case_id} {row.phase}: {row.status}: {row.reason}")
        finish(done, "explain")
        raise typer.Exit(1)
    if asked["trials"] and not done.interrupted:
        interrupted = _try_changes(done, (one, two), asked.get("launches"), quiet=hidden)
        done = replace(done, interrupted=interrupted)
    text = explained(one, two, runs, BASE, read_trials(done.folder, one, two))
    _print_explanation(text, json=json)
    if not hidden:
        print_line(f"Records: {done.folder}", stderr=True)
    finish(done, "explain")


def _begun(
    given: dict[str, Any], *, out: Path | None, trials: bool, quiet: bool
) -> tuple[Profile, dict[str, Any]]:
    """Profiles both networks; what was asked, as a run keeps it, beside the profile."""
    from dabench.records.folder import new_run_folder

    dtypes, formats = SETTINGS
    several = ("device", "batch", "mode", "size", "threads")
    with named_as("FIRST or SECOND", "--model"):
        grid = grid_of(
            {
                "batch": ["2"],
                "max_time": MAX_TIME,
                **{name: [value] if name in several else value for name, value in given.items()},
                "model": [given.get("first", "disc"), given.get("second", "dw-disc")],
                "dtype": [",".join(dtypes)],
                "memory_format": [",".join(formats)],
                "phase": [PHASES],
            }
        )
        networks = _pair(*grid)
    asked = {"networks": list(networks), "trials": trials, "launches": grid[1].launches}
    with new_run_folder(out, f"profile-{'-'.join(networks)}") as folder:
        return run_with_progress([grid], folder, quiet=quiet, explains=asked), asked


def _resumed(folder: Path, *, quiet: bool) -> tuple[Profile, dict[str, Any]]:
    """What an interrupted explanation holds, with the rest of its profile measured."""
    from dabench.records.folder import read_run
    from dabench.run.profiler import resume_profile

    asked = read_run(folder, "profile").get("explains")
    if asked is None:
        raise UsageError(
            f"{folder} is a profile of 'dabench profile', which continues it with --resume"
        )
    with progress(quiet=quiet) as observer:
        return resume_profile(folder, observer=observer), asked


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


def _try_changes(
    done: Profile, networks: tuple[str, str], launches: int | None, *, quiet: bool
) -> bool:
    """Times whole passes with one thing changed, into the profile's folder.

    Args:
        done: The profile.
        networks: Both.
        launches: Asked for; None for those of `trial_grids`.
        quiet: No progress.

    Returns:
        Whether Ctrl-C ended it.
    """
    from dabench.device.machine import describe_host
    from dabench.device.memory import can_keep_freed_pages
    from dabench.findings.trials import FOLDER, LAUNCHES, trial_grids
    from dabench.records.folder import has_run
    from dabench.run.session import resume, run_grids

    folder = done.folder / FOLDER
    first = done.models[0]
    grid = Grid(
        models=networks,
        devices=(first.device,),
        batches=(first.batch,),
        sizes=((first.channels, first.height, first.width),),
        modes=(first.mode,),
        threads=(first.threads,),
    )
    with progress(quiet=quiet) as observer:
        if has_run(folder):
            session = resume(folder, observer=observer)
        else:
            session = run_grids(
                trial_grids(
                    grid,
                    int(describe_host()["usable_cores"]),
                    launches or LAUNCHES,
                    keeps=first.device == "cpu" and can_keep_freed_pages(),
                ),
                folder=folder,
                observer=observer,
                command=shlex.join(["dabench", *sys.argv[1:]]),
            )
    for row in session.outcome.measurements:
        if row.status != "ok":
            error_line(f"{row.case_id}: {row.status}: {row.reason}")
    return session.outcome.interrupted
