"""What a process is told by who started it beside others: ``torchrun``, or ``train --nproc``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
        job: What torchrun calls all of them, the same after a restart; None without torchrun.
        restarts: How often all were started again.
        folder: Of the run, where dabench started them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    job: str | None = None
    restarts: int = 0
    folder: Path | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Started:
        """Reads torch's variables; a process that has none is alone.

        Raises:
            UsageError: One is not a number.
        """
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
            return cls()

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
            job=environment.get("TORCHELASTIC_RUN_ID"),
            restarts=number("TORCHELASTIC_RESTART_COUNT", 0),
            folder=None if folder is None else Path(folder),
        )
