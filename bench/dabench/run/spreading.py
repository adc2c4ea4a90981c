"""A sweep on the machines of a cluster: a run of its own for each kind, all side by side."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError
from dabench.plan.axes import OPTIONAL
from dabench.plan.cases import Case, PlannedCase, expand, remaining
from dabench.plan.devices import resolve_all, resolve_device
from dabench.plan.networks import identities
from dabench.plan.places import Place
from dabench.plan.settings import Grid, Settings
from dabench.records.folder import RunFolder, has_run, read_json, read_run
from dabench.records.measurements import LaunchRecord
from dabench.records.summary import launches_by_case, read_stored, summarised
from dabench.records.timings import TimingRecord, read_plan
from dabench.run.calibrating import (
    NOWHERE,
    CalibratedPool,
    Calibrations,
    Roots,
    calibrations,
    calibrations_again,
)
from dabench.run.cluster import Cluster, connected, kind_like, noted
from dabench.run.luggage import packed
from dabench.run.pool import Kind, NodePool
from dabench.run.runner import Observer, Outcome, Runner, fits
from dabench.run.session import Session, check_request, check_same_networks, details_of, merged_plan

SCRATCH = Path("scratch")
"""A node keeps it where it keeps such things."""

NODES = "nodes.json"
"""Of a run: the nodes that it was measured on, each with its environment."""

Grids = Sequence[tuple[Grid, Settings]]


def spread_grids(
    grids: Grids,
    *,
    place: Place,
    machines: str,
    folder: Path,
    observer: Observer,
    command: str,
    roots: Roots = NOWHERE,
) -> list[Session]:
    """Measures every case of the grids on machines of a cluster.

    Args:
        grids: As of `dabench.run.session.run_grids`.
        place: The cluster.
        machines: Of `dabench.plan.places.MACHINES`.
        folder: For the records: of ``all`` it holds a run for each kind of machine, of ``any``
            the one run.
        observer: Told of the progress.
        command: What the user asked for, for the record.
        roots: Dataset -> where it is, as far as somebody said.

    Returns:
        A finished run for each kind.

    Raises:
        UsageError: Anything wrong with the request or the cluster; nothing was measured.
        DabenchError: No node of a kind is left; its launches until then are kept.
        ResultsError: The records cannot be written.
    """
    check_request(grids, folder)
    if any(folder.glob("*/run.json")):
        raise UsageError(f"--out: {str(folder)!r} holds runs already; choose another folder")
    asked = [planned for grid in grids for planned in _anywhere(*grid)]
    networks = list(dict.fromkeys(planned.case.model for planned in asked))
    _, chosen = calibrations(asked, roots)
    with packed(networks, _images(chosen)) as luggage, connected(place, luggage) as cluster:
        found = noted(cluster.found(identities(networks)), observer)
        kinds = _chosen(found.kinds, grids, machines)
        with ExitStack() as stack:
            runs = []
            for kind in kinds:
                plan, notes = _planned(grids, kind)
                plan, calibrated = calibrations(plan, roots)
                for note in notes:
                    observer.note(note)
                said = details_of(plan, notes, None, None) | calibrated.to_dict()
                said |= _placed(folder, kind, kinds, machines)
                said["cluster"] |= {"ray": cluster.ray_version, "left_out": found.left_out}
                run = RunFolder.create(
                    folder / kind.name if machines == "all" else folder,
                    "timing",
                    command=command,
                    environment=kind.environment,
                    **said,
                )
                stack.enter_context(run)
                runs.append(_Run(kind, run, plan, calibrated))
            return _side_by_side(runs, cluster, observer)


def _placed(folder: Path, kind: Kind, kinds: Sequence[Kind], machines: str) -> dict[str, Any]:
    """A run's name, and those of the others of its sweep, where each kind has one of its own."""
    name = folder.resolve().name
    if machines != "all":
        return {"run_id": name, "cluster": {"parts": []}}
    return {"run_id": f"{name}-{kind.name}", "cluster": {"parts": [each.name for each in kinds]}}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run that is there already."""

    path: Path
    document: Mapping[str, Any]
    plan: list[PlannedCase]
    calibrated: Calibrations

    @classmethod
    def at(cls, path: Path, roots: Roots) -> _Begun:
        """Reads it.

        Raises:
            UsageError: It is not of a cluster, or its networks or images are others now.
            ResultsError: Its records are damaged.
        """
        document = read_run(path, "timing")
        if "cluster" not in document:
            raise UsageError(f"--resume: {path} was not begun on a cluster; leave out --on")
        check_same_networks(path, document.get("networks", {}))
        plan = read_plan(path, document)
        return cls(path, document, plan, calibrations_again(path, document, plan, roots))

    def is_done(self) -> bool:
        """Whether all first launches were made, but of cases that failed or took too long."""
        launches = launches_by_case(self.path, self.plan)
        due = remaining(self.plan, {name: len(each) for name, each in launches.items()})
        left = ((planned, launches[planned.case.case_id]) for _, planned in due)
        return not any(
            fits(planned, each) and all(record.status == "ok" for record in each)
            for planned, each in left
        )

    def as_it_is(self) -> Session:
        """What it came to."""
        rows = summarised(self.path, self.document)
        return Session(Outcome(rows, interrupted=False), self.document["environment"], self.path)


def resume_spread(
    folder: Path, *, place: Place, observer: Observer, roots: Roots = NOWHERE
) -> list[Session]:
    """Continues a sweep that was begun on a cluster, each kind's run on nodes of its kind.

    Raises:
        UsageError: No such sweep there, or other networks; or, after the others were finished,
            that there are no nodes of a kind whose run is not.
        ResultsError: Its records are damaged.
    """
    begun = [_Begun.at(part, roots) for part in parts_of_sweep(folder)]
    networks = list(dict.fromkeys(each.case.model for run in begun for each in run.plan))
    images = dict.fromkeys(path for run in begun for path in _images(run.calibrated))
    with packed(networks, images) as luggage, connected(place, luggage) as cluster:
        found = noted(cluster.found(identities(networks)), observer)
        kinds = [kind_like(run.document["environment"], found.kinds) for run in begun]
        with ExitStack() as stack:
            runs = [
                _Run(
                    kind, stack.enter_context(RunFolder.open(run.path, "timing")), run.plan,
                    run.calibrated,
                )
                for run, kind in zip(begun, kinds, strict=True)
                if isinstance(kind, Kind)
            ]  # fmt: skip
            measured = {each.folder: each for each in _side_by_side(runs, cluster, observer)}
    without = [(run, why) for run, why in zip(begun, kinds, strict=True) if isinstance(why, str)]
    for run, why in without:
        if not run.is_done():
            raise UsageError(
                f"--resume: no node of the cluster is of the kind that {run.path} was begun on: "
                f"{why}"
            )
    return [measured.get(run.path) or run.as_it_is() for run in begun]


def parts_of_sweep(folder: Path) -> list[Path]:
    """The runs of a sweep that was begun on a cluster.

    Raises:
        UsageError: There is none, or it was cut off before all its runs were begun.
    """
    if has_run(folder):
        return [folder]
    parts = sorted(path.parent for path in folder.glob("*/run.json"))
    if not parts:
        raise UsageError(f"{folder} holds no run (run.json is missing)")
    names = {name for part in parts for name in read_run(part).get("cluster", {}).get("parts", ())}
    if missing := sorted(names - {part.name for part in parts}):
        raise UsageError(
            f"--resume: {folder} was cut off before anything was measured: {missing[0]} is "
            "missing; begin anew"
        )
    return parts


@dataclass(frozen=True, slots=True)
class _Run:
    """One kind's run, begun or begun again."""

    kind: Kind
    folder: RunFolder
    plan: Sequence[PlannedCase]
    calibrated: Calibrations

    def runner(self, pool: NodePool, observer: Observer) -> Runner:
        """What measures it, from where it stands."""
        path = self.folder.path
        known = {each["id"]: each for each in read_json(path / NODES) or ()}
        known |= {node.id: node.to_dict() for node in self.kind.nodes}
        self.folder.write_json(NODES, list(known.values()))
        return Runner(
            self.plan,
            CalibratedPool(pool, self.calibrated),
            TimingRecord(self.folder),
            observer,
            stored=read_stored(path, self.plan),
            scratch=SCRATCH,
            at_once=pool.at_once,
        )


