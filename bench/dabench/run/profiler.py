"""A profile from request to records: ceilings, counts, launches in turn, a row per layer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dabench.base.errors import DabenchError
from dabench.base.files import disk_errors
from dabench.base.interrupts import uninterrupted
from dabench.device.machine import describe_host
from dabench.plan.cases import Case, PlannedCase, expand, remaining
from dabench.plan.devices import resolve_all
from dabench.plan.networks import identities, spec_of
from dabench.plan.settings import Grid, Settings
from dabench.profiling.roofline import BOUND_RULE, Ceilings, Setting
from dabench.records.folder import (
    RUN,
    RunFolder,
    bad_row,
    check_new_run,
    check_same_machine,
    read_run,
)
from dabench.records.measurements import LaunchRecord
from dabench.records.profiles import (
    KIND,
    PROFILE_RULE,
    LayerRow,
    ModelRow,
    PhaseLayers,
    ProfileRecord,
    failed_phase,
    next_profile_launch,
    read_profile_counts,
    read_profiled,
    summarise_phase,
)
from dabench.records.timings import read_plan
from dabench.run.ceilings import ceilings_of
from dabench.run.launcher import Launcher
from dabench.run.runner import COUNT_TIMEOUT_S, Observer
from dabench.run.session import check_same_networks, probe
from dabench.timing.statistics import INTERVAL_RULE

PHASES = ("forward", "backward")
LIMIT_S = 12.0
TRACES = "traces"


@dataclass(frozen=True, slots=True)
class Profile:
    """A finished profile.

    Attributes:
        models: A row per case and phase.
        layers: A row per case, phase and layer.
        ceilings: Setting -> what was the roof.
        interrupted: Whether Ctrl-C ended it before its plan did.
    """

    models: list[ModelRow]
    layers: list[LayerRow]
    ceilings: dict[Setting, Ceilings]
    environment: dict[str, Any]
    folder: Path
    interrupted: bool


def run_profile(
    grids: Sequence[tuple[Grid, Settings]],
    *,
    folder: Path,
    observer: Observer,
    command: str,
    trace: bool = False,
    explains: Mapping[str, Any] | None = None,
) -> Profile:
    """Profiles every case of the grids, layer by layer.

    Args:
        grids: One that names no phases gets forward and backward.
        folder: For the records.
        observer: Told of the progress.
        command: What the user asked for, for the record.
        trace: Also write a trace and a memory timeline per case.
        explains: What `dabench explain` needs to go on, for the record.

    Raises:
        UsageError: Anything wrong with the request; nothing was measured.
    """
    for grid, settings in grids:
        expand(replace(grid, phases=grid.phases or PHASES), settings)
    check_new_run(folder)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        plan, notes = _plan(grids, environment)
        for note in notes:
            observer.note(note)
        possible = [p.case for p in plan if p.impossible is None]
        settings_of = {Setting(c.device, c.dtype, c.threads) for c in possible}
        ceilings, without = _ceilings(sorted(settings_of), launcher, environment)
        run = RunFolder.create(
            folder,
            KIND,
            command=command,
            environment=environment,
            rules={"profile": PROFILE_RULE, "bound": BOUND_RULE, "interval": INTERVAL_RULE},
            ceilings=[each.to_dict() for each in ceilings.values()],
            without_ceilings=[{**s._asdict(), "reason": why} for s, why in without.items()],
            left_out=notes,
            networks=identities(p.case.model for p in plan),
            trace=trace,
            explains=explains,
            plan=[planned.to_dict() for planned in plan],
        )
        with run:
            return _profiled(run, launcher, observer)


def resume_profile(folder: Path, *, observer: Observer) -> Profile:
    """Continues an interrupted profile where it stopped.

    Raises:
        UsageError: No profile there, another machine, or networks that have changed.
        ResultsError: Its records are damaged.
    """
    document = read_run(folder, KIND)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        check_same_machine(folder, document["environment"], environment)
        check_same_networks(folder, document.get("networks", {}))
        with RunFolder.open(folder, KIND) as run:
            return _profiled(run, launcher, observer)


def _profiled(run: RunFolder, launcher: Launcher, observer: Observer) -> Profile:
    """Runs what is left of a profile's plan."""
    document = run.document
    profiler = _Profiler(run, launcher, observer)
    interrupted = profiler.run()
    return Profile(
        profiler.models,
        profiler.layers,
        profiler.ceilings,
        document["environment"],
        run.path,
        interrupted,
    )


