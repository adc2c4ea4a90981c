"""A suite on the machines of a cluster: each run on a GPU, or on some of a machine's cores."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dabench.base.errors import DabenchError, UsageError, bad_value
from dabench.base.files import disk_errors
from dabench.data.roots import Places
from dabench.plan.devices import resolve_device
from dabench.plan.methods import method_of
from dabench.plan.places import Place
from dabench.plan.trained import RELEASED
from dabench.records.folder import RunFolder, check_new_run, read_run
from dabench.records.trainings import RESULT, SUITE, read_epochs, read_result
from dabench.run.cluster import PROBE_S, Cluster, Launch, connected, kind_like, noted
from dabench.run.luggage import Luggage
from dabench.run.pool import AGAIN_S, POLL_S, TRIES, FaultError, Kind, LostError, Node
from dabench.training.config import TrainConfig
from dabench.training.deciding import Question, question_of
from dabench.training.remote import Message, files_for_others, prepare, train
from dabench.training.storage import Storage
from dabench.training.suite import (
    Planned,
    SuiteObserver,
    is_spared,
    read_suite,
    released,
    trained_twin,
)

NOTHING = Luggage(None, {})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a suite is asked for, and where the user says its data are.

    Attributes:
        pair: As the user named it.
        data: What it stands for here (`Scene.describe`).
        places: Roots and pairs as they are known here; a machine's own roots come before.
        given: Roots that the user gave as options, which come before those.
        split: Evaluated instead of the reported one.
    """

    pair: str
    data: Mapping[str, Any]
    places: Places
    given: Mapping[str, Path]
    split: str | None

    def request(self) -> Message:
        """What machines are told of it."""
        return {
            "asked": self.pair,
            "given": {name: str(path.absolute()) for name, path in self.given.items()},
            "roots": {name: str(path.absolute()) for name, path in self.places.roots.items()},
            "pairs": {name: (pair.source, pair.target) for name, pair in self.places.pairs.items()},
            "split": self.split,
        }


def spread_suite(
    plan: Sequence[Planned],
    asked: Asked,
    *,
    place: Place,
    folder: Path,
    command: str,
    storage: str | None,
    observer: SuiteObserver,
    question: Question | None = None,
) -> dict[str, dict[str, Any]]:
    """Runs a plan on the machines of one kind; returns the results by name of run.

    Args:
        plan: The runs, in order.
        asked: The data.
        place: The cluster.
        folder: For the records, here.
        command: What the user asked for.
        storage: Where checkpoints go, from which a lost run goes on; None begins it anew.
        observer: Told of the progress.
        question: What further seeds are to decide.

    Raises:
        UsageError: Anything wrong with the request, the cluster, the storage or the data.
        DabenchError: No machine is left; what was trained is kept.
        ResultsError: The disk is full or gone.
    """
    check_new_run(folder)
    with connected(place, NOTHING) as cluster:
        found = noted(cluster.found({}), observer)
        kind, device = _chosen(found.kinds, plan[0].config)
        own = f"{folder.resolve().name}-{uuid.uuid4().hex[:8]}"
        kept = None if storage is None else f"{Storage(storage).url}/{own}"
        seats = _Seats(cluster, kind, device, plan[0].config.threads)
        said = _settled(plan, asked, seats, device, storage)
        for note in said["notes"]:
            observer.note(note)
        run = RunFolder.create(
            folder,
            SUITE,
            command=command,
            environment=kind.environment,
            data=said["data"],
            split=asked.split,
            runs=said["runs"],
            decide=None if question is None else question.to_dict(),
            cluster={
                "ray": cluster.ray_version,
                "left_out": found.left_out,
                "storage": kept,
                "nodes": [node.name for node in kind.nodes],
                "at_once_on_each": seats.each,
            },
        )
        return _Suite(run, asked, seats, observer).carried_out()


