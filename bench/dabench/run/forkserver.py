"""A process that has torch imported and forks a fresh worker per launch.

Started as ``python -m dabench.run.forkserver CONTROL_FD``. Importing torch takes
seconds and forking milliseconds; each fork has its own memory, threads and,
where it uses one, GPU context, because the server itself never touches them.

Not `multiprocessing`'s fork server: that one imports the caller's main module
into every child, which runs a user's script again if it has no main guard.

Protocol on the control socket: the client sends one line of JSON with a result
socket attached; the server answers ``{"pid": ...}`` when the worker runs and
``{"exit": status}`` when it is gone, status being the exit code or, negative,
the signal. The worker writes its messages, a line of JSON each, to the result
socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from dabench.run.worker import handle

MAX_REQUEST = 1 << 20

_MODULES = {
    "count": "dabench.counting.counts",
    "layers": "dabench.profiling.layers",
    "ceilings": "dabench.profiling.kernels",
}

NOT_FORKABLE = ("mps", "xla")
"""Devices whose libraries do not survive a fork: their workers start afresh."""


def serve(control: socket.socket) -> None:
    """Answers requests until the client hangs up."""
    for module in ("torch", "dabench.device", "dabench.network.workload"):
        importlib.import_module(module)
    while True:
        line, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, 1)
        if not line:
            return
        request = json.loads(line)
        _preload(request)
        # Without this every fork's first collection would visit, and so copy,
        # all objects of torch: a tenth of a second.
        gc.freeze()
        _launch(request, fds[0], control)


def _preload(request: dict[str, Any]) -> None:
    """Imports here, once, what every fork would otherwise import for itself."""
    if module := _MODULES.get(request["kind"]):
        importlib.import_module(module)
    # The first step of any optimiser imports torch's compiler, a second's work.
    if {"optimizer", "total"} & set(request.get("case", {}).get("phases", ())):
        importlib.import_module("torch._dynamo")


def _launch(request: dict[str, Any], result_fd: int, control: socket.socket) -> None:
    # The child holds the write end until it dies, which is how its death shows.
    alive_read, alive_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(alive_read)
        control.close()
        device = request.get("case", request).get("device", "")
        if device.partition(":")[0] in NOT_FORKABLE:
            _start_afresh(request, result_fd, alive_write)
        _work(request, result_fd)
    os.close(alive_write)
    os.close(result_fd)
    try:
        _answer(control, {"pid": pid})
    except BrokenPipeError:
        # The client went while the worker began: nobody wants this result.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    waiting: list[int] = [alive_read, control.fileno()]
    ready, _, _ = select.select(waiting, [], [])
    if alive_read not in ready:
        # The client spoke out of turn or hung up: nobody wants this result.
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(alive_read)
    _answer(control, {"exit": os.waitstatus_to_exitcode(status)})


def _answer(control: socket.socket, document: dict[str, Any]) -> None:
    control.sendall(json.dumps(document).encode() + b"\n")


def _start_afresh(request: dict[str, Any], *keep_open: int) -> NoReturn:
    """Replaces the forked child by a new interpreter that answers the request."""
    for fd in keep_open:
        os.set_inheritable(fd, True)
    arguments = ["--worker", str(keep_open[0]), json.dumps(request)]
    os.execv(sys.executable, [sys.executable, "-m", "dabench.run.forkserver", *arguments])


def _work(request: dict[str, Any], result_fd: int) -> NoReturn:
    """Runs in the child: answers the request and leaves without clean-up."""
    code = 1
    try:
        with socket.socket(fileno=result_fd) as results:
            handle(request, lambda message: results.sendall(json.dumps(message).encode() + b"\n"))
        code = 0
    except BrokenPipeError:
        code = 0
    finally:
        sys.stderr.flush()
        # Skips destructors and atexit handlers that belong to the server.
        os._exit(code)


def main() -> None:
    """Serves on the socket whose descriptor is the first argument.

    ``--worker FD REQUEST`` answers one request instead (`_start_afresh`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1] == "--worker":
        _work(json.loads(sys.argv[3]), int(sys.argv[2]))
    with socket.socket(fileno=int(sys.argv[1])) as control, contextlib.suppress(BrokenPipeError):
        serve(control)
    # Skips the destructors of the libraries loaded for the forks.
    os._exit(0)


if __name__ == "__main__":
    main()
