"""A run's rows from its plan, its launches and its counts; the same while it runs and when read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError
from dabench.plan.cases import Case, PlannedCase
from dabench.records.counts import read_counts, read_uncounted
from dabench.records.measurements import LaunchRecord, Measurement, failed, summarise
from dabench.records.timings import (
    MEASUREMENTS,
    next_launch,
    read_launches,
    read_measurements,
    read_plan,
    summarised_launches,
)

Graph = tuple[str, int, int, int, str]
"""What operations depend on: model, channels, height, width, mode."""

GRAPH_FIELDS = ("model", "channels", "height", "width", "mode")


def graph_of(case: Case) -> Graph:
    """The graph that a case runs."""
    return case.model, case.channels, case.height, case.width, case.mode


class Summary:
    """Measurements of the cases of a plan.

    Attributes:
        counts: Graph -> operation counts of one image.
        uncounted: Graph -> why there are none.
    """

    def __init__(
        self,
        counts: Iterable[Mapping[str, Any]] = (),
        uncounted: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.counts: dict[Graph, Mapping[str, Any]] = {_key(count): count for count in counts}
        self.uncounted: dict[Graph, str] = {_key(each): each["reason"] for each in uncounted}

    def rows(self, planned: PlannedCase, launches: Sequence[LaunchRecord]) -> list[Measurement]:
        """One case's rows, one per phase, from all its launches so far."""
        case = planned.case
        if planned.impossible is not None:
            return failed(case, "unsupported", planned.impossible)
        if not launches:
            return failed(case, "pending", "not measured: the run ended before")
        rows = summarise(case, launches, self._macs(case), planned.settings.target_ci)
        notes = []
        wanted = planned.settings.first_launches
        if len(launches) < wanted and not any(each.status != "ok" for each in launches):
            notes.append(f"{len(launches)} of {wanted} launches ran")
        open_ones = self._open(case)
        if open_ones:
            notes.append(f"operations are at least: {open_ones} uncounted")
            # A rate would be a lower bound that looks like a measurement.
            rows = [replace(row, flops_per_s=None) for row in rows]
        if graph_of(case) in self.uncounted:
            notes.append(f"operations not counted: {self.uncounted[graph_of(case)]}")
        if self._is_of_another_batch(case):
            notes.append("operations not counted: they do not grow in proportion to the batch")
        return [replace(row, flags="; ".join(filter(None, (row.flags, *notes)))) for row in rows]

    def _open(self, case: Case) -> str:
        """Operators of a case's network whose arithmetic nobody counted, in words."""
        count = self.counts.get(graph_of(case), {})
        # Before `without` was told apart, most of what was not counted had no multiply-adds.
        calls = count.get("uncounted", {}) if "without" in count else {}
        return ", ".join(f"{name} x{number}" for name, number in calls.items())

    def _is_of_another_batch(self, case: Case) -> bool:
        """Whether a case's count holds for the batch it was made for alone."""
        count = self.counts.get(graph_of(case), {})
        return not count.get("linear", True) and count["batch"] != case.batch

    def _macs(self, case: Case) -> dict[str, tuple[int, int] | None]:
        """Multiply-adds per phase for the whole batch: algorithmic, executed."""
        count = self.counts.get(graph_of(case))
        if count is None or self._is_of_another_batch(case):
            return {}
        fixed = count.get("fixed", {})

        def of_batch(name: str) -> int:
            """Counts of one image, of which a part does not grow with the batch."""
            still = int(fixed.get(name, 0))
            return still + case.batch * (int(count[name]) - still)

        forward = (of_batch("macs"), of_batch("executed_macs"))
        backward = (of_batch("backward_macs"), of_batch("executed_backward_macs"))
        total = (forward[0] + backward[0], forward[1] + backward[1])
        return {"forward": forward, "backward": backward, "total": total}


def summarised(path: Path, document: Mapping[str, Any]) -> list[Measurement]:
    """The rows of a run on disk, made anew from its raw records where they are not up to date.

    Args:
        path: Its folder.
        document: Of its ``run.json``.

    Raises:
        ResultsError: Damaged records, or launches of a case that is not in the plan.
    """
    plan = read_plan(path, document)
    stored = read_stored(path, plan)
    summary = Summary(*stored.counts)
    return [
        row
        for planned in plan
        for row in stored.rows.get(planned.case.case_id)
        or summary.rows(planned, stored.launches[planned.case.case_id])
    ]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a run has that is continued.

    Attributes:
        launches: Of each case, in the order they ran.
        rows: Of each case whose rows on disk were made of all its launches.
        counts: Operation counts, and why others are missing.
        next_launch: A number that no row uses.
    """

    launches: dict[str, list[LaunchRecord]]
    rows: dict[str, list[Measurement]] = field(default_factory=dict)
    counts: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = ((), ())
    next_launch: int = 0

    @property
    def ran(self) -> int:
        """How many launches there are."""
        return sum(map(len, self.launches.values()))


def read_stored(path: Path, plan: Sequence[PlannedCase]) -> Stored:
    """Reads what a run has so far.

    Raises:
        ResultsError: Damaged records, or launches of a case that is not in the plan.
    """
    launches = read_launches(path, later=True)
    summarised_n = summarised_launches(path) or 0
    if summarised_n > len(launches):
        # Somebody took launches away.
        summarised_n = 0
    stale = {record.case_id for record in launches[summarised_n:]}
    rows: dict[str, list[Measurement]] = {}
    for row in read_measurements(path / MEASUREMENTS) if summarised_n else ():
        rows.setdefault(row.case_id, []).append(row)
    found = _by_case(path, plan, launches)
    known = {name: each for name, each in rows.items() if name not in stale and found.get(name)}
    counts = (read_counts(path), read_uncounted(path))
    return Stored(found, known, counts, next_launch(path))


def launches_by_case(path: Path, plan: Sequence[PlannedCase]) -> dict[str, list[LaunchRecord]]:
    """The launches of each case of a plan, in the order they ran.

    Raises:
        ResultsError: Damaged records, or launches of a case that is not in the plan.
    """
    return _by_case(path, plan, read_launches(path))


def _by_case(
    path: Path, plan: Sequence[PlannedCase], launches: Iterable[LaunchRecord]
) -> dict[str, list[LaunchRecord]]:
    found: dict[str, list[LaunchRecord]] = {planned.case.case_id: [] for planned in plan}
    for record in launches:
        if record.case_id not in found:
            raise ResultsError(f"{path} holds launches of a case not in its plan: {record.case_id}")
        found[record.case_id].append(record)
    return found


def _key(count: Mapping[str, Any]) -> Graph:
    model, channels, height, width, mode = (count[name] for name in GRAPH_FIELDS)
    return model, channels, height, width, mode
