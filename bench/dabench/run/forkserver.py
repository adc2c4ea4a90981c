"""A process that has torch imported and forks a fresh worker per launch.

Started as ``python -m dabench.run.forkserver CONTROL_FD``. Importing torch takes
seconds and forking milliseconds; each fork has its own memory, threads and,
where it uses one, GPU context, because the server itself never touches them.
Where a fork is not safe (macOS; Metal and XLA) a worker is a new interpreter.

Not `multiprocessing`'s fork server: that one imports the caller's main module
into every child, which runs a user's script again if it has no main guard.

A worker leads a process group of its own. When the worker ends, the server kills
the group and every other process the worker left behind: a launch must not share
the machine with what a factory or a compiler forked in the one before.

Protocol on the control socket: the client sends the request as one line of JSON, with two
file descriptors attached: a result socket and the client's standard error. The request's
``place`` holds the folder and the environment variables that the worker is to run with. The
server answers ``{"pid": ...}`` when the worker runs and ``{"exit": status}`` when it is gone;
status is the exit code or, negative, the signal. The worker writes its messages, a line of
JSON each, to the result socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import psutil

from dabench.base.errors import DabenchError
from dabench.plan.variants import EXPORTED
from dabench.run.worker import handle

CHUNK = 1 << 20

_ALWAYS = ("torch", "dabench.device.registry", "dabench.network.workload")
_MODULES = {
    "count": "dabench.counting.counts",
    "layers": "dabench.profiling.layers",
    "ceilings": "dabench.profiling.kernels",
}

NOT_FORKABLE = ("mps", "xla")
"""Devices whose libraries do not survive a fork."""

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def may_fork(device: str) -> bool:
    """Whether a worker for a device may be a fork of a process that has torch imported.

    On macOS nothing may run between a fork and an exec: Apple's frameworks end such a child.
    """
    return platform.system() != "Darwin" and device.partition(":")[0] not in NOT_FORKABLE


def serve(control: socket.socket) -> None:
    """Answers requests until the client hangs up.

    Nothing is collected meanwhile, but in the forks: it would take a fifth of all imports.
    """
    gc.disable()
    if may_fork("cpu"):
        for module in _ALWAYS:
            importlib.import_module(module)
    _adopt_orphans()
    ended = _ChildEnds()
    while True:
        try:
            line, fds, _, _ = socket.recv_fds(control, CHUNK, 2)
        except ConnectionResetError:
            return  # the client was ended with an answer unread
        while line and not line.endswith(b"\n"):
            # A request holds an environment: the kernel may deliver it in pieces.
            more = control.recv(CHUNK)
            line = line + more if more else b""
        if not line:
            return
        request = json.loads(line)
        device = request.get("case", request).get("device", "")
        if may_fork(device):
            _preload(request)
            # Without this every fork's first collection would visit, and so copy,
            # all objects of torch: a tenth of a second.
            gc.freeze()
            pid = _fork(request, fds, control, ended)
        else:
            pid = _spawn(request, fds)
        for fd in fds:
            os.close(fd)
        _await(pid, control, ended)


class _ChildEnds:
    """Becomes readable when a child ends: the process is waited for, not the end of a pipe.

    A pipe stays open as long as anything that the child forked holds it.
    """

    def __init__(self) -> None:
        self._read, write = socket.socketpair()
        self._read.setblocking(False)
        write.setblocking(False)
        self._write = write
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def fileno(self) -> int:
        """For select."""
        return self._read.fileno()

    def clear(self) -> None:
        """Forgets those that ended so far."""
        with contextlib.suppress(BlockingIOError):
            while self._read.recv(4096):
                pass

    def forget(self) -> None:
        """In a forked child: its own children are its own business."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._read.close()
        self._write.close()


