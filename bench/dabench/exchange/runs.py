"""A run of timings as a whole, in memory: what formats write and read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dabench.base.errors import UsageError
from dabench.base.files import disk_errors, json_text, write_atomically
from dabench.plan.cases import PlannedCase
from dabench.records.catalog import LABELS, Labels, read_labels
from dabench.records.counts import read_counts, read_uncounted
from dabench.records.folder import RunFolder, read_run
from dabench.records.measurements import LaunchRecord
from dabench.records.merging import PROVENANCE
from dabench.records.summary import Summary
from dabench.records.timings import TimingRecord, read_launches, read_plan


@dataclass(frozen=True, slots=True)
class WholeRun:
    """All records of a run of timings.

    Attributes:
        document: Of its ``run.json``, the plan in it as read.
        launches: In the order they ran.
        counts: Operation counts.
        uncounted: What could not be counted, with reasons.
    """

    document: Mapping[str, Any]
    plan: Sequence[PlannedCase]
    launches: Sequence[LaunchRecord]
    counts: Sequence[Mapping[str, Any]] = ()
    uncounted: Sequence[Mapping[str, Any]] = ()
    labels: Labels = field(default_factory=Labels)

    @property
    def run_id(self) -> str:
        """Name of its folder."""
        return str(self.document["run_id"])

    def of(self, case_id: str) -> list[LaunchRecord]:
        """The launches of a case."""
        return [launch for launch in self.launches if launch.case_id == case_id]


class Format(Protocol):
    """A format of files."""

    suffix: str

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes runs to a file; what it cannot hold of them, a line each.

        Raises:
            UsageError: It cannot hold them at all, or needs a package that is not there.
        """

    def read(self, path: Path) -> list[WholeRun]:
        """Reads runs from a file.

        Raises:
            UsageError: It holds no samples, or is not of this format.
        """


def whole_run(path: Path) -> WholeRun:
    """Reads a run.

    Raises:
        UsageError: No timings there.
        ResultsError: Damaged records.
    """
    document = read_run(path, "timing")
    return WholeRun(
        document,
        read_plan(path, document),
        read_launches(path),
        read_counts(path),
        read_uncounted(path),
        read_labels(path),
    )


def keep(run: WholeRun, into: Path, source: Path) -> Path:
    """Writes a run to a folder of its own.

    Args:
        run: What to write.
        into: Its parent.
        source: The file it comes from, noted as its provenance.

    Raises:
        UsageError: There is a run of that name already, or its name is none.
        ResultsError: The disk is full or gone.
    """
    if Path(run.run_id).name != run.run_id or run.run_id.startswith("."):
        raise UsageError(f"{source}: {run.run_id!r} is no name of a run")
    folder = into / run.run_id
    told = {"schema", "kind", "run_id", "command", "environment", "plan"}
    rest = {key: value for key, value in run.document.items() if key not in told}
    plan = [planned.to_dict() for planned in run.plan]
    environment = run.document["environment"]
    command = str(run.document["command"])
    with RunFolder.create(
        folder, "timing", command=command, environment=environment, plan=plan, **rest
    ) as made:
        record = TimingRecord(made)
        record.counts(run.counts, run.uncounted)
        for launch in run.launches:
            record.launch(launch)
        summary = Summary(run.counts, run.uncounted)
        rows = [row for p in run.plan for row in summary.rows(p, run.of(p.case.case_id))]
        record.measurements(rows, len(run.launches))
        with disk_errors(folder):
            write_atomically(folder / LABELS, json_text(asdict(run.labels)))
            write_atomically(folder / PROVENANCE, json_text([provenance(source)]))
    return folder


def provenance(source: Path) -> dict[str, Any]:
    """Where a run came from, as `dabench.records.merging` notes it."""
    return {
        "bundle": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "merged": datetime.now(UTC).isoformat(timespec="seconds"),
    }
