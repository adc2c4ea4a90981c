"""Runs a plan: launches in order, records as they come, rows for what failed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dabench.base.errors import ResultsError
from dabench.base.interrupts import uninterrupted
from dabench.base.units import format_seconds
from dabench.plan.cases import Case, PlannedCase, launch_order, remaining
from dabench.plan.settings import MIN_LAUNCHES, Settings
from dabench.records.measurements import LaunchRecord, Measurement, PhaseRecord, compacted
from dabench.records.summary import GRAPH_FIELDS, Graph, Stored, Summary, graph_of
from dabench.run.lanes import Lanes
from dabench.run.sampling import phase_samples
from dabench.timing.clock import Clock, host_clock

MAX_LAUNCHES = 20
SHORT_LAUNCHES = 5
SHORT_CASE_S = 5.0
LAUNCH_RULE = (
    f"without a number of launches a case gets {MIN_LAUNCHES}; with a fixed number of samples up "
    f"to {SHORT_LAUNCHES}, as long as they fit in {SHORT_CASE_S:g} s together; with a target "
    f"interval up to {MAX_LAUNCHES}, until it is met or the time limit is used up"
)
COUNT_TIMEOUT_S = 600.0

SUMMARY_SHARE = 0.05
"""Share of a run's time that rewriting its summary may take: a crash loses no launch by it."""

Message = dict[str, Any]


