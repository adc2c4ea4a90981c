"""Runs a plan: launches in order, records as they come, rows for what failed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dabench.plan.cases import Case, PlannedCase, launch_order, schedule
from dabench.plan.settings import MIN_LAUNCHES, Settings
from dabench.records.measurements import LaunchRecord, Measurement, PhaseRecord, failed, summarise
from dabench.run.worker import phase_samples

MAX_LAUNCHES = 20
SHORT_LAUNCHES = 5
SHORT_CASE_S = 5.0
LAUNCH_RULE = (
    f"without a number of launches a case gets {MIN_LAUNCHES}; with a fixed number of samples up "
    f"to {SHORT_LAUNCHES}, as long as they fit in {SHORT_CASE_S:g} s together; with a target "
    f"interval up to {MAX_LAUNCHES}, until it is met or the time limit is used up"
)
COUNT_TIMEOUT_S = 600.0

Message = dict[str, Any]
# What operations depend on: model, channels, height, width, mode.
Graph = tuple[str, int, int, int, str]
_SHAPE = ("channels", "height", "width")


class WorkerPool(Protocol):
    """What the runner needs of `dabench.run.launcher.Launcher`."""

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Runs a request in a fresh process and returns the last message."""


class Recorder(Protocol):
    """What the runner needs of `dabench.records.timings.RunWriter`."""

    def launch(self, record: LaunchRecord) -> None:
        """Keeps one launch."""

    def counts(self, counts: Sequence[Message]) -> None:
        """Keeps the operation counts."""

    def measurements(self, rows: Iterable[Measurement]) -> None:
        """Keeps the summary so far."""


class Observer(Protocol):
    """Sees a run go by; for progress displays."""

    def planned(self, launches: int) -> None:
        """How many launches are due in all; may grow."""

    def started(self, case: Case) -> None:
        """A launch of this case begins."""

    def finished(self, record: LaunchRecord) -> None:
        """A launch ended, well or not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        interrupted: Whether Ctrl-C ended it before its plan did.
    """

    measurements: list[Measurement]
    interrupted: bool


class Runner:
    """Runs the cases of a plan, each launch in its own process.

    Args:
        plan: The cases, impossible ones included.
        pool: Starts the processes.
        recorder: Keeps the raw records.
        observer: Told of each launch.
        done: Launches an earlier, interrupted run already has.
        first_launch: Number of the next launch.
        scratch: Folder for what compilers and exporters write, kept from launch
            to launch; None gives each launch its own.
    """

    def __init__(
        self,
        plan: Sequence[PlannedCase],
        pool: WorkerPool,
        recorder: Recorder,
        observer: Observer,
        done: Sequence[LaunchRecord] = (),
        first_launch: int = 0,
        scratch: Path | None = None,
    ) -> None:
        self._plan = plan
        self._scratch = scratch
        self._pool = pool
        self._recorder = recorder
        self._observer = observer
        self._next_launch = first_launch
        self._launches: dict[str, list[LaunchRecord]] = {p.case.case_id: [] for p in plan}
        for record in done:
            self._launches[record.case_id].append(record)
        self._counts: dict[Graph, Message] = {}
        self._uncounted: dict[Graph, str] = {}
        self._rows: dict[str, list[Measurement]] = {}

    def run(self) -> Outcome:
        """Measures everything; Ctrl-C ends it early and keeps what there is."""
        interrupted = False
        try:
            self._count()
            self._summarise_all()
            self._first_launches()
            self._more_launches()
        except KeyboardInterrupt:
            interrupted = True
        self._summarise_all()
        rows = [row for planned in self._plan for row in self._rows[planned.case.case_id]]
        self._recorder.measurements(rows)
        return Outcome(rows, interrupted)

    def _count(self) -> None:
        """Counts each distinct graph once, for one image."""
        items = {}
        for planned in self._plan:
            if planned.impossible is None:
                key = _graph(planned.case)
                items[key] = dict(zip(("name", *_SHAPE, "mode"), key, strict=True))

        def receive(message: Message) -> None:
            count = message["count"]
            key = (count["model"], *(count[side] for side in _SHAPE), count["mode"])
            self._counts[key] = count

        for key, item in items.items():
            request = {"kind": "count", "items": [item]}
            last = self._pool.run(request, receive, timeout_s=COUNT_TIMEOUT_S)
            if last["kind"] != "done" and key not in self._counts:
                self._uncounted[key] = last["reason"]
        self._recorder.counts(list(self._counts.values()))

    def _first_launches(self) -> None:
        left = {case_id: len(records) for case_id, records in self._launches.items()}
        due = []
        for _, planned in schedule(self._plan):
            # What an interrupted run has already is not measured again.
            if left[planned.case.case_id] > 0:
                left[planned.case.case_id] -= 1
            else:
                due.append(planned)
        self._observer.planned(len(due))
        for planned in due:
            if not self._has_failed(planned):
                self._launch(planned)

    def _more_launches(self) -> None:
        """Further rounds for cases that `LAUNCH_RULE` grants them."""
        index = 0
        while wanting := [planned for planned in self._plan if self._wants_more(planned)]:
            self._observer.planned(len(wanting))
            seed = wanting[0].settings.seed
            for planned in launch_order(wanting, round_index=1000 + index, seed=seed):
                self._launch(planned)
            index += 1

    def _wants_more(self, planned: PlannedCase) -> bool:
        settings = planned.settings
        launches = self._launches[planned.case.case_id]
        if (
            planned.impossible is not None
            or planned.case.protocol != "steady"
            or settings.launches is not None
            or self._has_failed(planned)
        ):
            return False
        if settings.target_ci is None:
            most, limit_s = SHORT_LAUNCHES, min(settings.max_time_s or SHORT_CASE_S, SHORT_CASE_S)
        else:
            if all(row.stop != "gave up" for row in self._rows[planned.case.case_id]):
                return False
            most, limit_s = MAX_LAUNCHES, settings.max_time_s or math.inf
        spent_s = sum(record.seconds for record in launches)
        one_more_s = spent_s / len(launches)
        return len(launches) < most and spent_s + one_more_s <= limit_s

    def _has_failed(self, planned: PlannedCase) -> bool:
        return any(r.status != "ok" for r in self._launches[planned.case.case_id])

    def _launch(self, planned: PlannedCase) -> None:
        case = planned.case
        self._observer.started(case)
        record = launch_case(planned, self._pool, self._next_launch, self._scratch)
        self._next_launch += 1
        self._recorder.launch(record)
        self._launches[case.case_id].append(record)
        self._summarise(planned)
        measured = [row for rows in self._rows.values() for row in rows if row.status != "pending"]
        self._recorder.measurements(measured)
        self._observer.finished(record)

    def _summarise_all(self) -> None:
        for planned in self._plan:
            self._summarise(planned)

    def _summarise(self, planned: PlannedCase) -> None:
        case = planned.case
        launches = self._launches[case.case_id]
        if planned.impossible is not None:
            rows = failed(case, "unsupported", planned.impossible)
        elif not launches:
            rows = failed(case, "pending", "not measured: the run ended before")
        else:
            rows = summarise(case, launches, self._macs(case), planned.settings.target_ci)
            notes = []
            if len(launches) < planned.settings.first_launches and not self._has_failed(planned):
                notes.append(f"{len(launches)} of {planned.settings.first_launches} launches ran")
            if _graph(case) in self._uncounted:
                notes.append(f"operations not counted: {self._uncounted[_graph(case)]}")
            rows = [replace(r, flags="; ".join(filter(None, (r.flags, *notes)))) for r in rows]
        self._rows[case.case_id] = rows

    def _macs(self, case: Case) -> dict[str, tuple[int, int] | None]:
        """Multiply-adds per phase for the whole batch: algorithmic, executed."""
        count = self._counts.get(_graph(case))
        if count is None:
            return {}
        forward = (case.batch * count["macs"], case.batch * count["executed_macs"])
        backward = (
            case.batch * count["backward_macs"],
            case.batch * count["executed_backward_macs"],
        )
        total = (forward[0] + backward[0], forward[1] + backward[1])
        return {"forward": forward, "backward": backward, "total": total}


