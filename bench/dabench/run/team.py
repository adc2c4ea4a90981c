"""Several processes that run the same case on one device at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

from dabench.base.errors import DabenchError, DiedError
from dabench.timing.engine import TimedDevice, Work

Message = dict[str, Any]
Member = Callable[[Message, "Team"], list[Message]]
"""Does what a request asks for as one of a team; the messages that came of it."""

MEETING_S = 1800.0
"""So long processes wait for each other: building and compiling take their time."""

FAREWELL_S = 2.0
"""So long a process that has said its last may take to end."""


class Team:
    """One process's view of its team.

    Attributes:
        pids: The other processes, where this is the one that leads them.
    """

    def __init__(self, meeting: Any, busy: Any) -> None:
        self.pids: list[int] = []
        self._meeting = meeting
        self._busy = busy

    def begin(self) -> None:
        """Returns when all have warmed up: they begin together.

        Raises:
            DabenchError: Another one has failed.
        """
        self._meet()
        with self._busy.get_lock():
            self._busy.value += 1
        self._meet()

    def end(self, work: Work, device: TimedDevice) -> None:
        """Goes on without timing until all have their samples: nobody's last ones run alone.

        Raises:
            DabenchError: Another one has failed.
        """
        with self._busy.get_lock():
            self._busy.value -= 1
        while self._busy.value > 0 and not self._meeting.broken:
            work.prepare()
            work.run()
            device.synchronize()
            work.release()
        self._meet()

    def fail(self) -> None:
        """Tells the others not to wait."""
        self._meeting.abort()

    def _meet(self) -> None:
        try:
            self._meeting.wait(MEETING_S)
        except threading.BrokenBarrierError:
            raise DabenchError("another of the processes that run at once failed") from None


@contextlib.contextmanager
def team_of(
    requests: Sequence[Message], member: Member
) -> Iterator[tuple[Team, Callable[[], list[list[Message]]]]]:
    """Starts the others of a team; gives this process's view and a way to gather theirs.

    Args:
        requests: What each of the others does.
        member: How the others do it; importable, since they may start from nothing.
    """
    # A process that has run torch's kernels must not fork, and no worker has at this point. On
    # macOS none may.
    kind = "fork" if sys.platform == "linux" else "spawn"
    context: Any = multiprocessing.get_context(kind)
    team = Team(context.Barrier(len(requests) + 1), context.Value("i", 0))
    others: list[BaseProcess] = []
    ends: list[Connection] = []
    for request in requests:
        ours, theirs = context.Pipe(duplex=False)
        other = context.Process(target=_other, args=(member, request, team, theirs), daemon=True)
        other.start()
        theirs.close()
        others.append(other)
        ends.append(ours)
    team.pids = [each.pid for each in others if each.pid is not None]
    # One that is killed can tell nobody: the others would wait for it.
    threading.Thread(target=_watch, args=(others, team), daemon=True).start()
    try:
        yield team, lambda: [_received(*each) for each in zip(others, ends, strict=True)]
    except DabenchError as error:
        team.fail()
        for each in zip(others, ends, strict=True):
            if (failure := _failure(*each)) is not None:
                raise failure from error
        raise
    finally:
        team.fail()
        for other in others:
            other.kill()
            other.join()


def _watch(others: Sequence[BaseProcess], team: Team) -> None:
    """Tells the rest of a team when one of the others is killed."""
    left = {other.sentinel: other for other in others}
    while left:
        for sentinel in multiprocessing.connection.wait(list(left)):
            other = left.pop(cast(int, sentinel))
            other.join()
            if other.exitcode:
                team.fail()


def _other(member: Member, request: Message, team: Team, results: Connection) -> None:
    """What the others of a team run."""
    try:
        results.send(member(request, team))
    except BaseException as error:
        team.fail()
        results.send(f"{type(error).__name__}: {error}")
        raise


def _received(other: BaseProcess, end: Connection) -> list[Message]:
    """What another process sent.

    Raises:
        DabenchError: It has failed.
    """
    multiprocessing.connection.wait([end, other.sentinel])
    if (failure := _failure(other, end)) is not None:
        raise failure
    messages: list[Message] = end.recv()
    return messages


def _failure(other: BaseProcess, end: Connection) -> DabenchError | None:
    """Why another process failed, should it have; what it sent otherwise is left to be read."""
    if other.exitcode is None:
        other.join(FAREWELL_S if end.poll() else 0)
    if not other.exitcode:
        return None
    if other.exitcode < 0:
        name = signal.Signals(-other.exitcode).name
        return DiedError(f"one of the processes that run at once was ended by {name}")
    said = end.recv() if end.poll() else f"it ended with exit code {other.exitcode}"
    return DabenchError(f"one of the processes that run at once failed: {said}")


def merged(own: Message, others: Sequence[Message]) -> Message:
    """One phase of a team: all samples, the slowest's time, the sum of memory."""
    every = [own, *others]
    peaks = [each["peak_bytes"] for each in every]
    stops = {each["stop"] for each in every}
    return {
        **own,
        **{
            kind: [s for each in every for s in each[kind]]
            for kind in ("warmup", "samples", "alone")
        },
        "steady": all(each["steady"] for each in every),
        "stop": own["stop"] if len(stops) == 1 else "gave up",
        "spent_s": max(each["spent_s"] for each in every),
        "peak_bytes": None if None in peaks else sum(peaks),
        "joules": None,
        "members": [len(each["samples"]) for each in every],
    }