def _settled(
    plan: Sequence[Planned], asked: Asked, seats: _Seats, device: str, storage: str | None
) -> Message:
    """The runs as machines carry them out, as one of these says (`prepare`).

    Raises:
        UsageError: Something is wrong with the request, or its data are not those that are here.
    """
    facts = {"device": device, "threads": seats.threads}
    runs = {planned.name: {**planned.config.to_dict(), **facts} for planned in plan}
    said = seats.ask(prepare, {**asked.request(), "runs": runs, "storage": storage})
    if said["data"] != asked.data:
        raise UsageError(
            f"--on: {asked.pair} is {said['data']['title']} on the cluster's machines and "
            f"{asked.data['title']} here; say where its data are"
        )
    return said


def resume_spread_suite(
    folder: Path, asked: Asked, *, place: Place, observer: SuiteObserver
) -> dict[str, dict[str, Any]]:
    """Continues a suite that was begun on a cluster, on machines of the same kind.

    Raises:
        UsageError: No such suite there, or there are no machines of its kind.
        DabenchError: As `spread_suite`.
    """
    document = read_suite(folder)
    if "cluster" not in document:
        raise UsageError(f"--resume: {folder} was not begun on a cluster; leave out --on")
    with connected(place, NOTHING) as cluster:
        found = noted(cluster.found({}), observer)
        kind = kind_like(document["environment"], found.kinds)
        if isinstance(kind, str):
            raise UsageError(
                f"--resume: no machine here is of the kind that {folder} needs: {kind}"
            )
        config = TrainConfig.of(next(iter(document["runs"].values())))
        seats = _Seats(cluster, kind, config.device, config.threads)
        run = RunFolder.open(folder, SUITE)
        return _Suite(run, asked, seats, observer).carried_out()


def _chosen(kinds: Sequence[Kind], config: TrainConfig) -> tuple[Kind, str]:
    """The kind that has device and cores, that with most machines first, and the device there.

    Raises:
        UsageError: None has them.
    """
    refused: UsageError | None = None
    for kind in kinds:
        cores = int(kind.environment["usable_cores"])
        try:
            found = resolve_device(config.device, kind.environment)
            if found == "cpu" and (config.threads or 1) > cores:
                raise bad_value("--threads", config.threads, f"machines have {cores} cores")
        except UsageError as error:
            refused = refused or error
            continue
        return kind, found.partition(":")[0]
    raise UsageError(f"--on: on all of the cluster's kinds of machines: {refused}")


