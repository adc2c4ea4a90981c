"""``csv`` and ``parquet``: one table with a row for each timed pass."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import write_atomically
from dabench.device.machine import HARDWARE
from dabench.exchange.runs import WholeRun
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.settings import Settings
from dabench.records.measurements import LaunchRecord
from dabench.records.timings import launch_of, launch_row
from dabench.timing.engine import KINDS, PhaseSamples
from dabench.timing.samples import Sample

MACHINE = (*HARDWARE, "torch", "dabench", "commit")
"""What the table says of the machine and its software."""

_RUN = ("run_id", "created", "command", *MACHINE)
_CASE = tuple(field.name for field in fields(Case))
_LAUNCH = ("launch", "round", "status", "reason", "started_at", "seconds", "device_facts",
           "phases_facts", "settings")  # fmt: skip
_SAMPLE = ("phase", "kind", "index", "wall_s", "device_s")
COLUMNS = (*_RUN, *_CASE, *_LAUNCH, *_SAMPLE)

_SINCE_SCHEMA_6 = ("allocator",)
_SINCE_SCHEMA_5 = ("calibration", "keep_float", *_SINCE_SCHEMA_6)
_KNOWN = (
    COLUMNS,
    *(
        tuple(name for name in COLUMNS if name not in since)
        for since in (_SINCE_SCHEMA_6, _SINCE_SCHEMA_5)
    ),
)
"""The columns, and those of earlier versions: without what becomes of memory, and without int8."""

LEFT_OUT = [
    f"the machine, but for {', '.join(MACHINE)}",
    "operation counts, tags and notes",
    "cases that were not launched, and why",
    "what networks from outside are made of, and the repository that was worked in",
    "what was to be compared, and that it was a selftest or a test's",
    "rules that held when it was measured, what was left out, and what int8 was calibrated on",
]

Row = dict[str, Any]
Text = Callable[[Any], str]


class Csv:
    """A table as text; JSON where a field holds several values."""

    suffix = ".csv"

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes a row per pass."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rows(runs))
        write_atomically(out, text.getvalue())
        return LEFT_OUT

    def read(self, path: Path) -> list[WholeRun]:
        """Reads what `write` wrote.

        Raises:
            ResultsError: Damaged, or another table.
        """
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) not in _KNOWN:
                    raise ResultsError(f"{path} line 1: expected the columns {','.join(COLUMNS)}")
                return _runs(path, list(reader))
        except (OSError, UnicodeDecodeError) as error:
            raise ResultsError(f"cannot read {path}: {error}") from None


class Parquet:
    """The same table with typed columns, by pandas and pyarrow."""

    suffix = ".parquet"

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes a row per pass.

        Raises:
            UsageError: pyarrow is not installed.
        """
        import pandas as pd

        frame = pd.DataFrame(_rows(runs), columns=list(COLUMNS))
        for name in ("wall_s", "device_s", "seconds"):
            frame[name] = pd.to_numeric(frame[name].replace("", None))
        _with_pyarrow(lambda: frame.to_parquet(out, index=False))
        return LEFT_OUT

    def read(self, path: Path) -> list[WholeRun]:
        """Reads what `write` wrote.

        Raises:
            UsageError: pyarrow is not installed.
            ResultsError: Damaged, or another table.
        """
        import pandas as pd

        found: list[pd.DataFrame] = []
        try:
            _with_pyarrow(lambda: found.append(pd.read_parquet(path)))
        except (OSError, ValueError) as error:
            raise ResultsError(f"cannot read {path}: {error}") from None
        (frame,) = found
        if tuple(frame.columns) not in _KNOWN:
            raise ResultsError(f"{path}: expected the columns {','.join(COLUMNS)}")
        rows = [
            {
                str(name): "" if value is None or value != value else value
                for name, value in row.items()
            }
            for row in frame.to_dict("records")
        ]
        return _runs(path, rows)