class _Profiler:
    """Runs the launches and keeps the rows up to date; what the folder has already stays."""

    def __init__(self, run: RunFolder, launcher: Launcher, observer: Observer) -> None:
        document = run.document
        self._plan = read_plan(run.path, document)
        self._launcher = launcher
        self._record = ProfileRecord(run)
        self._observer = observer
        self._trace = bool(document.get("trace"))
        with bad_row(run.path / RUN, 1):
            found = map(Ceilings.of, document["ceilings"])
            self.ceilings = {each.setting: each for each in found}
            self._without = {
                Setting(each["device"], each["dtype"], each["threads"]): str(each["reason"])
                for each in document.get("without_ceilings", [])
            }
        # What could not be counted then is tried again.
        self._counts: dict[str, Mapping[str, Any]] = {
            each["case_id"]: each["count"]
            for each in read_profile_counts(run.path)
            if each["count"]
        }
        self._notes: dict[str, str] = {}
        launches, done = read_profiled(run.path)
        self._done: dict[str, list[PhaseLayers]] = {
            p.case.case_id: done.get(p.case.case_id, []) for p in self._plan
        }
        self._failed: dict[str, tuple[str, str]] = {
            p.case.case_id: ("unsupported", p.impossible)
            for p in self._plan
            if p.impossible is not None
        }
        self._failed |= {r.case_id: (r.status, r.reason) for r in launches if r.status != "ok"}
        self._ran = Counter(record.case_id for record in launches)
        self._next_launch = next_profile_launch(run.path)
        self._names = {
            r.case_id: r.device["device_name"] for r in launches if "device_name" in r.device
        }
        self._rows: dict[str, tuple[list[ModelRow], list[LayerRow]]] = {}

    @property
    def models(self) -> list[ModelRow]:
        """A row per case and phase."""
        return [row for planned in self._plan for row in self._rows[planned.case.case_id][0]]

    @property
    def layers(self) -> list[LayerRow]:
        """A row per case, phase and layer."""
        return [row for planned in self._plan for row in self._rows[planned.case.case_id][1]]

    def run(self) -> bool:
        """Measures everything; whether Ctrl-C ended it."""
        for planned in self._plan:
            self._summarise(planned.case)
        due = remaining(self._plan, self._ran)
        self._observer.planned(len(due))
        interrupted = False
        try:
            for number, planned in due:
                if planned.case.case_id not in self._failed:
                    self._launch(number, planned)
        except KeyboardInterrupt:
            interrupted = True
        self._record.summary(self.models, self.layers)
        return interrupted

    def _count(self, case: Case) -> None:
        """Counts a case's graph for its whole batch, once."""
        item = {
            "name": case.model,
            "channels": case.channels,
            "height": case.height,
            "width": case.width,
        }
        items = [{**item, "mode": case.mode, "batch": case.batch}]
        request = {"kind": "count", "items": items, "shares": False}
        found: dict[str, Any] = {}
        last = self._launcher.run(
            request, lambda message: found.update(message["count"]), timeout_s=COUNT_TIMEOUT_S
        )
        if not found:
            self._notes[case.case_id] = f"operations not counted: {last['reason']}"
        self._counts[case.case_id] = found
        self._record.counts([{"case_id": key, "count": each} for key, each in self._counts.items()])

    def _launch(self, round_number: int, planned: PlannedCase) -> None:
        case, settings = planned.case, planned.settings
        if case.case_id not in self._counts:
            self._count(case)
        self._observer.started(case)
        phases: list[PhaseLayers] = []
        device: dict[str, Any] = {}
        number = self._next_launch
        self._next_launch += 1

        def receive(message: dict[str, Any]) -> None:
            if message["kind"] == "device":
                device.update(message["device"])
            else:
                del message["kind"]
                phases.append(PhaseLayers(launch=number, **message))

        request = {
            "kind": "layers",
            "case": case.to_dict(),
            "seed": settings.seed,
            "limit_s": (settings.max_time_s or LIMIT_S)
            / (settings.first_launches * len(case.phases)),
            "trace": self._trace_folder(case),
        }
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        begin = time.monotonic()
        last = self._launcher.run(request, receive, timeout_s=settings.timeout_s)
        ok = last["kind"] == "done"
        record = LaunchRecord(
            launch=number,
            round=round_number if settings.order == "interleaved" else None,
            case_id=case.case_id,
            status="ok" if ok else last["status"],
            reason="" if ok else last["reason"],
            started_at=started_at,
            seconds=time.monotonic() - begin,
            device=device,
        )
        with uninterrupted():  # what is on disk is in the table, too
            self._record.launch(record, phases if ok else [])
            self._ran[case.case_id] += 1
            if "device_name" in device:
                self._names[case.case_id] = device["device_name"]
            if ok:
                self._done[case.case_id] += phases
            else:
                self._failed[case.case_id] = (record.status, record.reason)
            self._summarise(case)
        self._record.summary(self.models, self.layers)
        self._observer.finished(record)

    def _trace_folder(self, case: Case) -> str | None:
        """Where a case's first launch leaves its trace, if one is wanted."""
        if not self._trace or self._ran[case.case_id]:
            return None
        folder = self._record.run.path / TRACES / case.case_id.replace("/", "_")
        with disk_errors(self._record.run.path):
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder.resolve())

    def _summarise(self, case: Case) -> None:
        """Makes one case's rows anew."""
        models: list[ModelRow] = []
        layers: list[LayerRow] = []
        for phase in case.phases:
            launches = [each for each in self._done[case.case_id] if each.phase == phase]
            if case.case_id in self._failed:
                models.append(failed_phase(case, phase, *self._failed[case.case_id]))
            elif not launches:
                reason = "not measured: the run ended before"
                models.append(failed_phase(case, phase, "pending", reason))
            else:
                setting = Setting(case.device, case.dtype, case.threads)
                model, rows = summarise_phase(
                    case,
                    phase,
                    launches,
                    self._counts.get(case.case_id) or None,
                    self.ceilings.get(setting),
                    spec_of(case.model),
                    self._names.get(case.case_id),
                )
                notes = (model.reason, self._notes.get(case.case_id), self._without.get(setting))
                models.append(replace(model, reason="; ".join(filter(None, notes))))
                layers += rows
        self._rows[case.case_id] = models, layers


