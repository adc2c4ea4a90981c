"""One report: sections in order, the rows behind them as CSV, pictures beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dabench.base.errors import UsageError
from dabench.base.files import write_atomically
from dabench.findings.profiles import load_profiles
from dabench.findings.tables import Results, load
from dabench.findings.trainings import load_training
from dabench.records.folder import kind_of
from dabench.report import audit, profile, sections, training, variants
from dabench.report.text import Latex, Markdown, Writer

_ENDS = {
    "train": "-training.csv",
    "suite": "-training.csv",
    "profile": "-layers.csv",
    "timing": ".csv",
}

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
        The document and the CSV files.

    Raises:
        UsageError: A folder without a run, or one that cannot be written.
        ResultsError: Damaged records.
    """
    kinds = {run: kind_of(run) for run in runs}
    trained = [run for run in runs if kinds[run] in ("train", "suite")]
    profiled = [run for run in runs if kinds[run] == "profile"]
    timed = [run for run in runs if kinds[run] == "timing"]
    out: Writer = FORMATS[output_format]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        out.heading(f"dabench report: {name}", level=1)
        out.paragraph(
            f"Made by `dabench report` from the records of {len(runs)} "
            f"run{'s' if len(runs) > 1 else ''}; the measurements are in {_tables(name, kinds)}, "
            "the published figures come with dabench and name their sources."
        )
        written = [folder / f"{name}{out.suffix}"]
        if trained:
            results = load_training(trained)
            training.sections(out, results, folder, name)
            written.append(folder / f"{name}-training.csv")
            write_atomically(written[-1], results.runs.to_csv(index=False))
        if profiled:
            found = load_profiles(profiled)
            profile.sections(out, found, folder, name)
            written.append(folder / f"{name}-layers.csv")
            write_atomically(written[-1], found.layers.to_csv(index=False))
        if timed:
            loaded = load(timed)
            _timing(out, loaded, folder, name)
            written.append(folder / f"{name}.csv")
            write_atomically(written[-1], loaded.measurements.to_csv(index=False))
        write_atomically(written[0], out.text())
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
    return written


def _tables(name: str, kinds: Mapping[Path, str]) -> str:
    ends = {_ENDS[kind] for kind in kinds.values()}
    return " and ".join(f"{name}{end}" for end in sorted(ends))


def _timing(out: Writer, loaded: Results, folder: Path, name: str) -> None:
    if (loaded.measurements["family"] == "discriminator").any():
        for device in ("cpu", "cuda"):
            sections.paper_table(out, loaded, device)
    sections.ratio_table(out, loaded)
    sections.speed_tables(out, loaded)
    variants.section(out, loaded)
    sections.pictures(out, loaded, folder, name)
    sections.operations_table(out, loaded)
    discriminators = (loaded.measurements["family"] == "discriminator").any()
    audit.section(out, loaded, with_published=bool(discriminators))
    sections.failures(out, loaded)
    sections.method(out, loaded)
