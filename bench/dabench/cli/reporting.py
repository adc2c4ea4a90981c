"""``dabench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dabench.base.errors import bad_value, check_choice
from dabench.cli.output import console

_FORMATS = ("markdown", "latex")


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Run folders. Default: all under results/."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the files written.")] = "report",
    out: Annotated[Path, typer.Option(help="Folder they are written to.")] = Path("reports"),
    output_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="markdown or latex.")
    ] = "markdown",
) -> None:
    """Write a report from raw records: tables, CSV and charts.

    Runs of several machines stand side by side; their times are never averaged.
    """
    check_choice("--format", output_format, _FORMATS)
    if not name or Path(name).name != name:
        raise bad_value("--name", name, "it takes a file name without folders")
    from dabench.findings.tables import find_runs, parts_of
    from dabench.report import write_report

    # A folder of `dabench reproduce` stands for its parts; any other for itself.
    named = [path for folder in runs or [] for path in parts_of(folder) or [folder]]
    folders = named or find_runs(Path("results"))
    written = write_report(folders, folder=out, name=name, output_format=output_format)
    for path in written:
        console().print(str(path), markup=False)
