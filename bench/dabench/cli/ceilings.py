"""``dabench ceilings``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dabench.base.errors import check_choice
from dabench.base.units import format_bytes, format_seconds, format_threads
from dabench.cli.options import Json, ResumeFrom, check_alone, named
from dabench.cli.output import error_line, print_json, print_line, print_table, resumable
from dabench.plan.axes import AXES, DTYPES, INT8, OPTIONAL
from dabench.plan.settings import Grid

if TYPE_CHECKING:
    from dabench.profiling.roofline import Ceilings

USUAL = "fp32,bf16?"
_MEASURED = tuple(dtype for dtype in DTYPES if dtype != INT8)


def ceilings(
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="As in 'dabench time'.", show_default="auto"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help=f"Several by commas: {', '.join(_MEASURED)}; ?: if native.",
            show_default=USUAL,
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="THREADS", help="Default: torch's.", show_default=False)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is known.")] = False,
    resume_from: ResumeFrom = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep them in as a run.")] = None,
    json: Json = False,
) -> None:
    """Measure what this machine can reach at best: the roof of 'dabench profile'.

    Measured once per machine, device, dtype and threads; remembered in the cache.
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given)
        from dabench.run.ceilings import resume_ceilings

        with resumable("ceilings", resume_from):
            done = resume_ceilings(resume_from)
    else:
        count = 0 if threads is None else AXES["threads"].parse(threads)
        dtypes = tuple(name.strip() for name in (dtype or USUAL).split(","))
        for name in dtypes:
            # torch, whose kernels are measured, computes nothing in int8.
            check_choice("--dtype", name.removesuffix(OPTIONAL), _MEASURED)
        grid = Grid(
            models=("-",),
            devices=(device or "auto",),
            dtypes=dtypes,
            threads=(count,) if threads else (),
        )
        from dabench.run.ceilings import measure_ceilings

        command = shlex.join(["dabench", *sys.argv[1:]])
        with resumable("ceilings", out):
            done = measure_ceilings(grid, again=again, folder=out, command=command)
    for line in done.left_out:
        error_line(line)
    if json:
        print_json({"ceilings": [each.to_dict() for each in done.found]})
        return
    for each in done.found:
        _print_ceilings(each)


def _print_ceilings(found: Ceilings) -> None:
    print_table(
        f"{found.device_name}: {found.dtype}, {format_threads(found.threads)}, "
        f"measured {found.measured}",
        ("ceiling", "best", "with"),
        [
            ("compute", f"{found.flops_per_s / 1e9:.0f} GFLOP/s", found.best_kernel),
            *(
                ("memory", f"{rate / 1e9:.1f} GB/s", f"{format_bytes(size)}, {how}")
                for size, rate, how in found.streams
            ),
            ("operator", format_seconds(found.launch_s), "a call with next to nothing to do"),
            *(
                ("layer", format_seconds(seconds), f"{kind}, {kind_of_pass}, next to nothing to do")
                for kind_of_pass, floors in found.floors.items()
                for kind, seconds in floors.items()
            ),
        ],
        words=("ceiling", "with"),
    )
    if found.left_out:
        print_line(f"no time was left for: {', '.join(found.left_out)}")