class WorkerPool(Protocol):
    """What the runner needs of `dabench.run.launcher.Launcher`."""

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Runs a request in a fresh process and returns the last message."""


class Recorder(Protocol):
    """What the runner needs of `dabench.records.timings.TimingRecord`."""

    def launch(self, record: LaunchRecord) -> None:
        """Keeps one launch."""

    def counts(
        self, counts: Sequence[Mapping[str, Any]], uncounted: Sequence[Mapping[str, Any]]
    ) -> None:
        """Keeps the operation counts, and why others are missing."""

    def measurements(self, rows: Iterable[Measurement], launches: int) -> None:
        """Keeps the summary of so many launches."""


class Observer(Protocol):
    """Sees a run go by; for progress displays."""

    def planned(self, launches: int) -> None:
        """So many launches are due, added to those announced before."""

    def started(self, case: Case) -> None:
        """A launch of this case begins."""

    def finished(self, record: LaunchRecord) -> None:
        """A launch ended, well or not."""

    def note(self, text: str) -> None:
        """Something the user should know."""


WantsMore = Callable[[Mapping[str, Sequence[LaunchRecord]]], set[str]]


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
        stored: What an earlier, interrupted run has already.
        scratch: Folder for what compilers and exporters write, kept from launch
            to launch; None gives each launch its own.
        clock: The host's.
        wants_more: Asked between rounds, with the launches by case, which cases are to
            run again; None leaves that to `LAUNCH_RULE`.
        at_once: So many launches of different cases run side by side, each on a machine of its
            own (`dabench.run.lanes`).
    """

    def __init__(
        self,
        plan: Sequence[PlannedCase],
        pool: WorkerPool,
        recorder: Recorder,
        observer: Observer,
        *,
        stored: Stored | None = None,
        scratch: Path | None = None,
        clock: Clock = host_clock,
        wants_more: WantsMore | None = None,
        at_once: int = 1,
    ) -> None:
        self._plan = plan
        self._planned = {planned.case.case_id: planned for planned in plan}
        self._at_once = at_once
        self._wanted = wants_more
        self._scratch = scratch
        self._pool = pool
        self._recorder = recorder
        self._observer = observer
        self._clock = clock
        stored = stored or Stored({name: [] for name in self._planned})
        self._next_launch = stored.next_launch
        self._launches = stored.launches
        self._ran = stored.ran
        self._summary = Summary(*stored.counts)
        self._rows = stored.rows
        self._next_summary_s = -math.inf
        self._too_long: set[str] = set()

    def run(self) -> Outcome:
        """Measures everything; Ctrl-C ends it early and keeps what there is."""
        interrupted = False
        try:
            self._count()
            self._summarise(self._without_rows())
            self._first_launches()
            self._more_launches()
        except KeyboardInterrupt:
            interrupted = True
        self._summarise(self._without_rows())
        self._write_summary()
        rows = [row for planned in self._plan for row in self._rows[planned.case.case_id]]
        return Outcome(rows, interrupted)

    def _count(self) -> None:
        """Counts each distinct graph once, for one image; those not that an earlier run counted."""
        batches: dict[Graph, set[int]] = {}
        counts: dict[Graph, Mapping[str, Any]] = dict(self._summary.counts)
        for planned in self._plan:
            if planned.impossible is None and graph_of(planned.case) not in counts:
                batches.setdefault(graph_of(planned.case), set()).add(planned.case.batch)
        if not batches:
            return
        uncounted: list[Message] = []
        for graph, also in batches.items():
            document = dict(zip(GRAPH_FIELDS, graph, strict=True))
            item = {"name": document["model"], **document, "also": sorted(also)}
            del item["model"]

            def receive(message: Message, graph: Graph = graph) -> None:
                counts[graph] = message["count"]

            request = {"kind": "count", "items": [item]}
            last = self._pool.run(request, receive, timeout_s=COUNT_TIMEOUT_S)
            if last["kind"] != "done" and graph not in counts:
                uncounted.append({**document, "reason": last["reason"]})
        for planned in self._plan:
            if graph_of(planned.case) in batches:
                self._rows.pop(planned.case.case_id, None)
        self._summary = Summary(counts.values(), uncounted)
        self._recorder.counts(list(counts.values()), uncounted)

    def _first_launches(self) -> None:
        done = {case_id: len(records) for case_id, records in self._launches.items()}
        due: list[tuple[int | None, PlannedCase]] = [*remaining(self._plan, done)]
        self._observer.planned(len(due))
        if self._at_once > 1:
            # Of a round that was begun before nobody knows whether it goes on where it was.
            begun = {each.round for records in self._launches.values() for each in records}
            due = [(None if number in begun else number, planned) for number, planned in due]
        self._launch_all(due, lambda each: not self._has_failed(each) and self._fits(each))

    def _more_launches(self) -> None:
        """Further rounds for cases that `LAUNCH_RULE` grants them."""
        known = [r.round for each in self._launches.values() for r in each if r.round is not None]
        number = max(known, default=-1) + 1
        while wanting := self._wanting():
            self._observer.planned(len(wanting))
            seed = wanting[0].settings.seed
            order = launch_order(wanting, round_index=1000 + number, seed=seed)
            self._launch_all([(number, planned) for planned in order])
            number += 1

    def _wanting(self) -> list[PlannedCase]:
        if self._wanted is None:
            return [planned for planned in self._plan if self._wants_more(planned)]
        wanted = self._wanted(self._launches)
        return [planned for planned in self._plan if planned.case.case_id in wanted]

    def _wants_more(self, planned: PlannedCase) -> bool:
        settings = planned.settings
        launches = self._launches[planned.case.case_id]
        if (
            planned.impossible is not None
            or planned.case.protocol != "steady"
            or settings.launches is not None
            or len(launches) < settings.first_launches
            or self._has_failed(planned)
        ):
            return False
        if settings.target_ci is None:
            # Short cases are dearer to start than to sample: the whole launch counts.
            spent_s = sum(record.seconds for record in launches)
            most, limit_s = SHORT_LAUNCHES, min(settings.max_time_s or SHORT_CASE_S, SHORT_CASE_S)
        else:
            if all(row.stop != "gave up" for row in self._rows[planned.case.case_id]):
                return False
            spent_s = sum(record.spent_s for record in launches)
            most, limit_s = MAX_LAUNCHES, settings.max_time_s or math.inf
        one_more_s = spent_s / len(launches)
        return len(launches) < most and spent_s + one_more_s <= limit_s

    def _fits(self, planned: PlannedCase) -> bool:
        """Whether another launch of a case fits into its time limit, as its passes so far tell."""
        settings, launches = planned.settings, self._launches[planned.case.case_id]
        if fits(planned, launches):
            return True
        assert settings.max_time_s is not None
        wanted, least_s = settings.first_launches, _least_s(launches)
        if planned.case.case_id in self._too_long:
            return False
        self._too_long.add(planned.case.case_id)
        self._observer.note(
            f"{planned.case.case_id}: does not fit into --max-time "
            f"{format_seconds(settings.max_time_s)}: {wanted} launches of one pass each take about "
            f"{format_seconds(wanted * least_s)}; measured in {len(launches)}"
        )
        return False

    def _has_failed(self, planned: PlannedCase) -> bool:
        return any(r.status != "ok" for r in self._launches[planned.case.case_id])

    def _launch_all(
        self,
        due: Sequence[tuple[int | None, PlannedCase]],
        still: Callable[[PlannedCase], bool] = lambda _: True,
    ) -> None:
        """Makes launches in order, those that are still wanted when it is their turn."""
        if self._at_once > 1:
            self._launch_side_by_side(Lanes(due, self._at_once), still)
            return
        for number, planned in due:
            if still(planned):
                self._keep(self._started(planned, number)())

    def _launch_side_by_side(self, lanes: Lanes, still: Callable[[PlannedCase], bool]) -> None:
        """Makes several launches at once, never two of one case.

        How long one may take, and whether there is another at all, depends on those before it.
        Whatever goes wrong, those that run are waited for and kept.
        """
        running: dict[Future[LaunchRecord], tuple[int, str]] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self._at_once) as threads:
            while running or (lanes.left and failure is None):
                busy = {lane for lane, _ in running.values()}
                cases = {case_id for _, case_id in running.values()}
                free = [lane for lane in range(self._at_once) if lane not in busy]
                found = None if failure else lanes.next_of(free, cases)
                if found is not None:
                    lane, number, planned = found
                    if still(planned):
                        launch = threads.submit(self._started(planned, number, lane))
                        running[launch] = (lane, planned.case.case_id)
                    continue
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for launch in ended:
                    del running[launch]
                    error = launch.exception()
                    if error is None and not isinstance(failure, ResultsError):
                        # Behind what could not be written nothing may follow.
                        error = self._unkept(launch.result())
                    failure = failure or error
        if failure is not None:
            raise failure

    def _unkept(self, record: LaunchRecord) -> ResultsError | None:
        """Keeps a launch; returns why that failed."""
        try:
            self._keep(record)
        except ResultsError as error:
            return error
        return None

    def _started(
        self, planned: PlannedCase, number: int | None, lane: int | None = None
    ) -> Callable[[], LaunchRecord]:
        """Announces a launch; what is returned makes it, in whichever thread."""
        self._observer.started(planned.case)
        before = self._launches[planned.case.case_id]
        launch = partial(
            launch_case,
            planned,
            self._pool,
            self._next_launch,
            round_number=None if planned.settings.order == "blocked" else number,
            spent_s=sum(each.spent_s for each in before),
            launches=len(before),
            scratch=self._scratch,
            lane=lane,
        )
        self._next_launch += 1
        return launch

    def _keep(self, record: LaunchRecord) -> None:
        case_id = record.case_id
        with uninterrupted():  # what is on disk is in the table, too
            self._recorder.launch(record)
            self._launches[case_id].append(compacted(record))
            self._ran += 1
            self._summarise([self._planned[case_id]])
        if self._clock() >= self._next_summary_s:
            self._write_summary()
        self._observer.finished(record)

    def _summarise(self, plan: Iterable[PlannedCase]) -> None:
        for planned in plan:
            case_id = planned.case.case_id
            self._rows[case_id] = self._summary.rows(planned, self._launches[case_id])

    def _without_rows(self) -> list[PlannedCase]:
        return [planned for planned in self._plan if planned.case.case_id not in self._rows]

    def _write_summary(self) -> None:
        """Rewrites the summary, and no sooner again than `SUMMARY_SHARE` allows."""
        begin = self._clock()
        rows = [row for planned in self._plan for row in self._rows[planned.case.case_id]]
        self._recorder.measurements(rows, self._ran)
        end = self._clock()
        self._next_summary_s = end + (end - begin) / SUMMARY_SHARE


