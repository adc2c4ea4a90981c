"""The parent's side of worker processes: start, listen, time out, end."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from dabench.base.errors import DabenchError

Message = dict[str, Any]

_ENDED_BY_US = "timeout"
_LONGEST_WAIT_S = 86_400.0  # more does not fit what select takes


class Launcher:
    """Runs requests in fresh processes, one at a time; a context manager.

    The server that forks them starts when the object is made, so that its
    import of torch overlaps with the caller's own preparations.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dabench.run.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # What libraries print in a worker must not mix with our own output.
                stdout=2,
                # A terminal's Ctrl-C must reach the parent alone.
                start_new_session=True,
            )
        self._control = ours
        self._answers = ours.makefile("rb")

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
        """Ends the server and with it any worker."""
        self._answers.close()
        self._control.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

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
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._send(request, theirs)
            pid = self._answer()["pid"]
            try:
                last = _listen(ours, receive, time.monotonic() + timeout_s)
            except BaseException:
                # Ctrl-C, or a full disk in `receive`: the worker must not outlive it.
                _kill(pid)
                self._answer()
                raise
            if last is not None and last.get("status") == _ENDED_BY_US:
                _kill(pid)
                last["reason"] = f"took longer than the limit of {timeout_s:g} s"
        exit_code = self._answer()["exit"]
        return last if last is not None else _death(exit_code)

    def _send(self, request: Message, results: socket.socket) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [results.fileno()])
        except OSError as error:
            raise self._gone() from error

    def _answer(self) -> Message:
        try:
            line = self._answers.readline()
        except OSError as error:
            raise self._gone() from error
        if not line:
            raise self._gone()
        answer: Message = json.loads(line)
        return answer

    def _gone(self) -> DabenchError:
        code = self._process.wait(timeout=10)
        return DabenchError(
            f"the process that starts workers ended with exit code {code}; "
            f"'{sys.executable} -c \"import torch\"' may say why"
        )


def _listen(
    results: socket.socket, receive: Callable[[Message], None], deadline: float
) -> Message | None:
    """Reads messages to the last one; None if the worker died before it."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(results, selectors.EVENT_READ)
        while True:
            left = max(deadline - time.monotonic(), 0)
            if not selector.select(min(left, _LONGEST_WAIT_S)):
                if time.monotonic() < deadline:
                    continue
                return {"kind": "failed", "status": _ENDED_BY_US, "reason": ""}
            chunk = results.recv(1 << 16)
            if not chunk:
                return None
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                message: Message = json.loads(line)
                if message["kind"] in ("done", "failed"):
                    return message
                receive(message)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _death(exit_code: int) -> Message:
    if exit_code >= 0:
        reason = f"the worker ended with exit code {exit_code} and no result"
    else:
        reason = f"the worker was ended by {signal.Signals(-exit_code).name}"
        if -exit_code == signal.SIGKILL:
            reason += " (the system kills so when memory runs out)"
    return {"kind": "failed", "status": "crashed", "reason": reason}
