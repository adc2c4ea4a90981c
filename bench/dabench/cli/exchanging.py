"""``dabench export`` and ``dabench import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dabench.base.errors import check_choice
from dabench.cli.keeping import ROOT
from dabench.cli.options import option
from dabench.cli.output import error_line, print_line

FORMATS = ("csv", "parquet", "json", "pytest-benchmark", "timm", "nvbench")


def export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of timings.")],
    output_format: Annotated[str, option("--format", "Of the file.", FORMATS)],
    out: Annotated[
        Path | None,
        typer.Option(help="The file. Default: the first run's name, here.", show_default=False),
    ] = None,
) -> None:
    """Write runs in the format of another tool; says what it cannot hold."""
    from dabench.exchange.registry import export_runs, format_of

    check_choice("--format", output_format, FORMATS)
    name = out or Path(f"{runs[0].resolve().name}{format_of(output_format).suffix}")
    left_out = export_runs(runs, output_format, name)
    print_line(str(name))
    for line in left_out:
        error_line(f"{output_format} leaves out {line}")


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files with samples.")],
    input_format: Annotated[
        str | None,
        option(
            "--format", "Of the files. Default: found out.", [f for f in FORMATS if f != "timm"]
        ),
    ] = None,
    into: Annotated[Path, typer.Option("--into", help="Folder that the runs go to.")] = ROOT,
) -> None:
    """Make runs of files that dabench, pytest-benchmark or nvbench wrote."""
    from dabench.exchange.registry import import_file

    for file in files:
        for folder in import_file(file, input_format, into):
            print_line(str(folder))