def fits(planned: PlannedCase, launches: Sequence[LaunchRecord]) -> bool:
    """Whether another launch of a case fits into its time limit, as its launches so far tell."""
    limit_s = planned.settings.max_time_s
    if limit_s is None or planned.case.protocol != "steady" or not launches:
        return True
    return _least_s(launches) <= limit_s - sum(record.spent_s for record in launches)


def _least_s(launches: Sequence[LaunchRecord]) -> float:
    """The least that a launch does: one pass of each phase, with what prepares it."""
    return max(sum(map(_pass_s, record.phases)) for record in launches)


def _pass_s(phase: PhaseRecord) -> float:
    """Seconds of one pass of a phase, what prepares it included where that was noted."""
    longest = max(sample.wall_s for sample in phase.samples.samples)
    if phase.spent_s is None:
        return longest
    return max(longest, phase.spent_s / len([*phase.samples.warmup, *phase.samples.samples]))


def launch_case(
    planned: PlannedCase,
    pool: WorkerPool,
    launch: int,
    *,
    round_number: int | None = None,
    spent_s: float = 0.0,
    launches: int = 0,
    scratch: Path | None = None,
    lane: int | None = None,
) -> LaunchRecord:
    """Measures one case in one fresh process.

    Args:
        planned: The case.
        pool: Starts the process.
        launch: Its number within the run.
        round_number: Of the round it belongs to; None for a blocked case.
        spent_s: Seconds of warm-up and samples in the case's launches so far.
        launches: How many launches the case has had so far.
        scratch: Folder for what compilers and exporters write; None gives the launch its own.
        lane: Which of several machines it should run on; elsewhere it belongs to no round.
    """
    case = planned.case
    phases: list[PhaseRecord] = []
    device: dict[str, Any] = {}
    # Of another machine, where a launch may have to wait for its turn.
    ran: dict[str, Any] = {}

    def receive(message: Message) -> None:
        if message["kind"] == "device":
            device.update(message["device"])
        elif message["kind"] == "phase":
            phases.append(_phase_record(message))
        elif message["kind"] == "ran":
            ran.update(message)

    request = {
        "kind": "time",
        "case": case.to_dict(),
        "seed": planned.settings.seed,
        "rule": stop_rule(planned.settings, len(case.phases), spent_s, launches),
        **_folders(planned, scratch),
        **({} if lane is None else {"lane": lane}),
    }
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    begin = time.monotonic()
    last = pool.run(request, receive, timeout_s=planned.settings.timeout_s)
    ok = last["kind"] == "done"
    return LaunchRecord(
        launch=launch,
        round=None if ran.get("lane") != lane else round_number,
        case_id=case.case_id,
        status="ok" if ok else last["status"],
        reason="" if ok else last["reason"],
        started_at=ran.get("started_at", started_at),
        seconds=ran.get("seconds", time.monotonic() - begin),
        device=device,
        phases=tuple(phases),
    )


