"""Nodes of a cluster, and whose turn it is to run a launch; knows nothing of what a cluster is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dabench.base.errors import DabenchError
from dabench.run.luggage import Luggage

Message = dict[str, Any]

TRIES = 3
"""How often a launch is begun that is lost on nodes that are there."""

AGAIN_S = 2.0
"""So long, and longer each time, what was lost waits before it is begun again."""

POLL_S = 0.2
"""How soon Ctrl-C is noticed."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: What the cluster calls it.
        name: Its host's name, with the beginning of the id: several may run on one host.
        host: The machine itself, however many nodes or containers run on it.
        slots: How much it has of the resource that a launch claims whole.
        environment: As `dabench.device.machine` describes it.
        installed: Packages of `dabench.plan.variants` that it has.
    """

    id: str
    name: str
    host: str
    slots: float
    environment: Mapping[str, Any]
    installed: frozenset[str]

    def to_dict(self) -> dict[str, Any]:
        """A JSON document, for the record."""
        return {"id": self.id, "name": self.name, "environment": dict(self.environment)}


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

    def installs(self, package: str) -> bool:
        """Whether its nodes have a package."""
        return package in self.nodes[0].installed

    @property
    def hosts(self) -> list[str]:
        """The machines behind the nodes."""
        return list(dict.fromkeys(node.host for node in self.nodes))


class LostError(DabenchError):
    """A launch of which nothing came.

    Attributes:
        gone: Whether its node is known to be gone; else it may be its process alone.
    """

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


class FaultError(LostError):
    """What was to run ended by an error of its own, and may do so again."""


class Launched(Protocol):
    """A launch that was begun on a node."""

    def result(self, seconds: float) -> list[Message] | None:
        """Its messages; None if it runs still after some seconds.

        Raises:
            LostError: Nothing will come of it.
            DabenchError: The cluster is gone.
        """

    def cancel(self) -> None:
        """Ends it."""


class Hosts:
    """Which machines measure, of all kinds together: two nodes of one take turns."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy: set[str] = set()


class NodePool:
    """Starts workers on the nodes of one kind; a `dabench.run.runner.WorkerPool`.

    Args:
        kind: Whose nodes.
        start: Begins a launch on a node; raises what `Launched.result` does.
        luggage: What went along to the nodes.
        hosts: Shared by the pools of a cluster.
    """

    def __init__(
        self,
        kind: Kind,
        start: Callable[[Node, Message, float], Launched],
        luggage: Luggage,
        hosts: Hosts,
    ) -> None:
        self._kind = kind
        self._start = start
        self._luggage = luggage
        self._hosts = hosts
        self._nodes = list(kind.nodes)
        self._losses: dict[str, int] = {}
        self._stopped = threading.Event()

    @property
    def at_once(self) -> int:
        """How many launches may run side by side."""
        return len(self._kind.hosts)

    def stop(self) -> None:
        """Ends what runs: whoever waits for it is interrupted."""
        self._stopped.set()

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Runs a request; begun again if it is lost, elsewhere if it can be.

        What is lost with its node says nothing of the request, what is lost `TRIES` times on
        nodes that are there does.

        Args:
            request: Its ``lane`` is the place in `Kind.hosts` of the machine that it should run
                on; a message of kind ``ran`` says where it did.
            receive: Called with each message but the last, once all are there.
            timeout_s: After which the worker is killed.

        Raises:
            DabenchError: No node of the kind is left, or the cluster is gone.
            KeyboardInterrupt: It was stopped.
        """
        request = dict(self._luggage.repacked(request))
        lane = request.pop("lane", None)
        lost = 0
        tried: set[str] = set()
        while True:
            node = self._taken(lane, tried)
            error: LostError | None = None
            try:
                *messages, last = self._launched(node, request, timeout_s)
            except LostError as found:
                error = found
            finally:
                self._back(node)
            if error is None:
                for message in messages:
                    where = {"lane": self._lane_of(node, lane)} if message["kind"] == "ran" else {}
                    receive({**message, **where})
                return last
            tried.add(node.host)
            self._lose(node, gone=error.gone)
            lost += not error.gone
            if lost == TRIES:
                reason = f"lost on {node.name}: {error}, {TRIES} times"
                return {"kind": "failed", "status": "crashed", "reason": reason}
            # Of a node that has just gone the cluster may not know it yet.
            self._stopped.wait(AGAIN_S * lost)

    def _lane_of(self, node: Node, lane: int | None) -> int | None:
        return None if lane is None else self._kind.hosts.index(node.host)

    def _launched(self, node: Node, request: Message, timeout_s: float) -> list[Message]:
        launched = self._start(node, request, timeout_s)
        while True:
            if self._stopped.is_set():
                launched.cancel()
                raise KeyboardInterrupt
            messages = launched.result(POLL_S)
            if messages is not None:
                return messages

    def _taken(self, lane: int | None, tried: Container[str]) -> Node:
        """A node whose machine is free: that of the lane, as long as it is there.

        Where the request was lost before, one of another machine, if there is any.

        Raises:
            DabenchError: There is none, and none will be.
        """
        wanted = None if lane is None else self._kind.hosts[lane]
        with self._hosts.changed:
            while True:
                if self._stopped.is_set():
                    raise KeyboardInterrupt
                if not self._nodes:
                    raise DabenchError(
                        f"no node of {self._kind.name} is left; what was measured is kept, and "
                        "--resume goes on once there is one"
                    )
                others = [node for node in self._nodes if node.host not in tried] or self._nodes
                there = [node for node in others if node.host == wanted] or others
                if free := [node for node in there if node.host not in self._hosts.busy]:
                    node = min(free, key=lambda each: self._losses.get(each.id, 0))
                    # The next one is another's turn.
                    self._nodes.remove(node)
                    self._nodes.append(node)
                    self._hosts.busy.add(node.host)
                    return node
                self._hosts.changed.wait(POLL_S)

    def _back(self, node: Node) -> None:
        with self._hosts.changed:
            self._hosts.busy.remove(node.host)
            self._hosts.changed.notify_all()

    def _lose(self, node: Node, *, gone: bool) -> None:
        with self._hosts.changed:
            self._losses[node.id] = self._losses.get(node.id, 0) + 1
            if gone and node in self._nodes:
                self._nodes.remove(node)
            self._hosts.changed.notify_all()
