"""One run from request to rows: probe, plan, measure, keep. What the CLI and the API call."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from dabench.base.errors import DabenchError, UsageError
from dabench.device.machine import describe_host
from dabench.plan.axes import PHASES
from dabench.plan.cases import LOADS, OWN, Case, PlannedCase, expand
from dabench.plan.devices import resolve_all
from dabench.plan.networks import identities, identity_of, is_still
from dabench.plan.settings import Grid, Settings
from dabench.plan.variants import VARIANT_RULE, Installed, is_installed
from dabench.records.choices import Limits, read_limits
from dabench.records.comparisons import Comparison, read_comparison
from dabench.records.folder import RunFolder, check_new_run, check_same_machine, has_run, read_run
from dabench.records.measurements import FLAG_RULES, LaunchRecord, Measurement
from dabench.records.summary import read_stored
from dabench.records.timings import TimingRecord, read_plan
from dabench.run.calibrating import (
    NOWHERE,
    CalibratedPool,
    Roots,
    calibrations,
    calibrations_again,
)
from dabench.run.deciding import Decider, Halver
from dabench.run.launcher import Launcher
from dabench.run.runner import LAUNCH_RULE, Observer, Outcome, Recorder, Runner, WantsMore
from dabench.timing.engine import STEADY_RULE
from dabench.timing.loads import LOAD_RULE
from dabench.timing.statistics import INTERVAL_RULE

PROBE_TIMEOUT_S = 120.0
NOISE_S = 20.0
"""Sampling time of the noise probe, over its launches."""


@dataclass(frozen=True, slots=True)
class Session:
    """A finished run: its rows, its machine, and where the records are."""

    outcome: Outcome
    environment: dict[str, Any]
    folder: Path | None


class NoRecords:
    """A recorder for runs that are not kept."""

    def launch(self, record: LaunchRecord) -> None:
        """Keeps nothing."""

    def counts(
        self, counts: Sequence[Mapping[str, Any]], uncounted: Sequence[Mapping[str, Any]]
    ) -> None:
        """Keeps nothing."""

    def measurements(self, rows: Iterable[Measurement], launches: int) -> None:
        """Keeps nothing."""


class NoProgress:
    """An observer that shows nothing."""

    def planned(self, launches: int) -> None:
        """Shows nothing."""

    def started(self, case: Case) -> None:
        """Shows nothing."""

    def finished(self, record: LaunchRecord) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""


def run_grids(
    grids: Sequence[tuple[Grid, Settings]],
    *,
    folder: Path | None,
    observer: Observer,
    command: str,
    compares: Compares | None = None,
    chooses: Limits | None = None,
    details: Mapping[str, Any] = MappingProxyType({}),
    roots: Roots = NOWHERE,
) -> Session:
    """Measures every case of the grids.

    Args:
        grids: Each with its own settings. A case in several of them is measured once, with the
            phases of all; their settings for it must be equal.
        folder: For the records; None keeps none.
        observer: Told of the progress.
        command: What the user asked for, for the record.
        compares: How to compare the cases of two grids, pair by pair; None for no comparison.
        chooses: What a case must keep to be chosen: those that cannot be are left alone early;
            None measures all of them alike.
        details: What else the record says of the run.
        roots: Dataset -> where it is, as far as somebody said: int8 is calibrated on it.

    Raises:
        UsageError: Anything wrong with the request; nothing was measured.
        DabenchError: No worker process could be started, or it could not describe the machine.
        ResultsError: The records cannot be written.
    """
    check_request(grids, folder)
    with Launcher() as launcher, _scratch() as scratch:
        environment = describe_host() | probe(launcher)
        resolved, notes = resolve_all(grids, environment)
        asked, plan = _compared(resolved, compares, roots)
        plan, calibrated = calibrations(plan, roots)
        for note in notes:
            observer.note(note)
        with ExitStack() as stack:
            recorder: Recorder = NoRecords()
            if folder is not None:
                said = (
                    details_of(plan, notes, asked, chooses) | calibrated.to_dict() | dict(details)
                )
                run = RunFolder.create(
                    folder, "timing", command=command, environment=environment, **said
                )
                recorder = TimingRecord(stack.enter_context(run))
            outcome = Runner(
                plan,
                CalibratedPool(launcher, calibrated),
                recorder,
                observer,
                scratch=Path(scratch),
                wants_more=_further(asked, chooses, plan, 0),
            ).run()
    return Session(outcome, environment, folder)


def check_request(grids: Iterable[tuple[Grid, Settings]], folder: Path | None) -> None:
    """Checks what can be checked before the seconds that starting a worker takes.

    Raises:
        UsageError: Anything wrong with the request.
    """
    for grid, settings in grids:
        expand(grid, settings)
    if folder is not None:
        check_new_run(folder)


def _compared(
    resolved: Sequence[tuple[Grid, Settings]], compares: Compares | None, roots: Roots
) -> tuple[Comparison | None, list[PlannedCase]]:
    """What is compared, if anything, and the plan."""
    if compares is None:
        return None, merged_plan(resolved)
    # What has no calibration images cannot be compared: known before the cases are paired.
    return compares.paired(*(calibrations(expand(*each), roots)[0] for each in resolved))


@dataclass(frozen=True, kw_only=True, slots=True)
class Compares:
    """How the cases of two grids are compared; fields as of `Comparison`."""

    delta: float
    decide: bool
    max_time_s: float

    def paired(
        self, base: Sequence[PlannedCase], new: Sequence[PlannedCase]
    ) -> tuple[Comparison, list[PlannedCase]]:
        """The comparison of two lists of cases, in order, and its plan, pair by pair.

        Raises:
            UsageError: There are more of one, a case would be compared with itself, or none can
                be measured on both sides.
        """
        sides = ([planned.case.case_id for planned in side] for side in (base, new))
        one, two = sides
        if len(one) != len(two):
            raise UsageError(
                f"--vs: {len(one)} cases cannot be compared with {len(two)}; the sides must differ "
                "in single values"
            )
        if again := set(one) & set(two):
            raise UsageError(
                f"--vs: {min(again)} is on both sides; 'dabench selftest' compares a case with "
                "itself"
            )
        pairs = list(zip(base, new, strict=True))
        reasons = [one.impossible or two.impossible for one, two in pairs]
        if all(reasons):
            raise UsageError(f"nothing can be compared: {reasons[0]}")
        asked = Comparison(
            pairs=tuple(zip(one, two, strict=True)),
            delta=self.delta,
            decide=self.decide,
            max_time_s=self.max_time_s,
        )
        return asked, [self._timed(each, 2 * len(pairs)) for pair in pairs for each in pair]

    def _timed(self, planned: PlannedCase, cases: int) -> PlannedCase:
        """A case with its share of the time, where that is for all of them together."""
        if not self.decide:
            return planned
        settings = replace(planned.settings, max_time_s=self.max_time_s / cases)
        return replace(planned, settings=settings)


def measure_noise() -> Session:
    """Times a small network in several processes, to see how this machine scatters."""
    grid = Grid(models=("dw-disc",), devices=("cpu",), sizes=((128, 128),))
    settings = Settings.of(repeat=30, launches=6, max_time_s=NOISE_S)
    session = run_grids([(grid, settings)], folder=None, observer=NoProgress(), command="noise")
    if session.outcome.interrupted:
        raise KeyboardInterrupt
    return session


def resume(folder: Path, *, observer: Observer, roots: Roots = NOWHERE) -> Session:
    """Continues an interrupted run where it stopped.

    Raises:
        UsageError: No run there, it was made on another machine, or what it measures has changed.
        ResultsError: Its records are damaged.
    """
    if not has_run(folder) and any(folder.glob("*/run.json")):
        raise UsageError(f"--resume: {folder} holds runs of a cluster's machines; name it by --on")
    document = read_run(folder, "timing")
    # What is read meanwhile does not wait for a worker to start.
    with (
        RunFolder.open(folder, "timing") as run,
        Launcher() as launcher,
        _scratch() as scratch,
    ):
        plan = read_plan(folder, document)
        stored = read_stored(folder, plan)
        environment = describe_host() | probe(launcher)
        check_same_machine(folder, document["environment"], environment)
        check_same_networks(folder, document.get("networks", {}))
        calibrated = calibrations_again(folder, document, plan, roots)
        for planned in plan:
            if planned.case.mode == OWN:
                raise UsageError(f"--resume: {planned.case.model} was measured by another program")
        further = _further(
            read_comparison(folder, document),
            read_limits(folder, document),
            plan,
            stored.ran,
        )
        outcome = Runner(
            plan,
            CalibratedPool(launcher, calibrated),
            TimingRecord(run),
            observer,
            stored=stored,
            scratch=Path(scratch),
            wants_more=further,
        ).run()
    return Session(outcome, document["environment"], folder)


def _further(
    compared: Comparison | None, chosen: Limits | None, plan: Sequence[PlannedCase], done: int
) -> WantsMore | None:
    """Who asks for further launches of some cases; None leaves that to the runner."""
    if compared is not None:
        return Decider(compared, plan, done)
    return None if chosen is None else Halver(chosen, plan, done)


def _scratch() -> TemporaryDirectory[str]:
    """A folder for compilers and exporters, gone with the run: the next one compiles anew."""
    # A worker that is killed may leave a compiler of its own behind, still writing.
    return TemporaryDirectory(prefix="dabench-", ignore_cleanup_errors=True)


def probe(launcher: Launcher) -> dict[str, Any]:
    """What a worker says of torch and the devices.

    Raises:
        DabenchError: The worker could not say.
    """
    # While the worker imports torch. Left to the first summary, a Ctrl-C in the
    # middle of this import would be swallowed, or break the last summary.
    importlib.import_module("numpy.random")
    found: dict[str, Any] = {}
    request = {"kind": "probe"}
    last = launcher.run(
        request, lambda message: found.update(message["environment"]), timeout_s=PROBE_TIMEOUT_S
    )
    if last["kind"] != "done":
        raise DabenchError(f"the machine could not be described: {last['reason']}")
    return found


def merged_plan(
    grids: Iterable[tuple[Grid, Settings]], installed: Installed = is_installed
) -> list[PlannedCase]:
    """The cases of some grids, whose devices are resolved."""
    plan: dict[str, PlannedCase] = {}
    for grid, settings in grids:
        for planned in expand(grid, settings, installed):
            plan[planned.case.case_id] = _merged(plan.get(planned.case.case_id), planned)
    return list(plan.values())


def _merged(known: PlannedCase | None, planned: PlannedCase) -> PlannedCase:
    """A case that two grids name, with the phases of both.

    Raises:
        UsageError: The grids want it measured in different ways.
    """
    if known is None or known.impossible is not None:
        return planned
    if planned.impossible is not None:
        return known
    if known.settings != planned.settings:
        raise UsageError(
            f"two grids measure {planned.case.case_id} with different settings; leave it out of one"
        )
    both = {*known.case.phases, *planned.case.phases}
    phases = tuple(phase for phase in PHASES if phase in both)
    return replace(planned, case=replace(planned.case, phases=phases))


def details_of(
    plan: Sequence[PlannedCase],
    left_out: Sequence[str],
    compared: Comparison | None,
    chosen: Limits | None,
) -> dict[str, Any]:
    """What ``run.json`` says of timings."""
    asked = {"compare": compared, "choose": chosen}
    loaded = any(each.case.protocol in LOADS for each in plan)
    return {
        # As they were when this was measured, for reports made later.
        "rules": {
            "warmup": STEADY_RULE,
            "launches": LAUNCH_RULE,
            "flags": FLAG_RULES,
            "interval": INTERVAL_RULE,
            "variants": VARIANT_RULE,
            **({"loads": LOAD_RULE} if loaded else {}),
        },
        "left_out": list(left_out),
        "networks": identities(planned.case.model for planned in plan),
        "plan": [planned.to_dict() for planned in plan],
        **{name: each.to_dict() for name, each in asked.items() if each is not None},
    }


def check_same_networks(folder: Path, then: Mapping[str, Any]) -> None:
    """Checks that networks from outside are those that a run was begun with.

    Raises:
        UsageError: One has changed.
    """
    for name, identity in then.items():
        now = identity_of(name)
        if not is_still(identity, now):
            known = None if now is None else {key: now.get(key) for key in identity}
            raise UsageError(
                f"--resume: {name} has changed since {folder} was begun: it was "
                f"{json.dumps(identity)}, now it is {json.dumps(known)}"
            )
