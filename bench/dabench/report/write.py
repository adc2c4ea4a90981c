"""One report: sections in order, the rows behind them as CSV, pictures beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from dabench.base.errors import UsageError
from dabench.base.files import write_atomically
from dabench.findings.choices import choice_of
from dabench.findings.frames import frames_frame, read_frames
from dabench.findings.profiles import ceilings_frame, load_profiles
from dabench.findings.tables import Results, load, load_counts
from dabench.findings.trainings import load_training
from dabench.findings.ways import ways_frame
from dabench.records.ceilings import read_ceilings
from dabench.records.folder import kind_of, read_run
from dabench.report import (
    audit,
    choices,
    frames,
    profile,
    sections,
    speeds,
    training,
    variants,
    ways,
)
from dabench.report.text import Document, Latex, Markdown, Writer

# Kind of run -> end of the name of the table behind its sections.
_ENDS = {
    "train": "-training.csv",
    "suite": "-training.csv",
    "profile": "-layers.csv",
    "timing": ".csv",
    "count": "-operations.csv",
    "ceilings": "-ceilings.csv",
    "eval": "-ways.csv",
    "choice": "-choice.csv",
    "frame": "-frame.csv",
}

FORMATS: dict[str, type[Document]] = {"markdown": Markdown, "latex": Latex}


def write_report(
    runs: list[Path],
    *,
    folder: Path,
    name: str,
    output_format: str = "markdown",
    pictures: str = "png",
) -> list[Path]:
    """Writes ``folder/name.md`` (or ``.tex``), ``name.csv`` and pictures.

    Args:
        runs: Folders of runs; several machines stand side by side.
        folder: Made if missing.
        name: Of the files.
        output_format: A key of `FORMATS`.
        pictures: Format of charts, ``png`` or ``svg``.

    Returns:
        The document and the CSV files.

    Raises:
        UsageError: A folder without a run, or one that cannot be written.
        ResultsError: Damaged records.
    """
    kinds = {run: kind_of(run) for run in runs}
    out = FORMATS[output_format](pictures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        out.heading(f"dabench report: {name}", level=1)
        out.paragraph(
            f"Made by `dabench report` from the records of {len(runs)} "
            f"run{'s' if len(runs) > 1 else ''}; the measurements are in {_tables(name, kinds)}, "
            "the published figures come with dabench and name their sources."
        )
        written = [folder / f"{name}{out.suffix}"]
        for part, of_kinds in _PARTS.items():
            chosen = [run for run in runs if kinds[run] in of_kinds]
            if chosen:
                table = part(out, chosen, folder, name)
                written.append(folder / f"{name}{_ENDS[of_kinds[0]]}")
                write_atomically(written[-1], table.to_csv(index=False))
        write_atomically(written[0], out.text())
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
    return written


def _tables(name: str, kinds: Mapping[Path, str]) -> str:
    ends = {_ENDS[kind] for kind in kinds.values()}
    return " and ".join(f"{name}{end}" for end in sorted(ends))


def _training(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    results = load_training(runs)
    training.sections(out, results, folder, name)
    return results.runs


def _ways(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    found = ways_frame(runs)
    ways.section(out, found)
    return found


def _choices(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    tables = []
    for number, run in enumerate(runs, start=1):
        document, choice = read_run(run), choice_of(run)
        stem = name if len(runs) == 1 else f"{name}-{number}"
        choices.section(out, choice, folder, stem)
        tables.append(choice.to_frame().assign(run_id=document["run_id"], machine=choice.machine))
    return pd.concat(tables, ignore_index=True)


def _frames(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    for run in runs:
        frames.section(out, *read_frames(run))
    return frames_frame(runs)


def _profiles(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    found = load_profiles(runs)
    profile.sections(out, found, folder, name)
    return found.layers


def _ceilings(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    found = [each for run in runs for each in read_ceilings(run).values()]
    profile.ceilings_table(out, found)
    return ceilings_frame(found)


def _counts(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    counts, failed = load_counts(runs)
    sections.operations_table(out, counts)
    if not failed.empty:
        out.table(failed[["model", "mode", "reason"]], "What could not be counted.")
    nested = ("by_operator", "without", "uncounted", "fixed", "time_shares", "cross_check")
    return counts.assign(
        **{name: counts[name].map(json.dumps) for name in nested if name in counts}
    )


def _timing(out: Writer, runs: list[Path], folder: Path, name: str) -> pd.DataFrame:
    loaded = load(runs)
    timing_sections(out, loaded, folder, name)
    return loaded.measurements


def timing_sections(
    out: Writer, loaded: Results, folder: Path, name: str, *, rows: bool = True
) -> None:
    """Measurements, what follows from them, and how they were made.

    Args:
        out: The document.
        loaded: Runs.
        folder: Of pictures.
        name: Of the document.
        rows: Whether to write the measurements themselves; the page shows them by itself.
    """
    discriminators = bool((loaded.measurements["family"] == "discriminator").any())
    if discriminators:
        for device in ("cpu", "cuda"):
            sections.paper_table(out, loaded, device)
    sections.ratio_table(out, loaded)
    if rows:
        sections.speed_tables(out, loaded)
    speeds.section(out, loaded)
    sections.loads_tables(out, loaded)
    variants.section(out, loaded)
    if rows:
        sections.pictures(out, loaded, folder, name)
    sections.operations_table(out, loaded.counts)
    audit.section(out, loaded, with_published=discriminators)
    if rows:
        sections.failures(out, loaded)
    sections.method(out, loaded)


# In the order of the report: what writes a part, of which kinds of runs.
Part = Callable[[Writer, list[Path], Path, str], pd.DataFrame]
OTHER_PARTS: dict[Part, tuple[str, ...]] = {
    _training: ("train", "suite"),
    _choices: ("choice",),
    _frames: ("frame",),
    _ways: ("eval",),
    _profiles: ("profile",),
    _ceilings: ("ceilings",),
    _counts: ("count",),
}
ONE_BY_ONE: tuple[Part, ...] = (_choices, _frames)
"""Parts whose sections are of one run each."""
_PARTS: dict[Part, tuple[str, ...]] = {**OTHER_PARTS, _timing: ("timing",)}