def _adopt_orphans() -> None:
    """Makes this process the parent of what its workers leave behind (Linux)."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _preload(request: dict[str, Any]) -> None:
    """Imports here, once, what every fork would otherwise import for itself.

    Nothing but imports: a process that has as much as asked for GPUs, as tensors without
    data do, has forks in which CUDA does not start.
    """
    kind, case = request["kind"], request.get("case", {})
    if module := _MODULES.get(kind):
        importlib.import_module(module)
    # Torch's compiler, two seconds' work, is what the first tensor without data, the first step
    # of any optimiser and exporters take too. Not what it generates code with: importing that
    # asks for GPUs in some versions of torch.
    stepping = {"optimizer", "total"} & set(case.get("phases", ()))
    compiled = case.get("compile", "off") != "off" or case.get("runtime") in EXPORTED
    if kind == "count" or stepping or compiled:
        importlib.import_module("torch._dynamo")
    if case.get("runtime") in EXPORTED:
        for module in importlib.import_module("dabench.network.runtimes").EXPORTER:
            # What is not installed is said where it is used.
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


def _fork(
    request: dict[str, Any], fds: Sequence[int], control: socket.socket, ended: _ChildEnds
) -> int:
    pid = os.fork()
    if pid == 0:
        gc.enable()
        os.setpgid(0, 0)
        control.close()
        ended.forget()
        _print_to(fds[1])
        _work(request, fds[0])
    # Here too: whoever comes first, the group is there when it must be ended.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    return pid


def _print_to(fd: int) -> None:
    """Sends what a worker prints where its client wants it, and nothing to our own output."""
    for stream in (1, 2):
        os.dup2(fd, stream)


def _go_to(place: dict[str, Any]) -> None:
    """Takes over the client's folder, where modules are looked for first, and its environment.

    Raises:
        DabenchError: The folder is gone, or closed to us.
    """
    try:
        os.chdir(place["folder"])
    except OSError as error:
        raise DabenchError(f"cannot work in {place['folder']}: {error.strerror}") from None
    if not sys.flags.safe_path:
        # Of `python -m`: the folder in which the server was started.
        sys.path[0] = place["folder"]
    os.environ.clear()
    os.environ.update(place["environment"])


def _spawn(request: dict[str, Any], fds: Sequence[int]) -> int:
    """Starts a new interpreter that answers the request."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "dabench.run.forkserver", "--worker", str(fds[0])],
        stdin=subprocess.PIPE,
        stdout=fds[1],
        stderr=fds[1],
        env=request["place"]["environment"],
        pass_fds=[fds[0]],
        process_group=0,
    )
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError), worker.stdin:
        worker.stdin.write(json.dumps(request).encode())
    # Waited for by its number, like a fork.
    worker.returncode = 0
    return worker.pid


def _await(pid: int, control: socket.socket, ended: _ChildEnds) -> None:
    """Waits for a worker's end and sees that nothing of it is left."""
    try:
        _answer(control, {"pid": pid})
        status = _status(pid, control, ended)
    except BrokenPipeError:
        # The client went while the worker began: nobody wants this result.
        _end_group(pid)
        os.waitpid(pid, 0)
        _end_rest()
        raise
    _end_group(pid)
    _end_rest()
    _answer(control, {"exit": os.waitstatus_to_exitcode(status)})


def _status(pid: int, control: socket.socket, ended: _ChildEnds) -> int:
    while True:
        ready, _, _ = select.select([ended.fileno(), control.fileno()], [], [])
        if control.fileno() in ready:
            # The client spoke out of turn or hung up: nobody wants this result.
            _end_group(pid)
            return os.waitpid(pid, 0)[1]
        ended.clear()
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _end_rest() -> None:
    """Ends what left the group (daemons), and waits for all that was ended."""
    delay_s = 0.001
    with contextlib.suppress(ChildProcessError):
        while True:
            # Again and again: one that is about to fork may be faster than we are.
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.1)


def _answer(control: socket.socket, document: dict[str, Any]) -> None:
    control.sendall(json.dumps(document).encode() + b"\n")


def _work(request: dict[str, Any], result_fd: int) -> NoReturn:
    """Answers the request and leaves without clean-up."""
    code = 1
    try:
        with socket.socket(fileno=result_fd) as results:

            def send(message: dict[str, Any]) -> None:
                results.sendall(json.dumps(message).encode() + b"\n")

            try:
                _go_to(request.pop("place"))
            except DabenchError as error:
                send({"kind": "failed", "status": "error", "reason": str(error)})
            else:
                handle(request, send)
        code = 0
    except BrokenPipeError:
        code = 0
    finally:
        sys.stderr.flush()
        # Skips destructors and atexit handlers that belong to the server.
        os._exit(code)


def main() -> None:
    """Serves on the socket whose descriptor is the first argument.

    ``--worker FD`` answers the one request on standard input instead (`_spawn`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1] == "--worker":
        _work(json.load(sys.stdin), int(sys.argv[2]))
    with socket.socket(fileno=int(sys.argv[1])) as control, contextlib.suppress(BrokenPipeError):
        serve(control)
    # Skips the destructors of the libraries loaded for the forks.
    os._exit(0)


if __name__ == "__main__":
    main()
