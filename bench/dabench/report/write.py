"""One report: sections in order, the rows behind them as CSV, pictures beside."""

from __future__ import annotations

from pathlib import Path

from dabench.errors import UsageError
from dabench.report import sections
from dabench.report.text import Latex, Markdown, Writer
from dabench.results import write_atomically
from dabench.tables import load

FORMATS: dict[str, type[Markdown | Latex]] = {"markdown": Markdown, "latex": Latex}


def write_report(
    runs: list[Path], *, folder: Path, name: str, output_format: str = "markdown"
) -> list[Path]:
    """Writes ``folder/name.md`` (or ``.tex``), ``name.csv`` and pictures.

    Args:
        runs: Folders of runs; several machines stand side by side.
        folder: Made if missing.
        name: Of the files.
        output_format: A key of `FORMATS`.

    Returns:
        The document and the CSV file.

    Raises:
        UsageError: A folder without a run, or one that cannot be written.
        ResultsError: Damaged records.
    """
    loaded = load(runs)
    out: Writer = FORMATS[output_format]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        out.heading(f"dabench report: {name}", level=1)
        out.paragraph(
            f"Made by `dabench report` from the records of {len(loaded.runs)} "
            f"run{'s' if len(loaded.runs) > 1 else ''}; the measurements are in {name}.csv, the "
            "published figures come with dabench and name their sources."
        )
        if (loaded.measurements["family"] == "discriminator").any():
            for device in ("cpu", "cuda"):
                sections.paper_table(out, loaded, device)
        sections.ratio_table(out, loaded)
        sections.speed_tables(out, loaded)
        sections.pictures(out, loaded, folder, name)
        sections.operations_table(out, loaded)
        sections.failures(out, loaded)
        sections.method(out, loaded)
        document = folder / f"{name}{out.suffix}"
        table = folder / f"{name}.csv"
        write_atomically(document, out.text())
        write_atomically(table, loaded.measurements.to_csv(index=False))
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
    return [document, table]