def launch_case(
    planned: PlannedCase, pool: WorkerPool, launch: int, scratch: Path | None = None
) -> LaunchRecord:
    """Measures one case in one fresh process."""
    case = planned.case
    phases: list[PhaseRecord] = []
    device: dict[str, Any] = {}

    def receive(message: Message) -> None:
        if message["kind"] == "device":
            device.update(message["device"])
        elif message["kind"] == "phase":
            phases.append(_phase_record(message))

    request = {
        "kind": "time",
        "case": case.to_dict(),
        "seed": planned.settings.seed,
        "rule": stop_rule(planned.settings, len(case.phases)),
        "scratch": str(scratch / _folder_name(case)) if scratch else None,
    }
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    begin = time.monotonic()
    last = pool.run(request, receive, timeout_s=planned.settings.timeout_s)
    ok = last["kind"] == "done"
    return LaunchRecord(
        launch=launch,
        case_id=case.case_id,
        status="ok" if ok else last["status"],
        reason="" if ok else last["reason"],
        started_at=started_at,
        seconds=time.monotonic() - begin,
        device=device,
        phases=tuple(phases),
    )


def stop_rule(settings: Settings, phases: int) -> Message:
    """The settings' share for one phase of one launch (`dabench.timing.engine.StopRule`)."""
    shares = settings.first_launches * phases
    return {
        "warmup": settings.warmup,
        "repeat": settings.repeat,
        "target_ci": settings.target_ci,
        "max_time_s": None if settings.max_time_s is None else settings.max_time_s / shares,
    }


def _graph(case: Case) -> Graph:
    return case.model, case.channels, case.height, case.width, case.mode


def _folder_name(case: Case) -> str:
    return hashlib.sha256(case.case_id.encode()).hexdigest()[:16]


def _phase_record(message: Message) -> PhaseRecord:
    return PhaseRecord(
        phase=message["phase"],
        samples=phase_samples(message),
        passes=message["passes"],
        peak_bytes=message["peak_bytes"],
        other_cores=message["other_cores"],
        throttled=message["throttled"],
        joules=message.get("joules"),
    )