def _side_by_side(runs: Sequence[_Run], cluster: Cluster, observer: Observer) -> list[Session]:
    """Measures all runs at once, each in a thread; Ctrl-C ends them all, and what is there stays.

    Raises:
        DabenchError: One could not go on. The others were finished.
    """
    if not runs:
        return []
    shared = _OneAtATime(observer)
    pools = [cluster.pool(run.kind) for run in runs]
    runners = [run.runner(pool, shared) for run, pool in zip(runs, pools, strict=True)]
    with ThreadPoolExecutor(len(runs)) as threads:
        outcomes = [threads.submit(runner.run) for runner in runners]
        try:
            wait(outcomes)
        except BaseException as error:
            for pool in pools:
                pool.stop()
            wait(outcomes)
            if not isinstance(error, KeyboardInterrupt):
                raise
    cluster.tidy(run.kind for run in runs)
    return [
        Session(outcome.result(), run.kind.environment, run.folder.path)
        for run, outcome in zip(runs, outcomes, strict=True)
    ]


class _OneAtATime:
    """An observer that is told by several threads."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = threading.Lock()

    def planned(self, launches: int) -> None:
        with self._lock:
            self._observer.planned(launches)

    def started(self, case: Case) -> None:
        with self._lock:
            self._observer.started(case)

    def finished(self, record: LaunchRecord) -> None:
        with self._lock:
            self._observer.finished(record)

    def note(self, text: str) -> None:
        with self._lock:
            self._observer.note(text)


def _anywhere(grid: Grid, settings: Settings) -> list[PlannedCase]:
    """The cases of a grid on a machine that lacks nothing: what may have to go along."""
    return expand(replace(grid, devices=("cpu",), dtypes=_dtypes(grid)), settings, lambda _: True)


def _dtypes(grid: Grid) -> tuple[str, ...]:
    """The precisions of a grid, those included that a device may lack."""
    return tuple(dict.fromkeys(name.rstrip(OPTIONAL) for name in grid.dtypes))


def _chosen(kinds: Sequence[Kind], grids: Grids, machines: str) -> list[Kind]:
    """The kinds of machines that measure.

    Raises:
        UsageError: None has a device that is asked for.
    """
    missing = {kind.name: _missing(grids, kind) for kind in kinds}
    for device in {name for each in missing.values() for name in each}:
        if all(device in each for each in missing.values()):
            reason = next(iter(missing.values()))[device]
            raise UsageError(f"--on: no node of the cluster has {device}: {reason}")
    if machines == "all":
        return list(kinds)
    whole = [kind for kind in kinds if not missing[kind.name]]
    if not whole:
        raise UsageError(
            "--machines: no kind of node has all devices that are asked for; 'all' measures each "
            "on those that have it"
        )
    return whole[:1]


def _missing(grids: Grids, kind: Kind) -> dict[str, str]:
    """Devices that are asked for and that a kind lacks, with the reason."""
    found = {}
    for grid, _ in grids:
        for device in grid.devices:
            try:
                resolve_device(device, kind.environment)
            except UsageError as error:
                found[device] = str(error)
    return found


def _planned(grids: Grids, kind: Kind) -> tuple[list[PlannedCase], list[str]]:
    """The plan for a kind of machine, and what is left out of it.

    What needs a device that it lacks is a row with that reason.
    """
    missing = _missing(grids, kind)
    possible = []
    lacking: dict[str, PlannedCase] = {}
    for grid, settings in grids:
        here = tuple(device for device in grid.devices if device not in missing)
        if here:
            possible.append((replace(grid, devices=here), settings))
        for device in grid.devices:
            if device in missing:
                there = replace(grid, devices=(device,), dtypes=_dtypes(grid))
                lacking |= {
                    planned.case.case_id: replace(planned, impossible=missing[device])
                    for planned in expand(there, settings)
                }
    resolved, notes = resolve_all(possible, kind.environment)
    return [*merged_plan(resolved, kind.installs), *lacking.values()], notes


def _images(chosen: Calibrations) -> list[Path]:
    return list(dict.fromkeys(path for each in chosen.known.values() for path in each.images))