def _folders(planned: PlannedCase, scratch: Path | None) -> dict[str, str | None]:
    """Where compilers and exporters write."""
    if scratch is None:
        return {"scratch": None, "exports": None}
    return {
        "scratch": str(scratch / folder_name(planned.case)),
        "exports": str(scratch / export_name(planned)),
    }


def stop_rule(settings: Settings, phases: int, spent_s: float = 0.0, launches: int = 0) -> Message:
    """The settings' share for one phase of one launch (`dabench.timing.engine.StopRule`).

    What is left of the time limit is shared by the phases of the launches to come.
    """
    share_s = None
    if settings.max_time_s is not None:
        to_come = max(settings.first_launches - launches, 1)
        share_s = max(settings.max_time_s - spent_s, 0.0) / (to_come * phases)
    return {
        "warmup": settings.warmup,
        "repeat": settings.repeat,
        "target_ci": settings.target_ci,
        "max_time_s": share_s,
    }


def folder_name(case: Case) -> str:
    """Of the folder for what compilers and exporters write for a case."""
    return hashlib.sha256(case.case_id.encode()).hexdigest()[:16]


def export_name(planned: PlannedCase) -> str:
    """Of the folder for a network's export, which all ways to run it that take a file share."""
    case, seed = planned.case, planned.settings.seed
    exported = "/".join(map(str, (*graph_of(case), case.batch, case.device, seed)))
    return f"export-{hashlib.sha256(exported.encode()).hexdigest()[:16]}"


def _phase_record(message: Message) -> PhaseRecord:
    return PhaseRecord(
        phase=message["phase"],
        samples=phase_samples(message),
        passes=message["passes"],
        peak_bytes=message["peak_bytes"],
        other_cores=message["other_cores"],
        throttled=message["throttled"],
        joules=message.get("joules"),
        spent_s=message.get("spent_s"),
        queue=message.get("queue"),
        celsius=message.get("celsius"),
        cpu_s=message.get("cpu_s"),
        system_s=message.get("system_s"),
    )
