"""Several processes that run the same case on one device at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from dabench.base.errors import DabenchError
from dabench.timing.engine import TimedDevice, Work

Message = dict[str, Any]
Member = Callable[[Message, "Team"], list[Message]]
"""Does what a request asks for as one of a team; the messages that came of it."""

MEETING_S = 600.0
"""So long processes wait for each other: building and compiling take their time."""


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
        import threading

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
    try:
        yield team, lambda: _gathered(ends)
    except BaseException as error:
        team.fail()
        failure = None if not isinstance(error, DabenchError) else _failure(ends)
        if failure is not None:
            raise failure from error
        raise
    finally:
        for other in others:
            other.kill()
            other.join()


def _other(member: Member, request: Message, team: Team, results: Connection) -> None:
    """What the others of a team run."""
    try:
        results.send(member(request, team))
    except BaseException as error:
        team.fail()
        results.send(f"{type(error).__name__}: {error}")
        raise


def _gathered(ends: Sequence[Connection]) -> list[list[Message]]:
    """The messages of all others.

    Raises:
        DabenchError: One has failed.
    """
    found = []
    for each in ends:
        try:
            answer = each.recv()
        except EOFError:
            answer = "it ended without a result"
        if isinstance(answer, str):
            raise DabenchError(f"one of the processes that run at once failed: {answer}")
        found.append(answer)
    return found


def _failure(ends: Sequence[Connection]) -> DabenchError | None:
    """Why another one failed first, should one have said so."""
    for each in ends:
        with contextlib.suppress(EOFError):
            if each.poll(1.0) and isinstance(answer := each.recv(), str):
                return DabenchError(f"one of the processes that run at once failed: {answer}")
    return None


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
