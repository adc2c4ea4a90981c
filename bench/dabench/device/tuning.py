"""What would quiet a machine: what a process may do for itself, and what only root may.

Nothing here changes the machine for others: cores and threads are those of this
process and its children, and what outlives a process is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PINNED: Mapping[str, str] = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
"""Keeps threads of CPU kernels where they are, in workers started from now on."""

BUSY_SHARE = 0.05
"""From this share of a core on another program is named."""

WATCH_S = 1.0

_CPU = Path("sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that makes times scatter.

    Attributes:
        what: Its name.
        found: How it is.
        how: What mends it: a command for whoever may, or words; empty if it is well.
        ours: Whether this process does it for itself.
    """

    what: str
    found: str
    how: str = ""
    ours: bool = False


def whole_cores(root: Path = Path("/"), usable: Sequence[int] | None = None) -> list[int]:
    """One of the hardware threads of each core that may be used, in order.

    Two threads of a core share its arithmetic: what runs on both depends on how the system
    places them.

    Args:
        root: Of the file system.
        usable: Those that may be used; None asks.
    """
    threads = _usable() if usable is None else usable
    seen: set[str] = set()
    cores = []
    for thread in threads:
        siblings = _read(root / _CPU / f"cpu{thread}/topology/thread_siblings_list") or str(thread)
        if siblings not in seen:
            seen.add(siblings)
            cores.append(thread)
    return cores


def advise(
    gpus: Sequence[str],
    root: Path = Path("/"),
    busy: Callable[[], list[tuple[str, int, float]]] | None = None,
) -> list[Advice]:
    """What there is to say of this machine.

    Args:
        gpus: Names of its NVIDIA GPUs.
        root: Of the file system.
        busy: Other programs (name, id, share of a core); None looks for a second.
    """
    found = [_pinning(root), _governor(root), _boost(root)]
    found += [
        Advice(
            "GPU clocks",
            f"{name}: they follow heat and load",
            f"sudo nvidia-smi -i {index} -pm 1; sudo nvidia-smi -i {index} --lock-gpu-clocks=BASE",
        )
        for index, name in enumerate(gpus)
    ]
    others = (busy or busy_programs)()
    found += [
        Advice("other programs", f"{name} ({pid}) uses {share:.0%} of a core", "end or pause it")
        for name, pid, share in others
    ]
    if not others:
        found.append(Advice("other programs", f"none uses over {BUSY_SHARE:.0%} of a core"))
    return found


def _pinning(root: Path) -> Advice:
    threads, cores = _usable(), whole_cores(root)
    if not threads:
        return Advice("pinning", "this system keeps no process on chosen cores")
    found = f"{len(threads)} hardware threads on {len(cores)} cores; threads move freely"
    return Advice("pinning", found, pinned_command(cores), ours=True)


def pinned_command(cores: Sequence[int]) -> str:
    """What to put before a command, so that it runs as `pinned` does."""
    variables = " ".join(f"{name}={value}" for name, value in PINNED.items())
    return f"{variables} taskset -c {','.join(map(str, cores))}"


def _governor(root: Path) -> Advice:
    governor = _read(root / _CPU / "cpu0/cpufreq/scaling_governor")
    if governor is None:
        return Advice("governor", "the system does not say; a virtual machine cannot choose")
    how = "" if governor == "performance" else "sudo cpupower frequency-set -g performance"
    return Advice("governor", governor, how)


def _boost(root: Path) -> Advice:
    boost = _read(root / _CPU / "cpufreq/boost")
    no_turbo = _read(root / _CPU / "intel_pstate/no_turbo")
    if boost == "1":
        return Advice(
            "boost", "on: clocks depend on heat", f"echo 0 | sudo tee /{_CPU}/cpufreq/boost"
        )
    if no_turbo == "0":
        how = f"echo 1 | sudo tee /{_CPU}/intel_pstate/no_turbo"
        return Advice("boost", "on: clocks depend on heat", how)
    known = boost is not None or no_turbo is not None
    return Advice("boost", "off" if known else "the system does not say")


def busy_programs(watch_s: float = WATCH_S) -> list[tuple[str, int, float]]:
    """Programs other than this one and its children that use a core: name, id and share of it."""
    me = psutil.Process()
    ours = {me.pid, *(child.pid for child in me.children(recursive=True))}
    watched = [process for process in psutil.process_iter() if process.pid not in ours]
    for process in watched:
        _share(process)  # the first answer is of nothing
    psutil.cpu_percent(interval=watch_s)
    shares = [(process, _share(process)) for process in watched]
    found = []
    for process, share in sorted(shares, key=lambda each: -each[1]):
        if share > BUSY_SHARE:
            try:
                found.append((process.name(), process.pid, share))
            except psutil.Error:
                continue
    return found


def _share(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent()) / 100
    except psutil.Error:
        return 0.0


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Runs this process and the workers it starts on some cores, their threads in place."""
    affinity: Any = getattr(os, "sched_setaffinity", None)
    before = _usable()
    variables = {name: os.environ.get(name) for name in PINNED}
    os.environ.update(PINNED)
    if affinity is not None:
        affinity(0, cores)
    try:
        yield
    finally:
        if affinity is not None:
            affinity(0, before)
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _usable() -> list[int]:
    """Hardware threads that this process may use; empty where no process can choose."""
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return [] if affinity is None else sorted(affinity(0))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
