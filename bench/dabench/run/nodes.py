"""What runs on a machine of a cluster: it describes itself, and launches workers as at home.

Called by Ray's workers; imports nothing of Ray.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from dabench.device.machine import VARIABLES, describe_host, source_digest
from dabench.plan.networks import identities
from dabench.plan.variants import PACKAGES, is_installed
from dabench.run.launcher import Launcher
from dabench.run.session import probe

Message = dict[str, Any]

_PATHS = ("scratch", "exports")
"""Of a request: folders that are named by the client, and lie here."""

_RAYS_OWN = ("LD_PRELOAD", "MALLOC_CONF")
"""Variables that Ray changes for its own processes, and puts right for its workers."""

_LOCK = Path("/", "tmp", "dabench-measuring.lock")
"""Of a host, whatever folder its users have: several nodes may run on it, of several clusters."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")

_FOLDERS = "dabench-node-"
"""Begins the names of folders for what compilers and exporters write, one for each process."""

_own: list[tuple[Path, int]] = []
"""At most one: this process's, and the lock that it has on it."""


def describe(networks: Sequence[str]) -> Message:
    """This machine, and what networks from outside are here.

    Returns:
        ``environment``, as of a run here, ``host``, what all that run on this machine share,
        containers too, ``sources``, a digest of dabench, ``installed``, those of `PACKAGES` that
        are here, and ``networks``: `identities` of those asked for.

    Raises:
        UsageError: The source of one is not here.
        DabenchError: No worker could be started.
    """
    as_started()
    with _host_alone(), Launcher() as launcher:
        return {
            "environment": describe_host() | probe(launcher),
            "host": _BOOT.read_text().strip() if _BOOT.exists() else platform.node(),
            "sources": source_digest(),
            "installed": [package for package in PACKAGES if is_installed(package)],
            "networks": identities(networks),
        }


def launch(request: Message, timeout_s: float, node: str) -> list[Message]:
    """Runs one request in a fresh process.

    Args:
        request: For `dabench.run.worker.handle`.
        timeout_s: After which the worker is killed.
        node: What this machine is called, for the record.

    Returns:
        All messages; the first of a case says when it ``ran`` and for how long, waiting for its
        turn apart, the last one is ``done`` or ``failed``.

    Raises:
        DabenchError: The process that starts workers is gone.
    """
    notes = as_started()
    for key in _PATHS:
        if request.get(key):
            request = {**request, key: str(scratch_folder() / Path(request[key]).name)}
    messages: list[Message] = []

    def receive(message: Message) -> None:
        if message["kind"] == "device" and notes:
            device = message["device"]
            message = {**message, "device": {**device, "notes": [*device.get("notes", ()), *notes]}}
        messages.append(message)

    with _host_alone(), Launcher() as launcher:
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        begin = time.monotonic()
        last = launcher.run(request, receive, timeout_s=timeout_s)
    if request["kind"] == "time":
        ran = {"kind": "ran", "started_at": started_at, "seconds": time.monotonic() - begin}
        messages = [ran, {"kind": "device", "device": {"node": node}}, *messages]
    return [*messages, last]


def as_started() -> list[str]:
    """Undoes what Ray does to its workers, which would show in every time.

    It sets torch's threads to the processors that a task claims, hides GPUs that it does not, and
    lowers the priority.

    Returns:
        What could not be undone, in words.
    """
    raylet = psutil.Process(int(os.environ.get("RAY_RAYLET_PID") or os.getppid()))
    theirs = raylet.environ()
    for name in set(VARIABLES) - set(_RAYS_OWN):
        if name in theirs:
            os.environ[name] = theirs[name]
        else:
            os.environ.pop(name, None)
    usual = raylet.nice()
    now = os.getpriority(os.PRIO_PROCESS, 0)
    if now == usual:
        return []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, usual)
    except PermissionError:
        return [f"priority lowered by {now - usual}: start nodes with RAY_worker_niceness={usual}"]
    return []


@contextmanager
def _host_alone() -> Iterator[None]:
    """Waits until nobody else measures or trains on this host for a cluster."""
    with _locked(fcntl.LOCK_EX):
        yield


@contextmanager
def beside_others() -> Iterator[None]:
    """Waits until nobody measures on this host for a cluster; several may train at once."""
    with _locked(fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(how: int) -> Iterator[None]:
    file = _opened(_LOCK)
    try:
        if file is not None:
            # Goes with the process, however that ends.
            fcntl.flock(file, how)
        yield
    finally:
        if file is not None:
            os.close(file)


def _opened(path: Path) -> int | None:
    """A file that all users may lock; None where there is no such folder."""
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CREAT | os.O_EXCL, os.O_RDONLY):
        # Another user's cannot be opened to be created, nor one's own twice.
        with suppress(OSError):
            return os.open(path, flags, 0o644)
    return None


def scratch_folder() -> Path:
    """This process's folder; Ray ends processes without a word, and those before left theirs."""
    if not _own:
        _remove_left_ones()
        folder = Path(tempfile.mkdtemp(prefix=_FOLDERS))
        _own.append((folder, os.open(folder, os.O_RDONLY)))
        fcntl.flock(_own[0][1], fcntl.LOCK_EX)
    return _own[0][0]


def tidy() -> None:
    """Removes this process's folder, and those of processes that are gone."""
    for _, lock in _own:
        os.close(lock)
    _own.clear()
    _remove_left_ones()


def _remove_left_ones() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        # Another user's, or just removed by another process.
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
