"""A Ray cluster: which machines it has, by kind, and a pool that starts workers on them.

Every launch is a Ray task that claims all of its node's resource `SLOT`, so that no two
measurements share a device or its cores, whoever asked for them. What can be lost is only a
launch: it is made again on another node of the same kind.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from dabench.base.errors import DabenchError, UsageError, clean_line
from dabench.device.machine import difference, git_commit, machine_key, version_of
from dabench.plan.networks import is_still
from dabench.plan.places import Place
from dabench.run.luggage import Luggage
from dabench.run.nodes import describe, launch, tidy

Message = dict[str, Any]

SLOT = "dabench"
"""The resource that a node is started with if it may be measured on."""

TRIES = 3
"""How often a launch is begun that is lost with its node or its process."""

REACH_S = 5.0
PROBE_S = 180.0
AGAIN_S = 2.0
"""So long, and longer each time, what was lost waits before it is begun again."""

POLL_S = 0.2
"""How soon Ctrl-C is noticed."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: What Ray calls it.
        name: Its host's name, with the beginning of the id: several may run on one host.
        host: Its address.
        slots: How much of `SLOT` it has.
        environment: As `dabench.device.machine` describes it.
    """

    id: str
    name: str
    host: str
    slots: float
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """A JSON document, for the record."""
        software = {key: self.environment.get(key) for key in ("dabench", "torch", "python")}
        return {"id": self.id, "name": self.name, **software}


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes of one hardware, software and setting; at least one.

    Attributes:
        name: Fit for a file's.
    """

    name: str
    nodes: tuple[Node, ...]

    @property
    def environment(self) -> dict[str, Any]:
        """Of the first node; the others differ in nothing that decides times."""
        return dict(self.nodes[0].environment)


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: The module.
        luggage: What went along.
    """

    def __init__(self, ray: Any, luggage: Luggage) -> None:
        self._ray = ray
        self._luggage = luggage
        self._affinity = importlib.import_module(
            "ray.util.scheduling_strategies"
        ).NodeAffinitySchedulingStrategy
        self.ray_version = version_of("ray")

    def kinds(
        self, networks: Mapping[str, Any], note: Callable[[str], None] = lambda _: None
    ) -> list[Kind]:
        """The nodes that may be measured on, by kind; those with most nodes first.

        Args:
            networks: `identities` of those from outside that will be measured.
            note: Told of nodes that are left out.

        Raises:
            UsageError: There are none, or one has another dabench or other networks.
        """
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        able = {
            node["NodeID"]: f"{node['NodeManagerHostname']} {node['NodeID'][:8]}"
            for node in alive
            if node["Resources"].get(SLOT, 0) > 0
        }
        if not able:
            raise UsageError(
                f"--on: none of the cluster's {len(alive)} nodes has a slot to measure in; start "
                f"those that may be measured on with --resources='{{\"{SLOT}\": 1}}'"
            )
        slots = {node["NodeID"]: node["Resources"].get(SLOT, 0.0) for node in alive}
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in alive}
        versions = self._asked(_version_there(), able, {})
        _check_versions(versions, able)
        found = self._asked(describe, {node: able[node] for node in versions}, slots, [*networks])
        for node in able.keys() - found.keys():
            note(f"{able[node]} did not answer and is left out")
        for node, said in found.items():
            _check_commit(able[node], said["environment"]["commit"])
            _check_networks(able[node], networks, said["networks"])
        nodes = [
            Node(node, able[node], hosts[node], slots[node], said["environment"])
            for node, said in found.items()
        ]
        return _by_kind(nodes)

    def pool(self, kind: Kind) -> NodePool:
        """A pool that starts workers on the nodes of a kind."""
        return NodePool(kind, self._started, self._result, self._cancel, self._luggage)

    def tidy(self, kinds: Iterable[Kind]) -> None:
        """Removes what launches left on nodes; of those that do not answer the next sweep does."""
        remote = self._ray.remote(num_cpus=0, max_retries=0)(tidy)
        asked = [
            remote.options(scheduling_strategy=self._affinity(node.id, soft=False)).remote()
            for kind in kinds
            for node in kind.nodes
        ]
        self._ray.wait(asked, num_returns=len(asked), timeout=REACH_S)

    def _asked(
        self,
        question: Callable[..., Any],
        nodes: Mapping[str, str],
        slots: Mapping[str, float],
        *arguments: Any,
    ) -> dict[str, Any]:
        """What nodes answer, all at once; those that do not in time are missing.

        Raises:
            UsageError: A node cannot answer.
        """
        remote = self._ray.remote(num_cpus=0, max_retries=0)(question)
        asked = {
            node: remote.options(
                resources={SLOT: slots[node]} if slots else {},
                scheduling_strategy=self._affinity(node, soft=False),
            ).remote(*arguments)
            for node in nodes
        }
        ready, late = self._ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_S)
        for each in late:
            self._cancel(each)
        answers = {}
        for node in [node for node, answer in asked.items() if answer in ready]:
            try:
                answers[node] = self._ray.get(asked[node])
            except self._ray.exceptions.RayTaskError as error:
                raise UsageError(f"--on: {nodes[node]}: {_cause(error)}") from None
            except self._ray.exceptions.RayError:
                continue  # it has just been lost, or is not whole yet
        if not answers:
            raise UsageError(f"--on: none of {len(nodes)} nodes answered within {PROBE_S:g} s")
        return answers

    def _started(self, node: Node, request: Message, timeout_s: float) -> Any:
        """Begins a launch; Ray's reference to what will come of it."""
        remote = self._ray.remote(num_cpus=0, max_retries=0)(launch)
        return remote.options(
            resources={SLOT: node.slots},
            scheduling_strategy=self._affinity(node.id, soft=False),
        ).remote(request, timeout_s, node.name)

    def _result(self, launched: Any) -> list[Message] | None:
        """What came of a launch; None if it runs still.

        Raises:
            LostError: The node, or Ray's process on it, is gone.
        """
        ready, _ = self._ray.wait([launched], timeout=POLL_S)
        if not ready:
            return None
        errors = self._ray.exceptions
        try:
            messages: list[Message] = self._ray.get(launched)
        except (errors.NodeDiedError, errors.TaskUnschedulableError) as error:
            raise LostError(_cause(error), gone=True) from None
        except errors.RayError as error:
            raise LostError(_cause(error)) from None
        return messages

    def _cancel(self, launched: Any) -> None:
        self._ray.cancel(launched, force=True)


