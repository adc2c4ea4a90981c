"""A profile from request to records: ceilings, counts, launches in turn, a row per layer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dabench.base.errors import DabenchError
from dabench.base.files import disk_errors, write_atomically
from dabench.device.machine import describe_host
from dabench.plan.cases import Case, PlannedCase, expand, schedule
from dabench.plan.devices import resolve_device
from dabench.plan.networks import identities, spec_of
from dabench.plan.settings import Grid, Settings
from dabench.profiling.roofline import BOUND_RULE, Ceilings
from dabench.records.measurements import LaunchRecord
from dabench.records.profiles import (
    KIND,
    PROFILE_RULE,
    LayerRow,
    ModelRow,
    PhaseLayers,
    ProfileRecord,
    failed_phase,
    summarise_phase,
)
from dabench.records.timings import RUN, SCHEMA, check_new_run
from dabench.run.ceilings import Setting, ceilings_of
from dabench.run.launcher import Launcher
from dabench.run.runner import COUNT_TIMEOUT_S, Observer
from dabench.run.session import probe
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
) -> Profile:
    """Profiles every case of the grids, layer by layer.

    Args:
        grids: Their phases are limited to forward and backward.
        folder: For the records.
        observer: Told of the progress.
        command: What the user asked for, for the record.
        trace: Also write a trace and a memory timeline per case.

    Raises:
        UsageError: Anything wrong with the request; nothing was measured.
    """
    for grid, settings in grids:
        expand(replace(grid, phases=grid.phases or PHASES), settings)
    check_new_run(folder)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        plan = _plan(grids, environment)
        possible = [p.case for p in plan if p.impossible is None]
        settings_of = {Setting(c.device, c.dtype, c.threads) for c in possible}
        ceilings, without = _ceilings(sorted(settings_of), launcher, environment)
        document = _document(folder, plan, environment, command, ceilings)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / RUN, json.dumps(document, indent=1) + "\n")
        profiler = _Profiler(
            plan, launcher, ceilings, without, ProfileRecord(folder), observer, trace
        )
        interrupted = profiler.run()
    return Profile(profiler.models, profiler.layers, ceilings, environment, folder, interrupted)


class _Profiler:
    """Runs the launches and keeps the rows up to date."""

    def __init__(
        self,
        plan: Sequence[PlannedCase],
        launcher: Launcher,
        ceilings: Mapping[Setting, Ceilings],
        without: Mapping[Setting, str],
        record: ProfileRecord,
        observer: Observer,
        trace: bool,
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._ceilings = ceilings
        self._without = without
        self._record = record
        self._observer = observer
        self._trace = trace
        self._counts: dict[str, Mapping[str, Any]] = {}
        self._notes: dict[str, str] = {}
        self._done: dict[str, list[PhaseLayers]] = {p.case.case_id: [] for p in plan}
        self._failed: dict[str, tuple[str, str]] = {
            p.case.case_id: ("unsupported", p.impossible) for p in plan if p.impossible is not None
        }
        self._names: dict[str, str] = {}
        self.models: list[ModelRow] = []
        self.layers: list[LayerRow] = []

    def run(self) -> bool:
        """Measures everything; whether Ctrl-C ended it."""
        due = list(schedule(self._plan))
        self._observer.planned(len(due))
        interrupted = False
        try:
            for number, (_, planned) in enumerate(due):
                if planned.case.case_id not in self._failed:
                    self._launch(number, planned)
        except KeyboardInterrupt:
            interrupted = True
        self._summarise()
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

    def _launch(self, number: int, planned: PlannedCase) -> None:
        case, settings = planned.case, planned.settings
        if case.case_id not in self._counts:
            self._count(case)
        self._observer.started(case)
        phases: list[PhaseLayers] = []

        def receive(message: dict[str, Any]) -> None:
            if message["kind"] == "device":
                self._names[case.case_id] = message["device"]["device_name"]
            else:
                del message["kind"]
                phases.append(PhaseLayers(launch=number, **message))

        first = not self._done[case.case_id]
        request = {
            "kind": "layers",
            "case": case.to_dict(),
            "seed": settings.seed,
            "limit_s": (settings.max_time_s or LIMIT_S)
            / (settings.first_launches * len(case.phases)),
            "trace": self._trace_folder(case) if self._trace and first else None,
        }
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        begin = time.monotonic()
        last = self._launcher.run(request, receive, timeout_s=settings.timeout_s)
        status, reason = "ok", ""
        if last["kind"] == "done":
            self._record.launch(case.case_id, phases)
            self._done[case.case_id] += phases
        else:
            status, reason = last["status"], last["reason"]
            self._failed[case.case_id] = (status, reason)
        self._summarise()
        self._observer.finished(
            LaunchRecord(
                launch=number, case_id=case.case_id, status=status, reason=reason,
                started_at=started_at, seconds=time.monotonic() - begin,
            )
        )  # fmt: skip

    def _trace_folder(self, case: Case) -> str:
        folder = self._record.folder / TRACES / case.case_id.replace("/", "_")
        with disk_errors(self._record.folder):
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder.resolve())

    def _summarise(self) -> None:
        self.models, self.layers = [], []
        for case in (planned.case for planned in self._plan):
            for phase in case.phases:
                launches = [each for each in self._done[case.case_id] if each.phase == phase]
                if case.case_id in self._failed:
                    self.models.append(failed_phase(case, phase, *self._failed[case.case_id]))
                elif not launches:
                    reason = "not measured: the run ended before"
                    self.models.append(failed_phase(case, phase, "pending", reason))
                else:
                    setting = Setting(case.device, case.dtype, case.threads)
                    model, layers = summarise_phase(
                        case,
                        phase,
                        launches,
                        self._counts.get(case.case_id) or None,
                        self._ceilings.get(setting),
                        spec_of(case.model),
                        self._names.get(case.case_id),
                    )
                    notes = (self._notes.get(case.case_id), self._without.get(setting))
                    model = replace(model, reason="; ".join(filter(None, notes)))
                    self.models.append(model)
                    self.layers += layers
        self._record.summary(self.models, self.layers)


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


def measure_ceilings(settings: Sequence[Setting], *, again: bool) -> list[Ceilings]:
    """The ceilings of this machine for some settings; ``auto`` and 0 threads are resolved."""
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        resolved = [
            Setting(resolve_device(s.device, environment), s.dtype, _threads(s, environment))
            for s in settings
        ]
        return list(ceilings_of(resolved, launcher, environment, again=again).values())


def _threads(setting: Setting, environment: Mapping[str, Any]) -> int:
    return setting.threads or int(environment["threads"])


def _plan(
    grids: Sequence[tuple[Grid, Settings]], environment: Mapping[str, Any]
) -> list[PlannedCase]:
    """The cases with devices and threads resolved, each once."""
    plan: dict[str, PlannedCase] = {}
    for grid, settings in grids:
        resolved = replace(
            grid,
            devices=tuple(resolve_device(name, environment) for name in grid.devices),
            threads=grid.threads or (int(environment["threads"]),),
            phases=grid.phases or PHASES,
        )
        for planned in expand(resolved, settings):
            plan.setdefault(planned.case.case_id, _untimable(planned))
    return list(plan.values())


def _untimable(planned: PlannedCase) -> PlannedCase:
    """Marks cases on devices that queue work and have no timer: a host's clock would mislead."""
    kind = planned.case.device.partition(":")[0]
    if planned.impossible is None and kind in ("mps", "xla"):
        reason = f"layers cannot be timed on {kind}, which queues work and offers no timer"
        return replace(planned, impossible=f"{reason}; 'dabench time' times whole passes")
    return planned


def _document(
    folder: Path,
    plan: Sequence[PlannedCase],
    environment: Mapping[str, Any],
    command: str,
    ceilings: Mapping[Setting, Ceilings],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "run_id": folder.resolve().name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "environment": dict(environment),
        "rules": {"profile": PROFILE_RULE, "bound": BOUND_RULE, "interval": INTERVAL_RULE},
        "ceilings": [each.to_dict() for each in ceilings.values()],
        "networks": identities(p.case.model for p in plan),
        "plan": [
            {"case": p.case.to_dict(), "settings": asdict(p.settings), "impossible": p.impossible}
            for p in plan
        ],
    }
