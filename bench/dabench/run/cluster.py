"""A Ray cluster: which machines it has, by kind, and how a launch gets to one.

Every launch is a Ray task that claims all of its node's resource `SLOT`, so that no two
measurements share a device or its cores, whoever asked for them.
"""

from __future__ import annotations

import importlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from dabench.base.errors import DabenchError, UsageError, one_line
from dabench.device.machine import (
    FINGERPRINT,
    difference,
    machine_key,
    source_digest,
    version_of,
)
from dabench.plan.networks import is_still
from dabench.plan.places import Place
from dabench.run.luggage import Luggage
from dabench.run.nodes import describe, launch, tidy
from dabench.run.pool import FaultError, Hosts, Kind, LostError, Message, Node, NodePool

SLOT = "dabench"
"""The resource that a node is started with if it may be measured on."""

REACH_S = 5.0
PROBE_S = 180.0

_NOT_SERVED = "Initialization failure from server"
_PAUSES_S = (0.0, 2.0, 5.0)
"""Before each try to connect."""

FACTS = (*FINGERPRINT, "governor", "cpu_flags")
"""What nodes of one kind have in common."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a cluster has.

    Attributes:
        kinds: Those with most nodes first.
        left_out: Nodes that cannot be measured on now, and why.
    """

    kinds: list[Kind]
    left_out: list[str] = field(default_factory=list)


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: The module.
        luggage: What went along.
    """

    def __init__(self, ray: Any, luggage: Luggage) -> None:
        self._ray = ray
        self._luggage = luggage
        self._hosts = Hosts()
        self._affinity = importlib.import_module(
            "ray.util.scheduling_strategies"
        ).NodeAffinitySchedulingStrategy
        # Lost ones are begun again by us, on nodes of the same kind.
        self._version, self._describe, self._launch, self._tidy = (
            ray.remote(num_cpus=0, max_retries=0)(function)
            for function in (_version_there(), describe, launch, tidy)
        )
        self.ray_version = version_of("ray")

    def found(self, networks: Mapping[str, Any]) -> Found:
        """The nodes that may be measured on, by kind.

        Args:
            networks: `identities` of those from outside that will be measured.

        Raises:
            UsageError: There are none, or one has another dabench or other networks.
        """
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        slots = {each["NodeID"]: each["Resources"].get(SLOT, 0.0) for each in alive}
        names = {
            each["NodeID"]: f"{each['NodeManagerHostname']} {each['NodeID'][:8]}"
            for each in alive
            if slots[each["NodeID"]] > 0
        }
        if not names:
            raise UsageError(
                f"--on: none of the cluster's {len(alive)} nodes has a slot to measure in; start "
                f"those that may be measured on with --resources='{{\"{SLOT}\": 1}}'"
            )
        versions, left_out = self._asked(self._version, names, {})
        for node, there in versions.items():
            check_version(names[node], there)
        rest = {node: names[node] for node in versions}
        said, late = self._asked(self._describe, rest, slots, list(networks))
        for node, each in said.items():
            check_sources(names[node], each["sources"])
            check_networks(names[node], networks, each["networks"])
        nodes = [
            Node(
                node, names[node], each["host"], slots[node], each["environment"],
                frozenset(each["installed"]),
            )
            for node, each in said.items()
        ]  # fmt: skip
        left_out += late
        if not nodes:
            raise UsageError(f"--on: no node can be measured on: {'; '.join(left_out)}")
        return Found(by_kind(nodes), left_out)

    def pool(self, kind: Kind) -> NodePool:
        """A pool that starts workers on the nodes of a kind."""
        return NodePool(kind, self._start, self._luggage, self._hosts)

    def tidy(self, kinds: Iterable[Kind]) -> None:
        """Removes what launches left on nodes; of those that do not answer the next sweep does."""
        # A cluster that is gone has nothing to tidy, and what was measured is to be shown.
        with suppress(Exception):
            asked = [self._at(self._tidy, node.id).remote() for k in kinds for node in k.nodes]
            self._ray.wait(asked, num_returns=len(asked), timeout=REACH_S)

    def sent(self, content: Any) -> Any:
        """Something large, which goes to the cluster by itself; what to pass in its place."""
        with _while_it_is_there():
            return self._ray.put(content)

    def _at(self, function: Any, node: str, slots: float = 0.0, gpus: int = 0) -> Any:
        return function.options(
            num_gpus=gpus,
            resources={SLOT: slots} if slots else {},
            scheduling_strategy=self._affinity(node, soft=False),
        )

    def _asked(
        self, question: Any, nodes: Mapping[str, str], slots: Mapping[str, float], *arguments: Any
    ) -> tuple[dict[str, Any], list[str]]:
        """What nodes answer, all at once, and why others do not.

        Raises:
            UsageError: A node says what is wrong with the request.
        """
        errors = self._ray.exceptions
        asked = {
            node: self._at(question, node, slots.get(node, 0.0)).remote(*arguments)
            for node in nodes
        }
        every = list(asked.values())
        ready, _ = self._ray.wait(every, num_returns=len(every), timeout=PROBE_S)
        answers, left_out = {}, []
        for node, answer in asked.items():
            if answer not in ready:
                self._cancel(answer)
                left_out.append(f"{nodes[node]} is busy: no answer within {PROBE_S:g} s")
                continue
            try:
                answers[node] = self._ray.get(answer)
            except errors.RayTaskError as error:
                raise UsageError(f"--on: {nodes[node]}: {_cause(error)}") from None
            except errors.RayError as error:
                left_out.append(f"{nodes[node]}: {_cause(error)}")
        return answers, left_out

    def _start(self, node: Node, request: Message, timeout_s: float) -> Launch:
        """Begins a launch.

        Raises:
            DabenchError: The cluster is gone.
        """
        task = self._at(self._launch, node.id, node.slots)
        with _while_it_is_there():
            return Launch(self._ray, task.remote(request, timeout_s, node.name))

    def begin(
        self, function: Callable[..., Any], node: Node, slots: float, gpus: int, *arguments: Any
    ) -> Launch:
        """Begins a function in a fresh process on a node.

        Args:
            function: Of a module that nodes have.
            node: Where.
            slots: How much of the node's `SLOT` it claims.
            gpus: How many GPUs, which are then all that it sees.
            *arguments: Of the function.

        Raises:
            DabenchError: The cluster is gone.
        """
        task = self._ray.remote(num_cpus=0, max_retries=0, max_calls=1)(function)
        # Ray counts in ten thousandths; a sum of shares must not be more than there is.
        share = math.floor(slots * 1e4) / 1e4
        with _while_it_is_there():
            return Launch(self._ray, self._at(task, node.id, share, gpus).remote(*arguments))

    def _cancel(self, launched: Any) -> None:
        # Of a cluster that is gone nothing runs.
        with suppress(Exception):
            self._ray.cancel(launched, force=True)


class Launch:
    """A launch as a task of Ray; a `dabench.run.pool.Launched`."""

    def __init__(self, ray: Any, task: Any) -> None:
        self._ray = ray
        self._task = task
        # Waits without asking again and again, which the head would have to answer.
        self._future: Future[Any] = task.future()

    def result(self, seconds: float) -> Any:
        """What it returns, of a launch its messages; None if it runs still after some seconds."""
        errors = self._ray.exceptions
        with _while_it_is_there():
            if not wait([self._future], seconds).done:
                return None
            try:
                return self._future.result()
            except (errors.NodeDiedError, errors.TaskUnschedulableError) as error:
                raise LostError(_cause(error), gone=True) from None
            except errors.RayTaskError as error:
                raise FaultError(_cause(error)) from error
            except errors.RayError as error:
                raise LostError(_cause(error)) from None

    def cancel(self) -> None:
        """Ends it."""
        with suppress(Exception):
            self._ray.cancel(self._task, force=True)


@contextmanager
def _while_it_is_there() -> Iterator[None]:
    """Whatever Ray raises of a connection that is lost is one line.

    Raises:
        DabenchError: It did.
    """
    try:
        yield
    except DabenchError:
        raise
    except Exception as error:
        raise DabenchError(
            f"the cluster is gone ({one_line(str(error))}); what was measured is kept, and "
            "--resume goes on once it is there"
        ) from error


@contextmanager
def connected(place: Place, luggage: Luggage) -> Iterator[Cluster]:
    """Connects to a cluster.

    Raises:
        UsageError: Ray is missing, or there is no cluster, or its Ray or Python is another.
    """
    # Whether tasks without GPUs see them is no matter: `dabench.run.nodes` undoes what Ray hides.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Under 'uv run' Ray would send the whole working folder and start nodes' processes by uv.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UsageError("--on: Ray is missing; pip install 'dabench[ray]'") from None
    if place.host is not None:
        _check_reachable(place, place.host)
    environment = {"working_dir": str(luggage.folder)} if luggage.folder is not None else {}
    with _signals_kept():
        try:
            _init(ray, place, environment)
        except Exception as error:
            raise UsageError(f"--on: cannot use {place}: {_said(error)}") from error
    try:
        # Ray says what it has lost on standard output, which is for results.
        with redirect_stdout(sys.stderr):
            yield Cluster(ray, luggage)
    finally:
        with suppress(Exception):
            ray.shutdown()


def _init(ray: Any, place: Place, environment: Mapping[str, str]) -> None:
    """Connects; again where the head could not start what serves a client.

    It forks that process, which on a busy head now and then ends or hangs before it answers (seen
    with Ray 2.60): nothing of ours has run by then.
    """
    facts = {"runtime_env": environment, "logging_level": "ERROR", "log_to_driver": False}
    for left, pause in zip(range(len(_PAUSES_S) - 1, -1, -1), _PAUSES_S, strict=True):
        time.sleep(pause)
        try:
            ray.init(place.address, **facts)
            return
        except Exception as error:
            if not left or _NOT_SERVED not in str(error):
                raise


def _said(error: Exception) -> str:
    """An error in one line: of a traceback that the head sends, its last."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    traced = any(line.startswith("Traceback") for line in lines)
    return one_line(f"{first} {lines[-1]}" if traced else "\n".join(lines) or first)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray has a handler of its own for SIGTERM, by which a process that waits does not end."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_reachable(place: Place, host: str) -> None:
    """Tries the port itself: Ray tries for half a minute."""
    try:
        socket.create_connection((host, place.port), REACH_S).close()
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"--on: cannot reach {place}: {said}") from None


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


