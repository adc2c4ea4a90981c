"""What a training run leaves behind: rows as they come, readable after any interruption.

Beside ``run.json`` (`dabench.records.folder`), with its configuration and data::

    epochs.csv      a row per epoch
    classes.csv     a row per class, of the last epoch
    frames.csv      a row per evaluated frame and class, of the last epoch
    result.json     the outcome (written last)
    pictures.png    input, truth, prediction and error of a few evaluated frames
    checkpoints/    while it trains; weights.pt when it is done

A suite is a folder of runs with a ``run.json`` of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from dabench.base.errors import ResultsError
from dabench.base.typed import check_types
from dabench.records.folder import (
    Following,
    RunFolder,
    bad_row,
    has_run,
    read_json,
    read_run,
    read_table,
)

EPOCHS, CLASSES, FRAMES, RESULT = "epochs.csv", "classes.csv", "frames.csv", "result.json"
KIND, SUITE = "train", "suite"
PICTURES = "pictures.png"
EPOCH_PARTS = (
    "data", "source", "target", "adversarial", "discriminator", "teacher", "optimizers", "exchange",
)  # fmt: skip
"""What an epoch's time is made of, in order; each a column, ``data_s`` and so on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRow:
    """One epoch; times in seconds; losses, before their weights, and shares are means over steps.

    ``epoch`` counts from 1, ``step`` is the number of steps done at its end, ``images`` how
    many training images it saw; ``cpu_s`` is what the threads of all processes that train worked
    in ``seconds``, of loaders' processes none; ``exchange_s`` is what averaging gradients over
    them took, waiting for the slowest included; ``lr`` is that of its last step; accuracies and
    mIoU are fractions. Fields are None where the method has no such thing or the epoch was not
    evaluated; `StepResult` in `dabench.training.step` says what each loss is.
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
    adversarial_loss: float | None = None
    disc_loss: float | None = None
    belief_source: float | None = None
    belief_target: float | None = None
    disc_accuracy: float | None = None
    miou: float | None
    accuracy: float | None
    teacher_s: float = 0.0
    cpu_s: float | None = None
    aux_adversarial_loss: float | None = None
    aux_disc_loss: float | None = None
    entropy: float | None = None
    mixed_loss: float | None = None
    masked_loss: float | None = None
    confident: float | None = None
    exchange_s: float = 0.0


EPOCH_COLUMNS = tuple(field.name for field in fields(EpochRow))
_COLUMNS_BEFORE = tuple(
    EPOCH_COLUMNS[: EPOCH_COLUMNS.index(name)] for name in ("exchange_s", "teacher_s")
)
"""Until several processes trained together; until there were methods beside the adversarial one."""
CLASS_COLUMNS = ("index", "name", "iou", "pixels")
FRAME_COLUMNS = ("frame", "name", "class", "hit", "truth", "predicted")
"""Pixels of an evaluated frame by class: of both, of the ground truth, of the prediction where
there is ground truth. Classes with none are left out.
"""
_LATER = ("teacher_s", "exchange_s")
"""Nothing where a run is too old to have them."""
_WHOLE = ("epoch", "step", "images")


class FrameRow(NamedTuple):
    """Pixels of one class in one evaluated frame; see `FRAME_COLUMNS`."""

    frame: int
    name: str
    class_index: int
    hit: int
    truth: int
    predicted: int


class TrainRecord:
    """Writes one run's folder.

    Args:
        run: The folder.
        rows: Epochs it has already.
    """

    def __init__(self, run: RunFolder, rows: Sequence[EpochRow] = ()) -> None:
        self.run = run
        self.folder = run.path
        self.rows = list(rows)

    @classmethod
    def create(
        cls, folder: Path, document: Mapping[str, Any], *, replace: bool = False
    ) -> TrainRecord:
        """Starts a run.

        Args:
            folder: Made if missing.
            document: ``command``, ``environment`` and whatever else ``run.json`` says.
            replace: Begin anew where an attempt was cut off.

        Raises:
            UsageError: The folder holds a run already or cannot be written.
        """
        return cls(RunFolder.create(folder, KIND, again=replace, **document))

    @classmethod
    def resume(cls, folder: Path, epochs: int) -> TrainRecord:
        """Continues a run after its first epochs; rows of later ones are dropped."""
        run = RunFolder.open(folder, KIND)
        return cls(run, [row for row in read_epochs(folder) if row.epoch <= epochs])

    @classmethod
    def follow(cls, folder: Path, rows: Sequence[EpochRow] = ()) -> TrainRecord:
        """The record as a process sees it that leaves writing to another."""
        return cls(Following(folder, {}), rows)

    def epoch(self, row: EpochRow) -> None:
        """Adds an epoch; on disk when this returns."""
        self.rows.append(row)
        self.run.write_table(EPOCHS, EPOCH_COLUMNS, map(asdict, self.rows))

    def finish(
        self,
        result: Mapping[str, Any],
        names: Sequence[str],
        iou: Sequence[float | None],
        pixels: Sequence[int],
        frames: Iterable[FrameRow] = (),
    ) -> None:
        """Writes the outcome.

        Args:
            result: For ``result.json``.
            names: Of the classes.
            iou: Of each class.
            pixels: Of its ground truth.
            frames: In order.
        """
        rows = zip(range(len(names)), names, iou, pixels, strict=True)
        self.run.write_table(
            CLASSES, CLASS_COLUMNS, (dict(zip(CLASS_COLUMNS, row, strict=True)) for row in rows)
        )
        self.run.write_table(
            FRAMES, FRAME_COLUMNS, (dict(zip(FRAME_COLUMNS, row, strict=True)) for row in frames)
        )
        self.result(result)

    def result(self, result: Mapping[str, Any]) -> None:
        """Writes ``result.json``, which says that the run is over."""
        self.run.write_json(RESULT, dict(result))


def read_epochs(folder: Path) -> list[EpochRow]:
    """Reads ``epochs.csv``; empty if there is none yet.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    rows = []
    for line, row in read_table(folder / EPOCHS, EPOCH_COLUMNS, _COLUMNS_BEFORE):
        with bad_row(folder / EPOCHS, line):
            values: dict[str, Any] = {
                name: int(text) if name in _WHOLE else float(text) if text else None
                for name, text in row.items()
                if text or name not in _LATER
            }
            rows.append(EpochRow(**values))
    return rows