def _ceilings(
    settings: Sequence[Setting], launcher: Launcher, environment: Mapping[str, Any]
) -> tuple[dict[Setting, Ceilings], dict[Setting, str]]:
    """The ceilings there are, and why others are not: times are worth having without a roof."""
    found: dict[Setting, Ceilings] = {}
    without = {}
    for setting in settings:
        try:
            found |= ceilings_of([setting], launcher, environment)
        except DabenchError as error:
            without[setting] = str(error)
    return found, without


def _plan(
    grids: Sequence[tuple[Grid, Settings]], environment: Mapping[str, Any]
) -> tuple[list[PlannedCase], list[str]]:
    """The cases with devices and threads resolved, each once, and what was left out."""
    plan: dict[str, PlannedCase] = {}
    resolved, left_out = resolve_all(grids, environment)
    for grid, settings in resolved:
        threads = grid.threads or (int(environment["threads"]),)
        whole = replace(grid, threads=threads, phases=grid.phases or PHASES)
        for planned in expand(whole, settings):
            plan.setdefault(planned.case.case_id, _untimable(planned))
    return list(plan.values()), left_out


def _untimable(planned: PlannedCase) -> PlannedCase:
    """Marks cases on devices that queue work and have no timer: a host's clock would mislead."""
    kind = planned.case.device.partition(":")[0]
    if planned.impossible is None and kind in ("mps", "xla"):
        reason = f"layers cannot be timed on {kind}, which queues work and offers no timer"
        return replace(planned, impossible=f"{reason}; 'dabench time' times whole passes")
    return planned
