"""Raw records of a run of timings.

Beside ``run.json`` (`dabench.records.folder`), whose ``plan`` lists the cases::

    launches.csv       a row per worker process, in the order they ran
    samples.csv        a row per timed pass, warm-up included and marked
    counts.json        operation counts of the networks measured (`dabench.records.counts`)
    measurements.csv   a row per case and phase, made from the above now and then and at the end
    summary.json       from how many launches measurements.csv was made

A launch's samples reach the disk before its row in ``launches.csv``; samples
without that row are of a launch that never finished and are not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError
from dabench.plan.cases import PlannedCase
from dabench.records.counts import write_counts
from dabench.records.folder import RUN, RunFolder, bad_row, read_json, read_table
from dabench.records.measurements import COLUMNS, LaunchRecord, Measurement, PhaseRecord
from dabench.records.samples import SAMPLE_COLUMNS, Later, is_large, last_launch, read_samples
from dabench.timing.engine import KINDS, PhaseSamples

LAUNCHES, SAMPLES = "launches.csv", "samples.csv"
MEASUREMENTS, SUMMARY = "measurements.csv", "summary.json"

LAUNCH_COLUMNS = (
    "launch", "round", "case_id", "status", "reason", "started_at", "seconds", "device", "phases",
)  # fmt: skip
OLDER_LAUNCH_COLUMNS = (tuple(name for name in LAUNCH_COLUMNS if name != "round"),)
"""Before schema 3."""


class TimingRecord:
    """Appends to one run of timings.

    Args:
        run: Its folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        for name in (LAUNCHES, SAMPLES):
            run.cut_torn_line(name)
        # A run that was begun under an older schema goes on with its own columns.
        self._columns = _header(run.path / LAUNCHES)

    def launch(self, record: LaunchRecord) -> None:
        """Appends one launch; on disk when this returns.

        Raises:
            ResultsError: The disk is full or gone. What was there stays readable.
        """
        self.run.append(SAMPLES, SAMPLE_COLUMNS, sample_rows(record))
        row = launch_row(record)
        self.run.append(LAUNCHES, self._columns, [[row[name] for name in self._columns]])

    def counts(
        self, counts: Sequence[Mapping[str, Any]], uncounted: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Writes the operation counts, and of what could not be counted the reason."""
        write_counts(self.run, counts, uncounted)

    def measurements(self, rows: Iterable[Measurement], launches: int) -> None:
        """Rewrites the summary of so many launches."""
        self.run.write_table(MEASUREMENTS, COLUMNS, (row.to_dict() for row in rows))
        self.run.write_json(SUMMARY, {"launches": launches})


def read_launches(path: Path, *, later: bool = False) -> list[LaunchRecord]:
    """Reads every finished launch with its samples.

    Args:
        path: The run's folder.
        later: Read the samples, where they are many, when somebody looks at one; what is damaged
            is found no sooner.

    Raises:
        ResultsError: A damaged file, named with its line.
    """
    samples = path / SAMPLES
    by_launch = {} if later and is_large(samples) else read_samples(samples).by_launch()
    of = Later(samples).of if later and is_large(samples) else None
    launches: dict[int, LaunchRecord] = {}
    table = path / LAUNCHES

    def there(launch: int, phase: str) -> PhaseSamples:
        try:
            return by_launch[launch][phase]
        except KeyError:
            raise ResultsError(f"{samples}: launch {launch} has no samples of {phase}") from None

    for line, row in read_table(table, LAUNCH_COLUMNS, OLDER_LAUNCH_COLUMNS):
        with bad_row(table, line):
            launch = int(row["launch"])
            if launch in launches:
                raise ValueError(f"launch {launch} a second time")
            launches[launch] = launch_of(row, partial(of or there, launch))
    return list(launches.values())


def read_plan(path: Path, document: Mapping[str, Any]) -> list[PlannedCase]:
    """The cases of a run.

    Args:
        path: Its folder, for errors.
        document: Of its ``run.json``.

    Raises:
        ResultsError: Not what dabench writes.
    """
    with bad_row(path / RUN, 1):
        return [PlannedCase.of(item) for item in document["plan"]]


def next_launch(path: Path) -> int:
    """The first launch number no row uses, those of unfinished launches included."""
    table = read_table(path / LAUNCHES, LAUNCH_COLUMNS, OLDER_LAUNCH_COLUMNS)
    known = max((int(row["launch"]) for _, row in table), default=-1)
    return max(known, last_launch(path / SAMPLES)) + 1


def is_summarised(path: Path, launches: int, schema: int) -> bool:
    """Whether ``measurements.csv`` was made from all launches of the run.

    Before schema 3 it was rewritten after each.
    """
    if schema < 3:
        return True
    return summarised_launches(path) == launches


def summarised_launches(path: Path) -> int | None:
    """Of how many launches, the first ones, ``measurements.csv`` was made; None if nobody says."""
    made = read_json(path / SUMMARY)
    found = made.get("launches") if isinstance(made, dict) else None
    return found if isinstance(found, int) else None


def read_measurements(path: Path) -> list[Measurement]:
    """The rows of a summary of today's schema; of an earlier one none.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    if not path.exists() or _first_line(path) != COLUMNS:
        return []
    rows = []
    for line, row in read_table(path, COLUMNS):
        with bad_row(path, line):
            rows.append(Measurement(**{name: _TYPES[name](text) for name, text in row.items()}))
    return rows


def _header(path: Path) -> tuple[str, ...]:
    """The columns of a table of launches; those of today where there is none yet."""
    if not path.exists():
        return LAUNCH_COLUMNS
    found = _first_line(path)
    return found if found in OLDER_LAUNCH_COLUMNS else LAUNCH_COLUMNS


def _first_line(path: Path) -> tuple[str, ...]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return tuple(file.readline().rstrip("\n").split(","))


def _type(name: str) -> Callable[[str], Any]:
    """What makes a field of `Measurement` of its text; an empty one is none, but of a text."""
    kind = {"str": str, "int": int, "float": float}[name.removesuffix(" | None")]
    return str if name == "str" else lambda text: kind(text) if text else None


_TYPES = {column.name: _type(str(column.type)) for column in fields(Measurement)}


def sample_rows(record: LaunchRecord) -> list[tuple[Any, ...]]:
    """A launch's samples as rows of ``samples.csv``."""
    rows: list[tuple[Any, ...]] = []
    for phase in record.phases:
        for kind in KINDS:
            for index, sample in enumerate(phase.samples.of_kind(kind)):
                key = (record.launch, record.case_id, phase.phase, kind, index)
                rows.append((*key, repr(sample.wall_s), _text(sample.device_s)))
    return rows


def launch_row(record: LaunchRecord) -> dict[str, Any]:
    """A launch as a row of ``launches.csv``; `launch_of` reads it back."""
    phases = {
        phase.phase: {
            "steady": phase.samples.steady,
            "stop": phase.samples.stop,
            **({"members": phase.samples.members} if phase.samples.members else {}),
            **{name: getattr(phase, name) for name in _PHASE_FIELDS},
        }
        for phase in record.phases
    }
    return {
        "launch": record.launch,
        "round": "" if record.round is None else record.round,
        "case_id": record.case_id,
        "status": record.status,
        "reason": record.reason,
        "started_at": record.started_at,
        "seconds": repr(record.seconds),
        "device": json.dumps(record.device),
        "phases": json.dumps(phases),
    }


_PHASE_FIELDS = tuple(f.name for f in fields(PhaseRecord) if f.name not in ("phase", "samples"))
# What older records do not know: energy, what was spent, streams, temperatures.
_PHASE_DEFAULTS = {f.name: f.default for f in fields(PhaseRecord) if f.default is not MISSING}


def no_samples(phase: str) -> PhaseSamples:
    """Of launches whose records have none."""
    raise KeyError(phase)


def launch_of(row: Mapping[str, str], samples: Callable[[str], PhaseSamples]) -> LaunchRecord:
    """Reads a row of ``launches.csv``, the samples of its phases being at hand by their names."""
    phases = []
    for name, details in json.loads(row["phases"]).items():
        found = samples(name)
        found.steady, found.stop = details["steady"], details["stop"]
        found.members = tuple(details.get("members", ()))
        known = {**_PHASE_DEFAULTS, **details}
        rest = {key: known[key] for key in _PHASE_FIELDS}
        phases.append(PhaseRecord(phase=name, samples=found, **rest))
    return LaunchRecord(
        launch=int(row["launch"]),
        round=int(row["round"]) if row["round"] else None,
        case_id=row["case_id"],
        status=row["status"],
        reason=row["reason"],
        started_at=row["started_at"],
        seconds=float(row["seconds"]),
        device=_facts(row["device"]),
        phases=tuple(phases),
    )


def _facts(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(f"device {text}")
    return found


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)
