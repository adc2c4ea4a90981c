"""``dabench selftest``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dabench.base.errors import UsageError
from dabench.cli.options import (
    OPTIONS,
    Json,
    Out,
    Quiet,
    ResumeFrom,
    check_alone,
    grid_of,
    named,
    with_options,
)
from dabench.cli.output import print_json, print_line, print_table
from dabench.cli.timing import INTERRUPTED, progress, say_where

if TYPE_CHECKING:
    from dabench.run.session import Session

MODEL, SIZE, LAUNCHES = "dw-disc", "128x128", "40"


@with_options(*OPTIONS)
def selftest(
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Compare a case with itself: this machine's noise floor, and how often verdicts are false.

    Without options it takes a small discriminator in 40 processes, about half a
    minute. 'dabench compare' shows the floor beside its verdicts.
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given)
        from dabench.run.session import resume

        with progress(quiet=quiet or json) as observer:
            session = resume(resume_from, observer=observer)
    else:
        session = _measure(given, out=out, quiet=quiet or json)
    interrupted = session.outcome.interrupted
    say_where(session.folder, "selftest", interrupted=interrupted, quiet=quiet, json=json)
    if session.outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    assert session.folder is not None
    _show(session.folder, json=json)


def _measure(given: Mapping[str, Any], *, out: Path | None, quiet: bool) -> Session:
    from dabench.findings.selftest import FEWEST, NAME
    from dabench.records.folder import new_run_folder
    from dabench.run.session import run_grids

    small = {} if "model" in given else {"model": [MODEL], "size": [SIZE]}
    grid, settings = grid_of({"launches": LAUNCHES, **small, **given})
    if settings.first_launches < FEWEST:
        few = settings.first_launches
        raise UsageError(f"--launches: {few} are too few; {FEWEST} are the least")
    command = shlex.join(["dabench", *sys.argv[1:]])
    name = f"{NAME}-{'-'.join(grid.models)}"
    with new_run_folder(out, name) as folder, progress(quiet=quiet) as observer:
        return run_grids(
            [(grid, settings)], folder=folder, observer=observer, command=command,
            details={NAME: True},
        )  # fmt: skip


def _show(folder: Path, *, json: bool) -> None:
    from dabench.findings.selftest import read_selftest
    from dabench.timing.verdicts import LEVEL

    found = read_selftest(folder)
    if json:
        print_json({"selftest": [asdict(each) for each in found]})
        return
    print_table(
        "Each case against itself",
        ("case", "phase", "launches", "scatter", "comparisons", "false faster", "false slower",
         "ratios below 1", "largest seen", "noise floor"),
        (
            (
                each.case_id,
                each.phase,
                str(each.launches),
                f"{each.scatter:.1%}",
                f"{each.comparisons} of {each.per_side} + {each.per_side}",
                f"{each.false_faster / each.comparisons:.0%}",
                f"{each.false_slower / each.comparisons:.0%}",
                f"{each.below / each.comparisons:.0%}",
                f"{each.largest:.1%}",
                f"{each.floor:.1%}",
            )
            for each in found
        ),
        words=("case", "phase"),
    )  # fmt: skip
    print_line(
        f"False verdicts should be {LEVEL:.0%} at most, faster and slower alike, and half of the "
        "ratios below 1. Noise floor: the smallest difference that half of such comparisons find."
    )
