"""What a process is told by who started it beside others: ``torchrun``, or ``train --nproc``."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from dabench.base.errors import UsageError

FOLDER = "DABENCH_TRAIN_FOLDER"
"""The environment variable that names the run's folder to processes that dabench starts itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """This process among those that were started together.

    Attributes:
        rank: Its number, from 0.
        size: How many there are, on all machines.
        local_rank: Its number on its machine.
        local_size: How many there are on it.
        job: Which process started it, and since when that runs: the same after a restart, and never
            the same for two trainings; None without torchrun.
        folder: Of the run, where dabench started them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    job: str | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Started:
        """Reads torch's variables; a process that has none is alone.

        Raises:
            UsageError: One is not a number, or missing.
        """
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
            return cls()
        if environment["WORLD_SIZE"] != "1":
            for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
                if name not in environment:
                    raise UsageError(f"{name} is missing in the environment; torchrun sets it")

        def number(name: str, otherwise: int) -> int:
            text = environment.get(name)
            if text is None:
                return otherwise
            if not text.isdecimal():
                raise UsageError(f"{name}: {text!r} is not a number; torchrun sets it")
            return int(text)

        size = number("WORLD_SIZE", 1)
        folder = environment.get(FOLDER)
        return cls(
            rank=number("RANK", 0),
            size=size,
            local_rank=number("LOCAL_RANK", 0),
            local_size=number("LOCAL_WORLD_SIZE", size),
            job=_launcher() if "TORCHELASTIC_RUN_ID" in environment else None,
            folder=None if folder is None else Path(folder),
        )


def end_with_launcher(interval_s: float = 1.0) -> None:
    """From now on this process ends when the one that started it is gone, even by kill -9.

    It would train on otherwise, with nobody to tell, and hold the run that is to be resumed.

    Args:
        interval_s: Between two looks.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(interval_s)
        # No matter what the other threads wait for; what is recorded is kept.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _launcher() -> str:
    """The process that started this one: its machine, number and when it was started itself."""
    process = psutil.Process(os.getppid())
    return f"{platform.node()} {process.pid} {process.create_time():.2f}"