class _Seats:
    """Places on machines of one kind that train at once: a GPU each, or some cores.

    Args:
        cluster: The cluster.
        kind: Of the machines.
        device: Of the runs.
        threads: Cores of each run on a processor; None takes a machine's.
    """

    def __init__(self, cluster: Cluster, kind: Kind, device: str, threads: int | None) -> None:
        self._cluster, self.kind = cluster, kind
        cores = int(kind.environment["usable_cores"])
        self.gpus = 1 if device == "cuda" else 0
        self.each = 1
        if device == "cuda":
            self.each = len(kind.environment["gpus"])
        elif device == "cpu":
            self.each = max(cores // (threads or cores), 1)
        self.threads = threads or max(cores // self.each, 1)
        self.gone: set[str] = set()

    def nodes(self) -> list[Node]:
        """A machine for each seat; several runs may be on one."""
        there = [node for node in self.kind.nodes if node.id not in self.gone]
        # Nodes of one host have its cores and GPUs together.
        hosts = Counter(node.host for node in there)
        return [
            node
            for number in range(self.each)
            for node in there
            if number < max(self.each // hosts[node.host], 1)
        ]

    def begin(self, function: Any, node: Node, *arguments: Any) -> Launch:
        """Begins something on a machine."""
        share = node.slots / self.each
        return self._cluster.begin(function, node, share, self.gpus, *arguments)

    def sent(self, content: Mapping[str, Mapping[str, bytes]]) -> Any:
        """Something large, as an argument."""
        return self._cluster.sent(content) if content else {}

    def ask(self, function: Any, request: Message) -> Message:
        """What one of the machines answers: the first that does so in time.

        Raises:
            UsageError: It says what is wrong with the request, or none answers.
        """
        reasons = []
        for node in self.kind.nodes:
            launch = self.begin(function, node, request)
            try:
                if (said := launch.result(PROBE_S)) is not None:
                    return _checked(said, node)
                launch.cancel()
                reasons.append(f"{node.name} is busy: no answer within {PROBE_S:g} s")
            except FaultError:
                raise
            except LostError as error:
                reasons.append(f"{node.name}: {error}")
        raise UsageError(f"--on: no node says what it would train: {'; '.join(reasons)}")


def _checked(said: Message, node: Node) -> Message:
    """An answer that is none of an error.

    Raises:
        UsageError: It is.
    """
    if "error" in said:
        raise UsageError(f"--on: {node.name}: {said['error']}")
    return said


class _Suite:
    """A suite that is being carried out.

    Args:
        run: Its folder here.
        asked: The data.
        seats: Where to.
        observer: Told of the progress.
    """

    def __init__(
        self, run: RunFolder, asked: Asked, seats: _Seats, observer: SuiteObserver
    ) -> None:
        self._run, self._asked, self._seats, self._observer = run, asked, seats, observer
        self._folder, self._document = run.path, run.document
        self._runs: Mapping[str, dict[str, Any]] = self._document["runs"]
        self._question = question_of(self._document)
        self._results: dict[str, dict[str, Any]] = {}
        # On which machines a run was lost.
        self._tries: dict[str, list[str]] = {}
        self._failure: DabenchError | None = None
        self._frames: dict[tuple[str, bool], str | None] = {}
        self._pending: deque[str] = deque()
        self._lock = threading.Lock()
        self._interrupted = threading.Event()

    def carried_out(self) -> dict[str, dict[str, Any]]:
        """All runs, or as many as it takes to decide; the results by name."""
        with self._run:
            for names in self._phases():
                config = self._runs[names[0]]
                if is_spared(config, self._question, self._runs, self._results):
                    break
                self._all_of(names)
            results = {name: self._results[name] for name in self._runs if name in self._results}
            self._run.write_json(RELEASED, released(self._runs, results))
            storage = self._document["cluster"]["storage"]
            if storage is not None:
                self._emptied(storage)
        return results

    def _phases(self) -> Iterator[list[str]]:
        """Runs that need nothing of each other, one group after the other."""
        further = [] if self._question is None else self._question.seeds[self._question.first :]
        groups: dict[tuple[int, bool], list[str]] = {}
        for name, config in self._runs.items():
            seed = config["seed"] if config["seed"] in further else -1
            # What recomputes statistics goes on from another's weights.
            recomputes = method_of(config["method"]).recomputes
            groups.setdefault((seed, recomputes), []).append(name)
        order = [-1, *further]
        yield from (groups[key] for key in sorted(groups, key=lambda k: (order.index(k[0]), k[1])))

    def _all_of(self, names: Sequence[str]) -> None:
        """Carries out runs, as many at once as there are seats.

        Raises:
            DabenchError: No machine is left.
        """
        for name in names:
            result = read_result(self._folder / name)
            if result is None:
                self._pending.append(name)
            else:
                self._results[name] = result
                self._check_frames(name, read_run(self._folder / name), "here")
        while self._pending and self._failure is None:
            seats = self._seats.nodes()
            if not seats:
                raise DabenchError(
                    f"no node of {self._seats.kind.name} is left; what was trained is kept, and "
                    "--resume goes on once there is one"
                )
            with ThreadPoolExecutor(len(seats), "seat") as pool:
                try:
                    working = [pool.submit(self._sit, node) for node in seats]
                    while wait(working, POLL_S).not_done:
                        pass
                except BaseException:
                    self._interrupted.set()
                    raise
            for each in working:
                each.result()
        if self._failure is not None:
            raise self._failure

    def _sit(self, node: Node) -> None:
        """Carries out runs on a machine until there are no more, it is gone, or one cannot be."""
        while (name := self._taken(node)) is not None:
            try:
                result = self._one(name, node)
            except FaultError as error:
                fault = DabenchError(f"{name} on {node.name}: {error}")
                fault.__cause__ = error
                self._failed(fault)
            except LostError as error:
                self._lost(name, node, error)
            except DabenchError as error:
                self._failed(error)
            else:
                if result is None:
                    return
                with self._lock:
                    self._results[name] = result
                    self._tell(name, result)

    def _taken(self, node: Node) -> str | None:
        """The next run for a machine; None if there is none that it should begin."""
        with self._lock:
            over = self._interrupted.is_set() or self._failure is not None
            if over or node.id in self._seats.gone:
                return None
            there = {each.id for each in self._seats.nodes()}
            for name in self._pending:
                before = set(self._tries.get(name, ()))
                # Where it was lost before another may do better, if there is any.
                if node.id not in before or there <= before:
                    self._pending.remove(name)
                    self._observer.note(f"{name} on {node.name}")
                    return name
            return None

    def _failed(self, error: DabenchError) -> None:
        """Begins nothing more; what runs goes on to its end."""
        with self._lock:
            self._failure = self._failure or error

    def _lost(self, name: str, node: Node, error: LostError) -> None:
        with self._lock:
            tries = self._tries.setdefault(name, [])
            if error.gone:
                self._seats.gone.add(node.id)
            else:
                tries.append(node.id)
            self._observer.note(f"{name}: lost on {node.name} ({error})")
            if len(tries) < TRIES:
                self._pending.append(name)
            else:
                lost = DabenchError(f"{name} was lost {TRIES} times: {error}")
                self._failure = self._failure or lost
        self._interrupted.wait(AGAIN_S)

    def _tell(self, name: str, result: dict[str, Any]) -> None:
        """Tells all of a run that is over: several at once would be told mixed up."""
        number = list(self._runs).index(name) + 1
        self._observer.run(name, number, len(self._runs), self._runs[name]["batch"])
        for row in read_epochs(self._folder / name):
            self._observer.epoch(row)
        self._observer.done(name, result)

    def _one(self, name: str, node: Node) -> dict[str, Any] | None:
        """The result of a run; None if it was stopped.

        Raises:
            LostError: The machine, or the process there, ended.
            UsageError: The machine has other data, or says what is wrong.
        """
        config = TrainConfig.of(self._runs[name])
        twin = trained_twin(self._folder, config, self._document)
        storage = self._document["cluster"]["storage"]
        request = {
            **self._asked.request(),
            "split": self._document["split"],
            "suite": {**self._document, "node": node.name},
            "name": name,
            "storage": None if storage is None else f"{storage}/{name}",
        }
        before = {} if twin is None else {twin: files_for_others(self._folder / twin)}
        launch = self._seats.begin(train, node, request, self._seats.sent(before))
        try:
            while (said := launch.result(POLL_S)) is None:
                if self._interrupted.is_set():
                    return None
        finally:
            launch.cancel()
        _checked(said, node)
        with self._lock:
            self._check_frames(name, json.loads(said["files"]["run.json"]), node.name)
            self._write(name, said["files"])
            for note in said["notes"]:
                self._observer.note(f"{name}: {note}")
        if storage is not None:
            self._emptied(f"{storage}/{name}")
        result: dict[str, Any] = said["result"]
        return result

    def _emptied(self, storage: str) -> None:
        """Removes what is of no more use; where this machine cannot, it stays."""
        with suppress(Exception):
            Storage(storage).remove()

    def _check_frames(self, name: str, run: Mapping[str, Any], where: str) -> None:
        """Checks that a machine's frames are those of the others.

        Raises:
            UsageError: They are not.
        """
        method = method_of(self._runs[name]["method"])
        digests: Mapping[str, str | None] = run["data"].get("digests", {})
        for part, digest in digests.items():
            key = (part, part == "training" and method.on_target)
            if digest is not None and self._frames.setdefault(key, digest) != digest:
                raise UsageError(f"--on: {where} has other {part} frames than the others")

    def _write(self, name: str, files: Mapping[str, bytes]) -> None:
        """Keeps a run's files, its result last."""
        folder = self._folder / name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(files, key=lambda file: file == RESULT):
                target = folder / file
                target.parent.mkdir(exist_ok=True)
                unfinished = target.with_name(f".{target.name}")
                with unfinished.open("wb") as opened:
                    opened.write(files[file])
                    opened.flush()
                    os.fsync(opened.fileno())
                unfinished.replace(target)
