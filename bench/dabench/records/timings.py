"""Raw records on disk: written as they come, readable after any interruption.

A run is a folder::

    run.json           schema, settings, environment, plan (written first)
    launches.csv       a row per worker process, in the order they ran
    samples.csv        a row per timed pass, warm-up included and marked
    counts.json        operation counts of the networks measured
    measurements.csv   a row per case and phase, rewritten after every launch

A launch's samples reach the disk before its row in ``launches.csv``; samples
without that row are of a launch that never finished and are not read.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import disk_errors, write_atomically
from dabench.records.measurements import COLUMNS, LaunchRecord, Measurement, PhaseRecord
from dabench.timing.engine import PhaseSamples, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 2

RUN = "run.json"
LAUNCHES = "launches.csv"
SAMPLES = "samples.csv"
COUNTS = "counts.json"
MEASUREMENTS = "measurements.csv"

RUN_KEYS = ("run_id", "created", "command", "environment")
SAMPLE_COLUMNS = ("launch", "case_id", "phase", "kind", "index", "wall_s", "device_s")
LAUNCH_COLUMNS = (
    "launch", "case_id", "status", "reason", "started_at", "seconds", "device", "phases",
)  # fmt: skip


def check_new_run(folder: Path) -> None:
    """Checks, without writing, that a new run could be written to a folder.

    Raises:
        UsageError: It could not; the message says why.
    """
    try:
        taken = (folder / RUN).exists()
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from None
    if taken:
        raise UsageError(f"--out: {str(folder)!r} holds a run already; choose another folder")
    if not existing.is_dir():
        raise UsageError(f"--out: cannot write {str(folder)!r}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"--out: cannot write {str(folder)!r}: {existing} is not writable")


class RunWriter:
    """Appends to one run's folder; made by `create` or `resume`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = RunLock(folder)
        weakref.finalize(self, self._lock.release)

    @classmethod
    def create(cls, folder: Path, run: Mapping[str, Any]) -> RunWriter:
        """Starts a run.

        Args:
            folder: Made if missing.
            run: The document of ``run.json``, without the schema.

        Raises:
            UsageError: The folder cannot be written, or holds a run already.
        """
        check_new_run(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Anew, should an attempt have died here before; run.json last, so that
            # a folder with a run can always be read and continued.
            write_atomically(folder / LAUNCHES, ",".join(LAUNCH_COLUMNS) + "\n")
            write_atomically(folder / SAMPLES, ",".join(SAMPLE_COLUMNS) + "\n")
            write_atomically(folder / RUN, json.dumps({"schema": SCHEMA, **run}, indent=1) + "\n")
        except OSError as error:
            raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
        return cls(folder)

    @classmethod
    def resume(cls, folder: Path) -> RunWriter:
        """Continues the run that is in a folder.

        Raises:
            UsageError: Another process is at it.
        """
        with disk_errors(folder):
            writer = cls(folder)
            for name in (LAUNCHES, SAMPLES):
                _cut_torn_line(folder / name)
        return writer

    def launch(self, record: LaunchRecord) -> None:
        """Appends one launch; on disk when this returns.

        Raises:
            ResultsError: The disk is full or gone. What was there stays readable.
        """
        with disk_errors(self.folder):
            _append(self.folder / SAMPLES, _sample_rows(record))
            _append(self.folder / LAUNCHES, [_launch_row(record)])

    def counts(self, counts: Sequence[Mapping[str, Any]]) -> None:
        """Writes the operation counts."""
        with disk_errors(self.folder):
            write_atomically(self.folder / COUNTS, json.dumps(list(counts), indent=1) + "\n")

    def measurements(self, rows: Iterable[Measurement]) -> None:
        """Rewrites the summary."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.to_dict() for row in rows)
        with disk_errors(self.folder):
            write_atomically(self.folder / MEASUREMENTS, text.getvalue())


class RunLock:
    """Keeps other writers off a run until released; a context manager.

    The lock goes with the process, however that ends.

    Args:
        folder: Holds a run.

    Raises:
        UsageError: Another writer is at it.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / RUN, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise UsageError(f"{folder} is being written by another dabench") from None

    def release(self) -> None:
        """Lets others in."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ending: object) -> None:
        self.release()


def read_run(folder: Path) -> dict[str, Any]:
    """Reads ``run.json``.

    Raises:
        UsageError: No run there, or one of a newer dabench.
        ResultsError: Not what dabench writes.
    """
    path = folder / RUN
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        schema = run["schema"]
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} holds no run ({RUN} is missing)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} line {error.lineno}: not JSON: {error.msg}") from error
    except (KeyError, TypeError):
        raise ResultsError(f"{path} line 1: not a record of dabench: no schema") from None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UsageError(
            f"{path} has schema {schema}, this dabench reads up to {SCHEMA}; upgrade dabench"
        )
    # Training runs have a kind and no plan.
    needed = RUN_KEYS if "kind" in run else (*RUN_KEYS, "plan")
    missing = [key for key in needed if key not in run]
    if missing:
        raise ResultsError(f"{path} line 1: not a record of dabench: no {missing[0]}")
    return dict(run)


def read_launches(folder: Path) -> list[LaunchRecord]:
    """Reads every finished launch with its samples.

    Raises:
        ResultsError: A damaged file, named with its line.
    """
    by_launch: dict[int, dict[str, PhaseSamples]] = {}
    for line, row in _rows(folder / SAMPLES, SAMPLE_COLUMNS):
        with _bad_row(folder / SAMPLES, line):
            phases = by_launch.setdefault(int(row["launch"]), {})
            samples = phases.setdefault(row["phase"], PhaseSamples())
            device_s = float(row["device_s"]) if row["device_s"] else None
            kind = samples.warmup if row["kind"] == "warmup" else samples.samples
            kind.append(Sample(float(row["wall_s"]), device_s))
    launches = []
    for line, row in _rows(folder / LAUNCHES, LAUNCH_COLUMNS):
        with _bad_row(folder / LAUNCHES, line):
            phases = by_launch.get(int(row["launch"]), {})
            launches.append(_launch_of(row, phases))
    return launches


def check_csv(path: Path, columns: Sequence[str], numeric: Sequence[str]) -> NoReturn:
    """Finds the damaged line of one of our CSV files.

    Raises:
        ResultsError: Naming file and line; always, since it is called for
            files known to be damaged.
    """
    for line, row in _rows(path, columns):
        with _bad_row(path, line):
            for name in numeric:
                float(row[name])
    raise ResultsError(f"{path}: not what dabench writes")


def next_launch(folder: Path) -> int:
    """The first launch number no row uses, those of unfinished launches included."""
    used = [
        int(row["launch"])
        for path, columns in ((SAMPLES, SAMPLE_COLUMNS), (LAUNCHES, LAUNCH_COLUMNS))
        for _, row in _rows(folder / path, columns)
    ]
    return max(used, default=-1) + 1


def read_counts(folder: Path) -> list[dict[str, Any]]:
    """Reads the operation counts; empty if none were written."""
    path = folder / COUNTS
    if not path.exists():
        return []
    try:
        counts: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} line {error.lineno}: not JSON: {error.msg}") from error
    if not (isinstance(counts, list) and all(isinstance(count, dict) for count in counts)):
        raise ResultsError(f"{path} line 1: not what dabench writes")
    return counts


def _sample_rows(record: LaunchRecord) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for phase in record.phases:
        for kind, samples in (("warmup", phase.samples.warmup), ("sample", phase.samples.samples)):
            for index, sample in enumerate(samples):
                key = (record.launch, record.case_id, phase.phase, kind, index)
                rows.append((*key, repr(sample.wall_s), _text(sample.device_s)))
    return rows


def _launch_row(record: LaunchRecord) -> tuple[Any, ...]:
    phases = {
        phase.phase: {
            "steady": phase.samples.steady,
            "stop": phase.samples.stop,
            **{name: getattr(phase, name) for name in _PHASE_FIELDS},
        }
        for phase in record.phases
    }
    return (
        record.launch, record.case_id, record.status, record.reason, record.started_at,
        repr(record.seconds), json.dumps(record.device), json.dumps(phases),
    )  # fmt: skip


_PHASE_FIELDS = tuple(f.name for f in fields(PhaseRecord) if f.name not in ("phase", "samples"))


def _launch_of(row: Mapping[str, str], samples: Mapping[str, PhaseSamples]) -> LaunchRecord:
    phases = []
    for name, details in json.loads(row["phases"]).items():
        found = samples[name]
        found.steady, found.stop = details["steady"], details["stop"]
        # Records of schema 1 know no energy.
        known = {"joules": None, **details}
        rest = {key: known[key] for key in _PHASE_FIELDS}
        phases.append(PhaseRecord(phase=name, samples=found, **rest))
    return LaunchRecord(
        launch=int(row["launch"]),
        case_id=row["case_id"],
        status=row["status"],
        reason=row["reason"],
        started_at=row["started_at"],
        seconds=float(row["seconds"]),
        device=json.loads(row["device"]),
        phases=tuple(phases),
    )


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers; a torn last line is passed over."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from error
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    if tuple(header) != tuple(columns):
        raise ResultsError(f"{path} line 1: expected the columns {','.join(columns)}")
    for row in reader:
        if len(row) != len(columns):
            raise ResultsError(
                f"{path} line {reader.line_num}: {len(row)} fields, expected {len(columns)}"
            )
        yield reader.line_num, dict(zip(columns, row, strict=True))


@contextmanager
def _bad_row(path: Path, line: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} line {line}: not what dabench writes: {error}") from error


def _append(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Appends rows in one write and waits until they are on disk."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_line(path: Path) -> None:
    """Drops an unfinished last line, so that appending starts on a fresh one."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)