def read_classes(folder: Path) -> list[dict[str, Any]]:
    """Reads ``classes.csv``; empty if there is none yet.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    rows = []
    for line, row in read_table(folder / CLASSES, CLASS_COLUMNS, whole=True):
        with bad_row(folder / CLASSES, line):
            iou = float(row["iou"]) if row["iou"] else None
            numbers = {"index": int(row["index"]), "pixels": int(row["pixels"])}
            rows.append({"name": row["name"], "iou": iou, **numbers})
    return rows


def read_frames(folder: Path) -> list[FrameRow]:
    """Reads ``frames.csv``; empty if there is none.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    rows = []
    for line, row in read_table(folder / FRAMES, FRAME_COLUMNS, whole=True):
        with bad_row(folder / FRAMES, line):
            rows.append(frame_row(row))
    return rows


def frame_row(row: Mapping[str, str]) -> FrameRow:
    """Reads a line of a table with `FRAME_COLUMNS`."""
    numbers = {name: int(row[name]) for name in ("frame", "hit", "truth", "predicted")}
    return FrameRow(name=row["name"], class_index=int(row["class"]), **numbers)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Reads ``result.json``; None while the run is not over.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    result = read_json(folder / RESULT)
    if result is None:
        return None
    if not isinstance(result, dict):
        raise ResultsError(f"{folder / RESULT} line 1: not what dabench writes")
    try:
        kind = _RESULTS[result["status"]]
        check_types(kind, result)
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{folder / RESULT}: not what dabench writes: {error}") from None
    return result


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the result of a run that ended well says."""

    miou: float | None
    accuracy: float | None
    epochs: int
    steps: int
    seconds: float
    disc_loss: float | None


@dataclass(frozen=True, slots=True)
class _Failed:
    """What every other says."""

    reason: str


_RESULTS = {"ok": _Trained, "failed": _Failed}


def training_runs(folder: Path) -> list[Path]:
    """The training runs of a suite that have begun, in its order; or the one run itself."""
    document = read_run(folder)
    if document.get("kind") == SUITE:
        return [folder / name for name in document["runs"] if has_run(folder / name)]
    return [folder]
