"""What a training run leaves behind: rows as they come, readable after any interruption.

A run is a folder::

    run.json        schema, configuration, data, environment (written first)
    epochs.csv      a row per epoch
    classes.csv     a row per class, of the last epoch
    result.json     the outcome (written last)
    pictures.png    input, truth, prediction and error of a few evaluated frames
    checkpoints/    while it trains; weights.pt when it is done

A suite is a folder of runs with a ``run.json`` of its own.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError
from dabench.base.files import disk_errors, write_atomically
from dabench.records.timings import RUN, SCHEMA, check_new_run, read_run

EPOCHS, CLASSES, RESULT = "epochs.csv", "classes.csv", "result.json"
KIND, SUITE = "train", "suite"
PICTURES = "pictures.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRow:
    """One epoch; times in seconds, losses and beliefs as means over its steps.

    Fields are None where the method has no such thing or the epoch was not
    evaluated.
    """

    epoch: int
    step: int
    images: int
    seconds: float
    data_s: float
    source_s: float
    target_s: float
    adversarial_s: float
    discriminator_s: float
    optimizers_s: float
    eval_s: float | None
    lr: float
    disc_lr: float | None
    loss: float
    adversarial_loss: float | None
    disc_loss: float | None
    belief_source: float | None
    belief_target: float | None
    disc_accuracy: float | None
    miou: float | None
    accuracy: float | None


EPOCH_COLUMNS = tuple(field.name for field in fields(EpochRow))
CLASS_COLUMNS = ("index", "name", "iou", "pixels")
_WHOLE = ("epoch", "step", "images")


class TrainRecord:
    """Writes one run's folder."""

    def __init__(self, folder: Path, rows: Sequence[EpochRow] = ()) -> None:
        self.folder = folder
        self.rows = list(rows)

    @classmethod
    def create(
        cls, folder: Path, document: Mapping[str, Any], *, replace: bool = False
    ) -> TrainRecord:
        """Starts a run.

        Args:
            folder: Made if missing.
            document: Of ``run.json``, without schema and kind.
            replace: Begin anew where an attempt was cut off.

        Raises:
            UsageError: The folder holds a run already or cannot be written.
        """
        if not replace:
            check_new_run(folder)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"schema": SCHEMA, "kind": KIND, **document}, indent=1)
            write_atomically(folder / RUN, text + "\n")
        return cls(folder)

    @classmethod
    def resume(cls, folder: Path, epochs: int) -> TrainRecord:
        """Continues a run after its first epochs; rows of later ones are dropped."""
        return cls(folder, [row for row in read_epochs(folder) if row.epoch <= epochs])

    def epoch(self, row: EpochRow) -> None:
        """Adds an epoch; on disk when this returns."""
        self.rows.append(row)
        _write_rows(self.folder / EPOCHS, EPOCH_COLUMNS, [asdict(row) for row in self.rows])

    def finish(
        self,
        result: Mapping[str, Any],
        names: Sequence[str],
        iou: Sequence[float | None],
        pixels: Sequence[int],
    ) -> None:
        """Writes the outcome."""
        rows = [
            dict(zip(CLASS_COLUMNS, row, strict=True))
            for row in zip(range(len(names)), names, iou, pixels, strict=True)
        ]
        _write_rows(self.folder / CLASSES, CLASS_COLUMNS, rows)
        self.result(result)

    def result(self, result: Mapping[str, Any]) -> None:
        """Writes ``result.json``, which says that the run is over."""
        with disk_errors(self.folder):
            write_atomically(self.folder / RESULT, json.dumps(dict(result), indent=1) + "\n")


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with disk_errors(path.parent):
        write_atomically(path, text.getvalue())


def read_epochs(folder: Path) -> list[EpochRow]:
    """Reads ``epochs.csv``; empty if there is none yet.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    rows = []
    for line, row in _read(folder / EPOCHS, EPOCH_COLUMNS):
        try:
            values: dict[str, Any] = {
                name: int(text) if name in _WHOLE else float(text) if text else None
                for name, text in row.items()
            }
            rows.append(EpochRow(**values))
        except ValueError as error:
            raise ResultsError(f"{folder / EPOCHS} line {line}: {error}") from error
    return rows


def read_classes(folder: Path) -> list[dict[str, Any]]:
    """Reads ``classes.csv``; empty if there is none yet."""
    return [
        {
            "index": int(row["index"]),
            "name": row["name"],
            "iou": float(row["iou"]) if row["iou"] else None,
            "pixels": int(row["pixels"]),
        }
        for _, row in _read(folder / CLASSES, CLASS_COLUMNS)
    ]


def read_result(folder: Path) -> dict[str, Any] | None:
    """Reads ``result.json``; None while the run is not over."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} line {error.lineno}: not JSON: {error.msg}") from error
    return result


def is_training(folder: Path) -> bool:
    """Whether a folder with a run holds a suite or a training run of its own."""
    return read_run(folder).get("kind") in (KIND, SUITE)


def training_runs(folder: Path) -> list[Path]:
    """The training runs of a suite that have begun, in its order; or the one run itself."""
    document = read_run(folder)
    if document.get("kind") == SUITE:
        return [folder / name for name in document["runs"] if (folder / name / RUN).exists()]
    return [folder]


def _read(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    if not path.exists():
        return []
    reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    header = next(reader, [])
    if tuple(header) != tuple(columns):
        raise ResultsError(f"{path} line 1: expected the columns {','.join(columns)}")
    rows = []
    for row in reader:
        if len(row) != len(columns):
            raise ResultsError(f"{path} line {reader.line_num}: {len(row)} fields, expected "
                               f"{len(columns)}")  # fmt: skip
        rows.append((reader.line_num, dict(zip(columns, row, strict=True))))
    return rows