def _with_pyarrow(action: Callable[[], None]) -> None:
    try:
        action()
    except ImportError:
        raise UsageError(
            "--format: parquet needs pyarrow: python -m pip install 'dabench[parquet]'"
        ) from None


def _rows(runs: Sequence[WholeRun]) -> Iterator[Row]:
    for run in runs:
        environment = run.document["environment"]
        about: Row = {name: run.document[name] for name in ("run_id", "created", "command")}
        about |= {name: json.dumps(environment.get(name)) for name in MACHINE}
        plan = {planned.case.case_id: planned for planned in run.plan}
        for launch in run.launches:
            yield from ({**about, **row} for row in _of_launch(launch, plan[launch.case_id]))


def _of_launch(launch: LaunchRecord, planned: PlannedCase) -> Iterator[Row]:
    row = launch_row(launch)
    of_launch: Row = {
        **asdict(planned.case),
        "phases": ",".join(planned.case.phases),
        **{name: row[name] for name in ("launch", "status", "reason", "started_at", "seconds")},
        "round": "" if launch.round is None else str(launch.round),
        "device_facts": row["device"],
        "phases_facts": row["phases"],
        "settings": json.dumps(asdict(planned.settings)),
    }
    if not launch.phases:
        yield {**of_launch, "phase": "", "kind": "", "index": 0, "wall_s": "", "device_s": ""}
    for phase in launch.phases:
        for kind in KINDS:
            for index, sample in enumerate(phase.samples.of_kind(kind)):
                yield {
                    **of_launch,
                    "phase": phase.phase,
                    "kind": kind,
                    "index": index,
                    "wall_s": repr(sample.wall_s),
                    "device_s": "" if sample.device_s is None else repr(sample.device_s),
                }


def _runs(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[WholeRun]:
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_run.setdefault(str(row["run_id"]), []).append(row)
    try:
        return [_run(of_run) for of_run in by_run.values()]
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: not what dabench writes: {error!r}") from error


def _run(rows: Sequence[Mapping[str, Any]]) -> WholeRun:
    first = rows[0]
    plan: dict[str, PlannedCase] = {}
    samples: dict[int, dict[str, PhaseSamples]] = {}
    heads: dict[int, tuple[Mapping[str, Any], str]] = {}
    for row in rows:
        case = _case(row)
        launch = int(row["launch"])
        if launch not in heads:
            settings = Settings(**json.loads(row["settings"]))
            plan.setdefault(case.case_id, PlannedCase(case=case, settings=settings))
            heads[launch] = (row, case.case_id)
        if row["phase"]:
            of_phase = samples.setdefault(launch, {}).setdefault(row["phase"], PhaseSamples())
            device_s = float(row["device_s"]) if row["device_s"] != "" else None
            of_phase.of_kind(row["kind"]).append(Sample(float(row["wall_s"]), device_s))
    launches = [
        launch_of(
            {**{key: str(value) for key, value in row.items()}, "case_id": case_id,
             "device": row["device_facts"], "phases": row["phases_facts"]},
            samples.get(launch, {}).__getitem__,
        )
        for launch, (row, case_id) in heads.items()
    ]  # fmt: skip
    document = {
        **{name: str(first[name]) for name in ("run_id", "created", "command")},
        "environment": {name: json.loads(first[name]) for name in MACHINE},
    }
    return WholeRun(document, list(plan.values()), launches)


_TEXTS = {field.name for field in fields(Case) if field.type == "str"}
_WHOLE = {field.name for field in fields(Case) if field.type == "int"}


def _case(row: Mapping[str, Any]) -> Case:
    known: dict[str, Any] = {
        name: str(row[name]) if name in _TEXTS else row[name]
        for name in _CASE
        if name != "phases" and name in row
    }
    numbers = {name: int(value) for name, value in known.items() if name in _WHOLE}
    known |= {**numbers, "rate": float(known["rate"])}
    return Case(**known, phases=tuple(str(row["phases"]).split(",")))
