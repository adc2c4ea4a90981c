"""``json``: everything that is known of runs, in one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import json_text, parse_json, write_atomically
from dabench.exchange.runs import WholeRun
from dabench.plan.cases import PlannedCase
from dabench.records.catalog import Labels, Note
from dabench.records.folder import SCHEMA
from dabench.records.timings import launch_of, launch_row, sample_rows
from dabench.timing.engine import PhaseSamples
from dabench.timing.samples import Sample

KEY = "dabench"


class Document:
    """The runs of dabench, as they are."""

    suffix = ".json"

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes all there is; nothing is left out."""
        write_atomically(out, json_text({KEY: document_of(runs)}))
        return []

    def read(self, path: Path) -> list[WholeRun]:
        """Reads what `write` wrote.

        Raises:
            UsageError: Of a newer dabench.
            ResultsError: Damaged.
        """
        return runs_of(path, read_json(path))


def read_json(path: Path) -> Any:
    """A JSON document of whatever tool.

    Raises:
        ResultsError: It is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from None
    return parse_json(path, text)


def document_of(runs: Sequence[WholeRun]) -> dict[str, Any]:
    """Runs as a JSON document."""
    return {"schema": SCHEMA, "runs": [_written(run) for run in runs]}


def runs_of(path: Path, document: Any) -> list[WholeRun]:
    """The runs in a document that holds `document_of` under `KEY`.

    Raises:
        UsageError: Of a newer dabench.
        ResultsError: Damaged.
    """
    try:
        ours = document[KEY]
        if ours["schema"] > SCHEMA:
            raise UsageError(
                f"{path} has schema {ours['schema']}, this dabench reads up to {SCHEMA}; upgrade "
                "dabench"
            )
        return [_read(each) for each in ours["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: not what dabench writes: {error!r}") from error


def _written(run: WholeRun) -> dict[str, Any]:
    return {
        "run": {**run.document, "plan": [planned.to_dict() for planned in run.plan]},
        "launches": [launch_row(launch) for launch in run.launches],
        "samples": [row for launch in run.launches for row in sample_rows(launch)],
        "counts": list(run.counts),
        "uncounted": list(run.uncounted),
        "labels": asdict(run.labels),
    }


def _read(document: Mapping[str, Any]) -> WholeRun:
    phases: dict[int, dict[str, PhaseSamples]] = {}
    for launch, _, phase, kind, _, wall_s, device_s in document["samples"]:
        samples = phases.setdefault(int(launch), {}).setdefault(phase, PhaseSamples())
        timed = Sample(float(wall_s), float(device_s) if device_s else None)
        samples.of_kind(kind).append(timed)
    labels = document["labels"]
    return WholeRun(
        document=document["run"],
        plan=[PlannedCase.of(planned) for planned in document["run"]["plan"]],
        launches=[
            launch_of(
                {key: str(value) for key, value in row.items()},
                phases.get(row["launch"], {}).__getitem__,
            )
            for row in document["launches"]
        ],
        counts=document["counts"],
        uncounted=document["uncounted"],
        labels=Labels(tuple(labels["tags"]), tuple(Note(**note) for note in labels["notes"])),
    )
