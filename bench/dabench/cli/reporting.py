"""``dabench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dabench.base.errors import UsageError, check_choice
from dabench.cli.options import check_file_name
from dabench.cli.output import print_line

_FORMATS = ("markdown", "latex")
_PICTURES = ("png", "svg")


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
    pictures: Annotated[str, typer.Option(help="Format of charts: png or svg.")] = "png",
    html: Annotated[
        bool,
        typer.Option("--html", help="Write one page instead, which opens anywhere by itself."),
    ] = False,
) -> None:
    """Write a report from raw records: tables, CSV and charts, or one page of everything.

    Runs of several machines stand side by side; their times are never averaged.
    """
    check_choice("--format", output_format, _FORMATS)
    check_choice("--pictures", pictures, _PICTURES)
    if html and (output_format, pictures) != ("markdown", "png"):
        raise UsageError("--html: the page has no --format and no --pictures of its own")
    check_file_name("--name", name)
    from dabench.findings.tables import find_runs, parts_of

    # A folder of `dabench reproduce` stands for its parts; any other for itself.
    named = [path for folder in runs or [] for path in parts_of(folder) or [folder]]
    folders = named or find_runs(Path("results"))
    for path in _written(folders, out, name, html, output_format, pictures):
        print_line(str(path))


def _written(
    runs: list[Path], out: Path, name: str, html: bool, output_format: str, pictures: str
) -> list[Path]:
    if html:
        from dabench.page import write_page

        return [write_page(runs, folder=out, name=name)]
    from dabench.report import write_report

    return write_report(runs, folder=out, name=name, output_format=output_format, pictures=pictures)