class LostError(DabenchError):
    """A launch of which nothing came.

    Attributes:
        gone: Whether its node is known to be gone; else it may be its process alone.
    """

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


class NodePool:
    """Starts workers on the nodes of one kind, those of one host in turn.

    A `dabench.run.runner.WorkerPool`, for as many threads as there are hosts.

    Args:
        kind: Whose nodes.
        start: Begins a launch on a node.
        result: What came of it, or None; raises `LostError`.
        cancel: Ends one.
        luggage: What went along to the nodes.
    """

    def __init__(
        self,
        kind: Kind,
        start: Callable[[Node, Message, float], Any],
        result: Callable[[Any], list[Message] | None],
        cancel: Callable[[Any], None],
        luggage: Luggage,
    ) -> None:
        self._kind = kind
        self._start = start
        self._result = result
        self._cancel = cancel
        self._luggage = luggage
        self._changed = threading.Condition()
        self._free = list(kind.nodes)
        self._busy: set[str] = set()
        self._losses: dict[str, int] = {}
        self._stopped = threading.Event()

    @property
    def at_once(self) -> int:
        """How many launches may run side by side."""
        return len({node.host for node in self._kind.nodes})

    def stop(self) -> None:
        """Ends what runs: whoever waits for it is interrupted."""
        self._stopped.set()

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Runs a request on whichever node is free; begun again if it is lost, elsewhere if it can.

        What is lost with its node says nothing of the request, what is lost `TRIES` times on
        nodes that are there does.

        Raises:
            DabenchError: No node of the kind is left.
            KeyboardInterrupt: It was stopped.
        """
        request = self._luggage.repacked(request)
        lost = 0
        while True:
            node = self._taken()
            try:
                *messages, last = self._launched(node, request, timeout_s)
            except LostError as error:
                self._back(node, lost=True, gone=error.gone)
                lost += not error.gone
                if lost == TRIES:
                    reason = f"lost on {node.name}: {error}, {TRIES} times"
                    return {"kind": "failed", "status": "crashed", "reason": reason}
                # Of a node that has just gone Ray may not know it yet.
                self._stopped.wait(AGAIN_S * lost)
            else:
                self._back(node)
                for message in messages:
                    receive(message)
                return last

    def _launched(self, node: Node, request: Message, timeout_s: float) -> list[Message]:
        launched = self._start(node, request, timeout_s)
        while True:
            if self._stopped.is_set():
                self._cancel(launched)
                raise KeyboardInterrupt
            messages = self._result(launched)
            if messages is not None:
                return messages

    def _taken(self) -> Node:
        """A node whose host is free, those that lost nothing first; waits for one.

        Raises:
            DabenchError: There is none, and none will be.
        """
        with self._changed:
            while not (free := [node for node in self._free if node.host not in self._busy]):
                if not self._free and not self._busy:
                    raise DabenchError(
                        f"no node of {self._kind.name} is left; what was measured is kept, and "
                        "--resume goes on once there is one"
                    )
                if self._stopped.is_set():
                    raise KeyboardInterrupt
                self._changed.wait(POLL_S)
            node = min(free, key=lambda each: self._losses.get(each.id, 0))
            self._free.remove(node)
            self._busy.add(node.host)
            return node

    def _back(self, node: Node, *, lost: bool = False, gone: bool = False) -> None:
        """A node is free again, or gone for good."""
        with self._changed:
            self._losses[node.id] = self._losses.get(node.id, 0) + 1 if lost else 0
            self._busy.remove(node.host)
            if not gone:
                self._free.append(node)
            self._changed.notify_all()


@contextmanager
def connected(place: Place, luggage: Luggage) -> Iterator[Cluster]:
    """Connects to a cluster.

    Raises:
        UsageError: Ray is missing, or there is no cluster, or its Ray or Python is another.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UsageError("--on: Ray is missing; pip install 'dabench[ray]'") from None
    if place.host is not None:
        _check_reachable(place, place.host)
    # Whether tasks without GPUs see them is no matter: `dabench.run.nodes` undoes what Ray hides.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    environment = {"working_dir": str(luggage.folder)} if luggage.folder is not None else {}
    try:
        ray.init(place.address, runtime_env=environment, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(f"--on: cannot use {place}: {clean_line(str(error))}") from None
    try:
        # Ray says what it has lost on standard output, which is for results.
        with redirect_stdout(sys.stderr):
            yield Cluster(ray, luggage)
    finally:
        ray.shutdown()


def _check_reachable(place: Place, host: str) -> None:
    """Tries the port itself: Ray tries for half a minute."""
    try:
        socket.create_connection((host, place.port), REACH_S).close()
    except OSError as error:
        raise UsageError(f"--on: cannot reach {place}: {error.strerror or error}") from None


def _version_there() -> Callable[[], str | None]:
    """A function that says which dabench a node has, and needs none there.

    It is sent as it is, being no module's own.
    """

    def version() -> str | None:
        from importlib import metadata

        try:
            return metadata.version("dabench")
        except metadata.PackageNotFoundError:
            return None

    return version


def _check_versions(versions: Mapping[str, str | None], nodes: Mapping[str, str]) -> None:
    """Checks that nodes have the dabench that is here.

    Raises:
        UsageError: One has not.
    """
    here = version_of("dabench")
    for node, there in versions.items():
        if there != here:
            raise UsageError(
                f"--on: {nodes[node]} has {f'dabench {there}' if there else 'no dabench'}, here it "
                f"is {here}; install the same on all nodes"
            )


def _check_commit(node: str, there: str | None) -> None:
    """Checks that a node's checkout of dabench, if it has one, is the one that is here."""
    here = git_commit()
    if here is not None and there is not None and here != there:
        raise UsageError(f"--on: {node} has dabench at commit {there}, here it is {here}")


def _cause(error: Any) -> str:
    """The error that a task raised, or Ray's own, in one line."""
    cause = getattr(error, "cause", None)
    text = str(cause if cause is not None else error)
    return clean_line(text) or type(error).__name__


def _check_networks(node: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for name, identity in ours.items():
        if not is_still(identity, theirs.get(name)):
            raise UsageError(f"--on: {name} is another network on {node}")


def _by_kind(nodes: Sequence[Node]) -> list[Kind]:
    groups: list[list[Node]] = []
    for node in sorted(nodes, key=lambda each: each.name):
        for group in groups:
            if difference(group[0].environment, node.environment) is None:
                group.append(node)
                break
        else:
            groups.append([node])
    groups.sort(key=lambda group: -len(group))
    kinds: dict[str, Kind] = {}
    for group in groups:
        stem = machine_key(group[0].environment)
        same = sum(name.startswith(stem) for name in kinds)
        name = f"{stem}-{same + 1}" if same else stem
        kinds[name] = Kind(name, tuple(group))
    return list(kinds.values())
