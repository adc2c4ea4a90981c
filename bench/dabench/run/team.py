"""Several processes that run the same case on one device at once.

One leads: it tells the others when to begin and when all have their samples. They
speak through pipes alone, whose ends close with a process however that ends: none
waits for one that is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from dabench.base.errors import DabenchError, DiedError
from dabench.timing.engine import TimedDevice, Work

Message = dict[str, Any]

_READY, _GO, _DONE, _STOP = "ready", "go", "done", "stop"
FAREWELL_S = 5.0
"""So long a process whose pipe is closed may take to end."""


class Team(Protocol):
    """One process's view of its team.

    Attributes:
        pids: The other processes, where this is the one that leads them.
    """

    pids: Sequence[int]

    def begin(self) -> None:
        """Returns when all have warmed up: they begin together.

        Raises:
            DabenchError: Another one has failed.
        """

    def end(self, work: Work, device: TimedDevice) -> None:
        """Goes on without timing until all have their samples: nobody's last ones run alone.

        Raises:
            DabenchError: Another one has failed.
        """


class Leader:
    """The process that leads; a `Team`."""

    def __init__(self, others: Sequence[tuple[BaseProcess, Connection]]) -> None:
        self.pids: Sequence[int] = [each.pid for each, _ in others if each.pid is not None]
        self._others = others

    def begin(self) -> None:
        """Waits until all are ready, then tells them to go."""
        for other in self._others:
            _expect(_READY, *other)
        self._tell(_GO)

    def end(self, work: Work, device: TimedDevice) -> None:
        """Runs passes until all are done, then tells them to stop."""
        left = list(self._others)
        while left:
            for other in [each for each in left if each[1].poll()]:
                _expect(_DONE, *other)
                left.remove(other)
            if left:
                _pass(work, device)
        self._tell(_STOP)

    def gather(self) -> list[list[Message]]:
        """The messages of all others.

        Raises:
            DabenchError: One has failed.
        """
        return [_expect(None, *other) for other in self._others]

    def _tell(self, word: str) -> None:
        for process, end in self._others:
            try:
                end.send(word)
            except OSError:
                raise _death(process) from None


class Follower:
    """One of the others; a `Team`."""

    pids: Sequence[int] = ()

    def __init__(self, end: Connection) -> None:
        self._end = end

    def begin(self) -> None:
        """Says that it is ready, and waits to be told to go."""
        self._end.send(_READY)
        self._end.recv()

    def end(self, work: Work, device: TimedDevice) -> None:
        """Says that it is done, and runs passes until it is told to stop."""
        self._end.send(_DONE)
        while not self._end.poll():
            _pass(work, device)
        self._end.recv()


Member = Callable[[Message, Team], list[Message]]
"""Does what a request asks for as one of a team; the messages that came of it."""


@contextlib.contextmanager
def team_of(requests: Sequence[Message], member: Member) -> Iterator[Leader]:
    """Starts the others of a team; they end with this context.

    Args:
        requests: What each of the others does.
        member: How they do it; importable, since they may start from nothing.
    """
    # A process that has run torch's kernels must not fork, and no worker has at this point. On
    # macOS none may.
    kind = "fork" if sys.platform == "linux" else "spawn"
    context: Any = multiprocessing.get_context(kind)
    others: list[tuple[BaseProcess, Connection]] = []
    try:
        for request in requests:
            ours, theirs = context.Pipe()
            other = context.Process(target=_other, args=(member, request, theirs), daemon=True)
            other.start()
            theirs.close()
            others.append((other, ours))
        yield Leader(others)
    finally:
        for other, end in others:
            other.kill()
            other.join()
            end.close()


def _other(member: Member, request: Message, end: Connection) -> None:
    """What the others of a team run."""
    # Where the one that leads is gone there is nobody to tell.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            end.send(member(request, Follower(end)))
        except Exception as error:
            end.send(error if isinstance(error, DabenchError) else DabenchError(_said(error)))
            raise


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _expect(word: str | None, process: BaseProcess, end: Connection) -> list[Message]:
    """Reads what another process says.

    Args:
        word: What it should say; None are its messages.
        process: Which.
        end: Its pipe.

    Raises:
        DabenchError: It says why it failed, or nothing any more.
    """
    try:
        said = end.recv()
    except (EOFError, OSError):
        raise _death(process) from None
    if isinstance(said, DabenchError):
        raise DabenchError(f"one of the processes that run at once failed: {said}")
    assert word is None or said == word
    messages: list[Message] = said if word is None else []
    return messages


def _death(process: BaseProcess) -> DiedError:
    """How another process ended that says nothing any more."""
    process.join(FAREWELL_S)
    code = process.exitcode
    how = f"with exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
    return DiedError(f"one of the processes that run at once was ended by {how}")


def _pass(work: Work, device: TimedDevice) -> None:
    """One pass that nobody times."""
    work.prepare()
    work.run()
    device.synchronize()
    work.release()


def merged(own: Message, others: Sequence[Message]) -> Message:
    """One phase of a team: all samples, the slowest's time, memory and processor time in sum."""
    every = [own, *others]
    peaks = [each["peak_bytes"] for each in every]
    stops = {each["stop"] for each in every}
    return {
        **own,
        **{
            kind: [sample for each in every for sample in each[kind]]
            for kind in ("warmup", "samples", "alone")
        },
        "steady": all(each["steady"] for each in every),
        "stop": own["stop"] if len(stops) == 1 else "gave up",
        "spent_s": max(each["spent_s"] for each in every),
        "cpu_s": sum(each["cpu_s"] for each in every),
        "system_s": sum(each["system_s"] for each in every),
        "peak_bytes": None if None in peaks else sum(peaks),
        "joules": None,
        "members": [len(each["samples"]) for each in every],
    }
