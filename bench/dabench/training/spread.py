"""A suite on the machines of a cluster: each run on a GPU, or on some of a machine's cores."""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
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
from dabench.records.folder import RunFolder, check_new_run
from dabench.records.trainings import RESULT, SUITE, read_epochs, read_result
from dabench.run.cluster import Cluster, Launch, connected, kind_like
from dabench.run.luggage import Luggage
from dabench.run.pool import POLL_S, TRIES, Kind, LostError, Node
from dabench.training.config import TrainConfig
from dabench.training.deciding import Question, answer, question_of
from dabench.training.remote import Message, files_for_others, prepare, train
from dabench.training.storage import Storage
from dabench.training.suite import (
    Planned,
    SuiteObserver,
    read_suite,
    released,
    scores_of,
    trained_twin,
)

NOTHING = Luggage(None, {})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a suite is asked for, and where the user says its data are.

    Attributes:
        pair: As the user named it.
        places: Roots and pairs as they are known here; a machine's own roots come before.
        given: Roots that the user gave as options, which come before those.
        split: Evaluated instead of the reported one.
    """

    pair: str
    places: Places
    given: Mapping[str, Path]
    split: str | None

    def request(self) -> Message:
        """What machines are told of it."""
        return {
            "asked": self.pair,
            "given": {name: str(path) for name, path in self.given.items()},
            "roots": {name: str(path) for name, path in self.places.roots.items()},
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
        found = cluster.found({})
        for line in found.left_out:
            observer.note(f"left out: {line}")
        kind, device = _chosen(found.kinds, plan[0].config.device)
        own = f"{folder.resolve().name}-{uuid.uuid4().hex[:8]}"
        kept = None if storage is None else f"{Storage(storage).url}/{own}"
        runs = {planned.name: {**planned.config.to_dict(), "device": device} for planned in plan}
        seats = _Seats(cluster, kind, device, plan[0].config.threads)
        if device == "cpu":
            runs = {name: {**each, "threads": seats.threads} for name, each in runs.items()}
        said = seats.ask(prepare, {**asked.request(), "runs": runs, "storage": storage})
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
            cluster={"ray": cluster.ray_version, "left_out": found.left_out, "storage": kept},
        )
        return _Suite(run, asked, seats, observer).carried_out()


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
        found = cluster.found({})
        kind = kind_like(document["environment"], found.kinds)
        if isinstance(kind, str):
            raise UsageError(
                f"--resume: no machine here is of the kind that {folder} needs: {kind}"
            )
        config = TrainConfig.of(next(iter(document["runs"].values())))
        seats = _Seats(cluster, kind, config.device, config.threads)
        run = RunFolder.open(folder, SUITE)
        return _Suite(run, asked, seats, observer).carried_out()


def _chosen(kinds: Sequence[Kind], device: str) -> tuple[Kind, str]:
    """The kind that has the device, that with most machines first, and the device there.

    Raises:
        UsageError: None has it.
    """
    refused: UsageError | None = None
    for kind in kinds:
        try:
            found = resolve_device(device, kind.environment)
        except UsageError as error:
            refused = refused or error
            continue
        return kind, found.partition(":")[0]
    assert refused is not None
    raise UsageError(f"--on: on all of the cluster's kinds of machines: {refused}")


class _Seats:
    """Places on machines of one kind that train at once: a GPU each, or some cores.

    Args:
        cluster: The cluster.
        kind: Of the machines.
        device: Of the runs.
        threads: Cores of each run on a processor; None takes a machine's.

    Raises:
        UsageError: A machine has fewer cores.
    """

    def __init__(self, cluster: Cluster, kind: Kind, device: str, threads: int | None) -> None:
        self._cluster, self.kind = cluster, kind
        cores = int(kind.environment["usable_cores"])
        self.threads = threads or cores
        if device == "cpu" and self.threads > cores:
            raise bad_value("--threads", threads, f"machines have {cores} cores")
        self.gpus = 1 if device == "cuda" else 0
        self.each = len(kind.environment["gpus"]) if self.gpus else cores // self.threads
        self.gone: set[str] = set()

    def nodes(self) -> list[Node]:
        """A machine for each seat; several runs may be on one."""
        there = [node for node in self.kind.nodes if node.id not in self.gone]
        return [node for _ in range(self.each) for node in there]

    def begin(self, function: Any, node: Node, *arguments: Any) -> Launch:
        """Begins something on a machine."""
        share = node.slots / self.each
        return self._cluster.begin(function, node, share, self.gpus, *arguments)

    def sent(self, content: Mapping[str, Mapping[str, bytes]]) -> Any:
        """Something large, as an argument."""
        return self._cluster.sent(content) if content else {}

    def ask(self, function: Any, request: Message) -> Message:
        """What the first machine answers.

        Raises:
            UsageError: It says what is wrong with the request.
            DabenchError: It is gone.
        """
        node = self.kind.nodes[0]
        launch = self.begin(function, node, request)
        while (said := launch.result(POLL_S)) is None:
            pass
        return _checked(said, node)


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
        self._tries: dict[str, int] = {}
        self._frames: dict[tuple[str, bool], str | None] = {}
        self._pending: deque[str] = deque()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def carried_out(self) -> dict[str, dict[str, Any]]:
        """All runs, or as many as it takes to decide; the results by name."""
        with self._run:
            for names in self._phases():
                if self._is_decided(names[0]):
                    break
                self._all_of(names)
            results = {name: self._results[name] for name in self._runs if name in self._results}
            self._run.write_json(RELEASED, released(self._runs, results))
            storage = self._document["cluster"]["storage"]
            if storage is not None:
                Storage(storage).remove()
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

    def _is_decided(self, name: str) -> bool:
        question = self._question
        if question is None or self._runs[name]["seed"] not in question.seeds[question.first :]:
            return False
        decision = answer(question, scores_of(self._runs, self._results))
        return decision is not None and decision.verdict != "undecided"

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
        while self._pending:
            seats = self._seats.nodes()[: len(self._pending)]
            if not seats:
                raise DabenchError(
                    f"no node of {self._seats.kind.name} is left; what was trained is kept, and "
                    "--resume goes on once there is one"
                )
            with ThreadPoolExecutor(len(seats), "seat") as pool:
                working = [pool.submit(self._sit, node) for node in seats]
                try:
                    while wait(working, POLL_S).not_done:
                        pass
                finally:
                    self._stopped.set()
            self._stopped.clear()
            for each in working:
                each.result()

    def _sit(self, node: Node) -> None:
        """Carries out runs on a machine until there are no more, or it is gone."""
        while not self._stopped.is_set() and node.id not in self._seats.gone:
            with self._lock:
                if not self._pending:
                    return
                name = self._pending.popleft()
                self._observer.note(f"{name} on {node.name}")
            try:
                result = self._one(name, node)
            except LostError as error:
                self._lost(name, node, error)
                continue
            except BaseException:
                # Nobody begins what would end like this.
                self._stopped.set()
                raise
            if result is None:
                return
            with self._lock:
                self._results[name] = result
                self._tell(name, result)

    def _tell(self, name: str, result: dict[str, Any]) -> None:
        """Tells all of a run that is over: several at once would be told mixed up."""
        number = list(self._runs).index(name) + 1
        self._observer.run(name, number, len(self._runs), self._runs[name]["batch"])
        for row in read_epochs(self._folder / name):
            self._observer.epoch(row)
        self._observer.done(name, result)

    def _lost(self, name: str, node: Node, error: LostError) -> None:
        with self._lock:
            if error.gone:
                self._seats.gone.add(node.id)
            else:
                self._tries[name] = self._tries.get(name, 0) + 1
            self._observer.note(f"{name}: lost on {node.name} ({error})")
            if self._tries.get(name, 0) >= TRIES:
                self._stopped.set()
                raise DabenchError(f"{name} was lost {TRIES} times: {error}") from error
            self._pending.append(name)

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
                if self._stopped.is_set():
                    return None
        finally:
            launch.cancel()
        _checked(said, node)
        with self._lock:
            self._check_frames(name, said["files"], node)
            self._write(name, said["files"])
            for note in said["notes"]:
                self._observer.note(f"{name}: {note}")
        if storage is not None:
            Storage(f"{storage}/{name}").remove()
        result: dict[str, Any] = said["result"]
        return result

    def _check_frames(self, name: str, files: Mapping[str, bytes], node: Node) -> None:
        """Checks that a machine's frames are those of the others.

        Raises:
            UsageError: They are not.
        """
        method = method_of(self._runs[name]["method"])
        digests = json.loads(files["run.json"])["data"]["digests"]
        for part, digest in digests.items():
            key = (part, part == "training" and method.on_target)
            if digest is not None and self._frames.setdefault(key, digest) != digest:
                raise UsageError(f"--on: {node.name} has other {part} frames than the others")

    def _write(self, name: str, files: Mapping[str, bytes]) -> None:
        """Keeps a run's files, its result last."""
        folder = self._folder / name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(files, key=lambda file: file == RESULT):
                unfinished = folder / f".{file}"
                unfinished.write_bytes(files[file])
                unfinished.replace(folder / file)