def check_version(node: str, there: str | None) -> None:
    """Checks that a node has the version of dabench that is here.

    Raises:
        UsageError: It has not.
    """
    here = version_of("dabench")
    if there != here:
        raise UsageError(
            f"--on: {node} has {f'dabench {there}' if there else 'no dabench'}, here it is {here}; "
            "install the same on all nodes"
        )


def check_sources(node: str, there: str) -> None:
    """Checks that a node's dabench is the one that is here, file by file.

    Raises:
        UsageError: It is not.
    """
    if there != source_digest():
        raise UsageError(
            f"--on: {node} has another dabench of the same version {version_of('dabench')}: its "
            "files differ; install the same on all nodes"
        )


def check_networks(node: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Checks that networks from outside are on a node what they are here.

    Raises:
        UsageError: One is not.
    """
    for name, identity in ours.items():
        if not is_still(identity, theirs.get(name)):
            raise UsageError(f"--on: {name} is another network on {node}")


def _cause(error: Any) -> str:
    """The error that a task raised, or Ray's own, in one line."""
    cause = getattr(error, "cause", None)
    return one_line(str(cause if cause is not None else error)) or type(error).__name__


class Notes(Protocol):
    """Whoever is told what a user should know."""

    def note(self, text: str) -> None:
        """Something the user should know."""


def noted(found: Found, observer: Notes) -> Found:
    """What a cluster has; the observer hears of nodes that are left out."""
    for line in found.left_out:
        observer.note(f"left out: {line}")
    return found


def kind_like(environment: Mapping[str, Any], kinds: Iterable[Kind]) -> Kind | str:
    """The nodes that are like a machine that was described, or why there are none."""
    reasons = []
    for kind in kinds:
        found = difference(environment, kind.environment, FACTS)
        if found is None:
            return kind
        reasons.append(f"{kind.name}: {found}")
    return "; ".join(reasons)


def by_kind(nodes: Sequence[Node]) -> list[Kind]:
    """Nodes that differ in nothing of `FACTS`, those of which there are most first."""
    groups: list[list[Node]] = []
    for node in sorted(nodes, key=lambda each: each.name):
        for group in groups:
            alike = difference(group[0].environment, node.environment, FACTS) is None
            if alike and group[0].installed == node.installed:
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
