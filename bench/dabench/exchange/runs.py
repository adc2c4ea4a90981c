"""A run of timings as a whole, in memory: what formats write and read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dabench.base.errors import ResultsError
from dabench.base.files import disk_errors, json_text, write_atomically
from dabench.plan.cases import Case, PlannedCase
from dabench.records.calibrations import FIELD
from dabench.records.catalog import LABELS, Labels, read_labels
from dabench.records.comparisons import Side, seconds_per_pass
from dabench.records.counts import read_counts, read_uncounted
from dabench.records.folder import RunFolder, check_facts, read_run
from dabench.records.measurements import LaunchRecord
from dabench.records.merging import NAME, PROVENANCE, staging
from dabench.records.summary import summarised
from dabench.records.timings import TimingRecord, read_launches, read_plan
from dabench.timing.engine import KINDS


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

    def timed(self) -> Iterator[tuple[Case, str, list[list[float]]]]:
        """Each case and phase with the seconds per pass of each sample of each launch."""
        for planned in self.plan:
            side = Side(planned.case, self.of(planned.case.case_id), self.document["environment"])
            for phase in planned.case.phases:
                launches, _ = seconds_per_pass(side, phase)
                if launches:
                    yield planned.case, phase, launches


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


_TOLD = (
    "created", "rules", "left_out", "networks", "compare", "selftest", "test", "repository",
    FIELD,
)  # fmt: skip
"""What of a run's document is kept beside its plan and its machine."""


def check_run(run: WholeRun, source: Path) -> None:
    """Checks what later commands rely on.

    Args:
        run: From a file.
        source: That file.

    Raises:
        ResultsError: A name that is none, a date that is none, or samples that are no times.
    """
    document = run.document
    if not NAME.fullmatch(run.run_id):
        raise ResultsError(f"{source}: {run.run_id!r} is no name of a run")
    if not isinstance(document["environment"], dict):
        raise ResultsError(f"{source}: not what dabench writes: environment")
    check_facts(str(source), document)
    datetime.fromisoformat(document["created"]).astimezone(UTC)
    for launch in run.launches:
        for phase in launch.phases:
            for kind in KINDS:
                for sample in phase.samples.of_kind(kind):
                    if not 0 < sample.wall_s < math.inf:
                        raise ResultsError(f"{source}: {sample.wall_s!r} is no time of a sample")


def keep(runs: Sequence[WholeRun], into: Path, source: Path) -> list[Path]:
    """Writes runs to folders of their own; all of them or none.

    Args:
        runs: What to write.
        into: Their parent; made if missing.
        source: The file they come from, noted as their provenance.

    Raises:
        UsageError: The folder cannot be written.
        ResultsError: The disk is full, or what was written cannot be read again.
    """
    is_new = not into.exists()
    with disk_errors(into):
        into.mkdir(parents=True, exist_ok=True)
    try:
        with staging(into) as stage:
            for run in runs:
                _write(run, stage / run.run_id, source)
            for run in runs:
                (stage / run.run_id).rename(into / run.run_id)
    except BaseException:
        if is_new:
            with suppress(OSError):
                into.rmdir()
        raise
    return [into / run.run_id for run in runs]


def _write(run: WholeRun, folder: Path, source: Path) -> None:
    rest = {key: run.document[key] for key in _TOLD if key in run.document}
    with RunFolder.create(
        folder,
        "timing",
        command=str(run.document["command"]),
        environment=run.document["environment"],
        plan=[planned.to_dict() for planned in run.plan],
        **rest,
    ) as made:
        record = TimingRecord(made)
        record.counts(run.counts, run.uncounted)
        for launch in run.launches:
            record.launch(launch)
        # Made of what is on disk: what cannot be read again is not kept.
        record.measurements(summarised(folder, made.document), len(run.launches))
        with disk_errors(folder):
            write_atomically(folder / LABELS, json_text(asdict(run.labels)))
            write_atomically(folder / PROVENANCE, json_text([provenance(source)]))


def provenance(source: Path) -> dict[str, Any]:
    """Where a run came from, as `dabench.records.merging` notes it."""
    return {
        "bundle": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "merged": datetime.now(UTC).isoformat(timespec="seconds"),
    }
