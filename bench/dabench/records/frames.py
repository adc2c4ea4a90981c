"""Frames taken apart: what a run of kind ``frame`` holds.

Beside its ``run.json``::

launches.csv   a row per worker process
passes.csv     a row per pass and stage, and one (`WHOLE`) per pass that was not taken apart,
               written before their launch's row
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dabench.plan.conventions import STAGES, WHOLE
from dabench.records.folder import RunFolder, bad_row, read_table

KIND = "frame"
LAUNCHES, PASSES = "launches.csv", "passes.csv"
_LAUNCH_COLUMNS = (
    "launch", "case_id", "status", "reason", "difference", "device_name", "emulated", "notes",
)  # fmt: skip
_PASS_COLUMNS = ("launch", "case_id", "pass", "stage", "seconds")


@dataclass(frozen=True, slots=True)
class FrameLaunch:
    """One worker process.

    Attributes:
        launch: Its number within the run.
        case_id: Of the case.
        status: ``ok``, or as of measurements.
        reason: Why there are no times.
        stages: Names, in order.
        whole: Seconds of each pass that was not taken apart.
        apart: Seconds of each stage of each pass that was.
        difference: How far the outputs are from the plain network's; None where torch runs it as
            it is.
        device_name: As its driver names it; empty where it has no name.
        emulated: Whether the device does not compute in this precision.
        notes: What the reader must know.
    """

    launch: int
    case_id: str
    status: str = "ok"
    reason: str = ""
    stages: tuple[str, ...] = ()
    whole: tuple[float, ...] = ()
    apart: tuple[tuple[float, ...], ...] = ()
    difference: float | None = None
    device_name: str = ""
    emulated: bool = False
    notes: str = ""


class FrameRecord:
    """Adds launches to a run; each is on disk when its call returns.

    Args:
        run: The folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        for name in (PASSES, LAUNCHES):
            run.cut_torn_line(name)

    def add(self, launch: FrameLaunch) -> None:
        """Adds a launch."""
        which = launch.launch, launch.case_id
        rows = [(*which, n, WHOLE, repr(seconds)) for n, seconds in enumerate(launch.whole)]
        rows += [
            (*which, number, stage, repr(seconds))
            for number, each in enumerate(launch.apart)
            for stage, seconds in zip(launch.stages, each, strict=True)
        ]
        if rows:
            self._run.append(PASSES, _PASS_COLUMNS, rows)
        difference = "" if launch.difference is None else repr(launch.difference)
        values = (
            *which, launch.status, launch.reason, difference, launch.device_name,
            launch.emulated, launch.notes,
        )  # fmt: skip
        self._run.append(LAUNCHES, _LAUNCH_COLUMNS, [values])


def read_frame_launches(folder: Path) -> list[FrameLaunch]:
    """The launches of a run, in the order they ran.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    passes: dict[tuple[int, str], dict[tuple[int, str], float]] = {}
    for launch, case_id, number, stage, seconds in _passes(folder):
        # Of a launch that was cut off before its row, and done again, the last ones count.
        passes.setdefault((launch, case_id), {})[number, stage] = seconds
    found = []
    for line, row in read_table(folder / LAUNCHES, _LAUNCH_COLUMNS):
        with bad_row(folder / LAUNCHES, line):
            key = int(row["launch"]), row["case_id"]
            times = passes.get(key, {})
            has = {stage for _, stage in times}
            stages = tuple(stage for stage in STAGES if stage in has)
            found.append(
                FrameLaunch(
                    launch=key[0],
                    case_id=key[1],
                    status=row["status"],
                    reason=row["reason"],
                    stages=stages,
                    whole=tuple(s for (_, stage), s in times.items() if stage == WHOLE),
                    apart=tuple(
                        tuple(times[number, stage] for stage in stages)
                        for number, part in times
                        if stages and part == stages[0]
                    ),
                    difference=float(row["difference"]) if row["difference"] else None,
                    device_name=row["device_name"],
                    emulated={"True": True, "False": False}[row["emulated"]],
                    notes=row["notes"],
                )
            )
    return found


def _passes(folder: Path) -> Iterator[tuple[int, str, int, str, float]]:
    for line, row in read_table(folder / PASSES, _PASS_COLUMNS):
        with bad_row(folder / PASSES, line):
            stage = row["stage"]
            if stage != WHOLE and stage not in STAGES:
                raise ValueError(stage)
            seconds = float(row["seconds"])
            yield int(row["launch"]), row["case_id"], int(row["pass"]), stage, seconds
