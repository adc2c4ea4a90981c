"""The parent's side of worker processes: start, listen, time out, end."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dabench.base.errors import DabenchError

Message = dict[str, Any]

SERVE = ("-m", "dabench.run.forkserver")
"""What Python is to run as the process that forks workers."""

_ENDED_BY_US = "timeout"
_LONGEST_WAIT_S = 86_400.0  # more does not fit what select takes


# What shells and pytest change as they go, and no library reads.
_OF_THE_MOMENT = ("PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES")
# Nor what begins so; ours are sent with each request.
_OF_NO_LIBRARY = ("DABENCH_", "PYTEST_")


def _circumstances() -> tuple[Mapping[str, str], frozenset[int]]:
    """What a process keeps from its start: variables that libraries read once, and its cores."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_THE_MOMENT and not name.startswith(_OF_NO_LIBRARY)
    }
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return ours, frozenset(affinity(0) if affinity is not None else ())


class _Server:
    """The process that forks workers (`dabench.run.forkserver`), and the socket to ask it by.

    Attributes:
        circumstances: In which it was started.
        answered: What it has said and nobody read yet.
    """

    def __init__(self) -> None:
        self.circumstances = _circumstances()
        self.answered = b""
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *SERVE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # What libraries print in a worker must not mix with our own output.
                stdout=2,
                # A terminal's Ctrl-C must reach the parent alone.
                start_new_session=True,
            )

    def end(self) -> None:
        """Ends it and with it any worker."""
        self.control.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_idle: list[_Server] = []
"""At most one: importing torch takes seconds, and the next run of this process needs it again."""


def _taken() -> _Server | None:
    """The idle server, if it will do."""
    try:
        server = _idle.pop()
    except IndexError:
        return None
    if server.circumstances == _circumstances() and server.process.poll() is None:
        return server
    server.end()
    return None


def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


def _forget_idle() -> None:
    """In a fork of this process: the server answers one client."""
    while _idle:
        _idle.pop().control.close()


atexit.register(_end_idle)
os.register_at_fork(after_in_child=_forget_idle)


class Launcher:
    """Runs requests in fresh processes, one at a time; a context manager.

    The server that forks them starts when the object is made, so that its
    import of torch overlaps with the caller's own preparations. It stays for
    the next launcher of this process, unless the environment or the cores that
    may be used have changed since.
    """

    def __init__(self) -> None:
        self._server = _taken() or _Server()
        self._busy = self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the server back, or ends it where a request is not answered."""
        if self._closed:
            return
        self._closed = True
        if self._busy or _idle:
            self._server.end()
        else:
            _idle.append(self._server)

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Runs one request to its end.

        Args:
            request: For `dabench.run.worker.handle`.
            receive: Called with each message but the last.
            timeout_s: After which the worker is killed.

        Returns:
            The last message: ``{"kind": "done"}``, or ``failed`` with status
            and reason, also for a worker that crashed, was killed or timed out.

        Raises:
            DabenchError: The server itself is gone.
        """
        assert not self._closed
        try:
            # The server may have been started elsewhere, by an earlier run of this process.
            place = {"folder": str(Path.cwd()), "environment": dict(os.environ)}
        except FileNotFoundError:
            raise DabenchError("the working folder is gone; change to one that exists") from None
        self._busy = True
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._send({**request, "place": place}, theirs)
            pid = self._answer()["pid"]
            try:
                last = self._listen(ours, receive, time.monotonic() + timeout_s)
            except BaseException:
                # Ctrl-C, or a full disk in `receive`: the worker must not outlive it.
                _kill(pid)
                self._answer()
                self._busy = False
                raise
            if last is not None and last.get("status") == _ENDED_BY_US:
                _kill(pid)
                last["reason"] = f"took longer than the limit of {timeout_s:g} s"
        exit_code = self._answer()["exit"]
        self._busy = False
        return last if last is not None else _death(exit_code)

    def _listen(
        self, results: socket.socket, receive: Callable[[Message], None], deadline: float
    ) -> Message | None:
        """Reads messages to the last one; None if the worker ended without it."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(results, selectors.EVENT_READ)
            selector.register(self._server.control, selectors.EVENT_READ)
            while True:
                left = max(deadline - time.monotonic(), 0)
                ready = {key.fileobj for key, _ in selector.select(min(left, _LONGEST_WAIT_S))}
                if not ready:
                    if time.monotonic() < deadline:
                        continue
                    return {"kind": "failed", "status": _ENDED_BY_US, "reason": ""}
                # What the worker forked may hold its socket open: only its own end counts, and
                # that is what the server speaks of. Messages sent before it are read first.
                if results not in ready:
                    return None
                chunk = results.recv(1 << 16)
                if not chunk:
                    return None
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    message: Message = json.loads(line)
                    if message["kind"] in ("done", "failed"):
                        return message
                    receive(message)

    def _send(self, request: Message, results: socket.socket) -> None:
        line = json.dumps(request).encode() + b"\n"
        try:
            # With it, where libraries print to in a worker: our standard error of the moment.
            sent = socket.send_fds(self._server.control, [line], [results.fileno(), _stderr()])
            self._server.control.sendall(line[sent:])
        except OSError as error:
            raise self._gone() from error

    def _answer(self) -> Message:
        while b"\n" not in self._server.answered:
            try:
                chunk = self._server.control.recv(4096)
            except OSError as error:
                raise self._gone() from error
            if not chunk:
                raise self._gone()
            self._server.answered += chunk
        line, _, self._server.answered = self._server.answered.partition(b"\n")
        answer: Message = json.loads(line)
        return answer

    def _gone(self) -> DabenchError:
        code = self._server.process.wait(timeout=10)
        return DabenchError(
            f"the process that starts workers ended with exit code {code}; "
            f"'{sys.executable} -c \"import torch\"' may say why"
        )


def _stderr() -> int:
    """Standard error; where it was closed, one that nobody reads."""
    try:
        os.fstat(2)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return 2


def _kill(pid: int) -> None:
    """Ends a worker and its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _death(exit_code: int) -> Message:
    if exit_code >= 0:
        reason = f"the worker ended with exit code {exit_code} and no result"
    else:
        reason = f"the worker was ended by {signal.Signals(-exit_code).name}"
        if -exit_code == signal.SIGKILL:
            reason += " (the system kills so when memory runs out)"
    return {"kind": "failed", "status": "crashed", "reason": reason}
