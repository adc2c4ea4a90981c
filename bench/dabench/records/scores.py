"""Accuracy of a trained network per way to run it: a run of kind ``eval``.

Beside ``run.json``, which says the ways (its ``plan``), the data and what is done to images
before and to logits after::

    scores.csv    a row per way
    frames.csv    a row per way (its place in the plan), evaluated frame and class, written before
                  the way's row
    counts.json   operation counts of the network (`dabench.records.counts`), with its graph
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dabench.plan.axes import AXES, columns_of
from dabench.plan.cases import Case
from dabench.records.folder import RunFolder, bad_row, read_table
from dabench.records.trainings import FRAME_COLUMNS, FRAMES, FrameRow, frame_row
from dabench.timing.statistics import Interval

KIND = "eval"
SCORES = "scores.csv"

KEEP = 0.999
"""Of the plain network's mIoU, to be kept where nobody says otherwise: MLPerf's rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One way to run the network.

    Attributes:
        case_id: Of the way; a case of the run's plan.
        status: ``ok``, or as of measurements.
        reason: Why there is no score.
        frames: How many were evaluated.
        miou: A fraction, by the run's evaluation.
        accuracy: Of pixels, a fraction.
        difference: How far its logits are from the plain network's
            (`dabench.network.runtimes.difference_of`); None where torch runs it as it is, in
            whatever precision and layout.
        emulated: Whether the device does not compute in this precision.
        real_ratio: Time of a pass on evaluated frames over that on random input, in turn in one
            process; None where that was not asked for.
        real_low: Its 95% interval's lower end.
        real_high: The upper end.
    """

    case_id: str
    status: str
    reason: str = ""
    frames: int = 0
    miou: float | None = None
    accuracy: float | None = None
    difference: float | None = None
    emulated: bool | None = None
    real_ratio: float | None = None
    real_low: float | None = None
    real_high: float | None = None

    @property
    def real(self) -> Interval | None:
        """The ratio of times with its interval."""
        if self.real_ratio is None or self.real_low is None or self.real_high is None:
            return None
        return Interval(self.real_ratio, self.real_low, self.real_high)

    def to_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return asdict(self)


_SINCE_SCHEMA_5 = columns_of(*(key for key in AXES if key not in ("calibration", "keep_float")))
_WAY = columns_of(
    "phase",
    "protocol",
    "mode",
    "input",
    "rate",
    "concurrency",
    "calibration",
    "keep_float",
    "allocator",
)
_OWN = tuple(field.name for field in fields(ScoreRow))
SCORE_COLUMNS = (_OWN[0], *_WAY, *_OWN[1:], *_SINCE_SCHEMA_5)
_OLDER = [
    SCORE_COLUMNS[: SCORE_COLUMNS.index("real_ratio")],
    SCORE_COLUMNS[: -len(_SINCE_SCHEMA_5)],
]
_NUMBERS = ("miou", "accuracy", "difference", "real_ratio", "real_low", "real_high")
_COLUMNS_OF_FRAMES = ("way", *FRAME_COLUMNS)


class ScoreRecord:
    """Adds ways to a run; each is on disk when its call returns.

    Args:
        run: The folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        for name in (FRAMES, SCORES):
            run.cut_torn_line(name)

    def add(self, way: int, case: Case, row: ScoreRow, frames: Iterable[FrameRow] = ()) -> None:
        """Adds a way of a place in the plan, and the pixels of its frames."""
        if rows := [(way, *frame) for frame in frames]:
            self._run.append(FRAMES, _COLUMNS_OF_FRAMES, rows)
        values = {**case.to_dict(), **row.to_dict()}
        shown = ["" if values[name] is None else values[name] for name in SCORE_COLUMNS]
        self._run.append(SCORES, SCORE_COLUMNS, [shown])


def read_scores(folder: Path) -> list[ScoreRow]:
    """Reads ``scores.csv``; empty if there is none yet.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    rows = []
    for line, row in read_table(folder / SCORES, SCORE_COLUMNS, _OLDER):
        with bad_row(folder / SCORES, line):
            rows.append(_row(row))
    return rows


def _row(row: Mapping[str, str]) -> ScoreRow:
    numbers = {name: float(row[name]) if row[name] else None for name in _NUMBERS}
    return ScoreRow(
        case_id=row["case_id"],
        status=row["status"],
        reason=row["reason"],
        frames=int(row["frames"]),
        emulated={"": None, "True": True, "False": False}[row["emulated"]],
        **numbers,
    )


def read_score_frames(folder: Path) -> dict[int, list[FrameRow]]:
    """Reads ``frames.csv``, a way's place in the plan -> rows.

    A way that was cut off between its frames and its row has them twice when it was done again:
    the last ones count.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    found: dict[int, dict[tuple[int, int], FrameRow]] = {}
    table = folder / FRAMES
    for line, row in read_table(table, _COLUMNS_OF_FRAMES):
        with bad_row(table, line):
            frame, way = frame_row(row), int(row["way"])
            if way < 0:
                raise ValueError(way)
            found.setdefault(way, {})[frame.frame, frame.class_index] = frame
    return {way: list(rows.values()) for way, rows in found.items()}
