"""Training in several processes: starting them, and what each of them does."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dabench.base.errors import DabenchError, DiedError, bad_value
from dabench.base.started import FOLDER, Started, end_with_launcher

if TYPE_CHECKING:
    from dabench.training.world import World


class ProcessError(DabenchError):
    """What one of several processes alone knows."""


@contextlib.contextmanager
def said_once(started: Started) -> Iterator[None]:
    """Of what all processes say one on each machine does; the others end without a word."""
    try:
        yield
    except DabenchError as error:
        if started.local_rank == 0 or isinstance(error, ProcessError):
            raise
        raise typer.Exit(2) from error


def processes_asked(asked: int | None, started: Started) -> int:
    """How many processes are to train together.

    Raises:
        UsageError: Others were started than are asked for.
    """
    if started.size > 1 and asked not in (None, started.size):
        raise bad_value("--nproc", asked, f"torchrun has started {started.size}")
    return started.size if asked is None else asked


@contextlib.contextmanager
def together(started: Started) -> Iterator[World | None]:
    """Joins the processes that were started with this one; None where it is alone.

    Until then nothing of torch is needed.
    """
    if started.size == 1:
        yield None
        return
    if started.folder is not None:
        end_with_launcher()
    from dabench.training.world import OtherProcessError, joined

    try:
        with joined(started) as world:
            yield world
    except (OtherProcessError, DiedError):
        raise
    except DabenchError as error:
        if started.rank == 0:
            raise
        raise ProcessError(f"process {started.rank}: {error}") from error


def command_of(started: Started) -> str:
    """What the user typed, with torchrun where that is what it began with."""
    typed = shlex.join(["dabench", *sys.argv[1:]])
    if started.size == 1 or started.folder is not None:
        return typed
    nodes = started.size // started.local_size
    several = f" --nnodes {nodes}" if nodes > 1 else ""
    return f"torchrun{several} --nproc-per-node {started.local_size} -m {typed}"


def made_once(world: World | None, make: Callable[[], Any]) -> Any:
    """What the first process makes, or the only one; see `World.share`."""
    return make() if world is None else world.share(make)


def start(processes: int, folder: Path) -> int:
    """Runs this command again in so many processes; returns the first one's exit code.

    Torch's own launcher ends the others where one ends badly.

    Args:
        processes: How many.
        folder: Of the run.

    Raises:
        DiedError: One was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What the launcher would say of a process that ends, that process or we say.
    logging.disable()
    os.environ[FOLDER] = str(folder)
    # As torchrun does: a run goes on under either. What a training uses it sets itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        # Else it leaves a folder of empty logs behind.
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    command = ("-m", "dabench", *sys.argv[1:])
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException:
        return 130
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return int(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        raise DiedError(
            f"process {rank} was ended by {name}; 'dabench train --resume {folder}' continues"
        ) from None
    return 0


def cut_off(out: Path | None, started: Started) -> str | None:
    """The folder of the run that was cut off before torchrun started all processes again.

    Args:
        out: As the user named it; else it is found among the runs.
        started: This process.
    """
    from dabench.records.folder import read_run
    from dabench.records.trainings import SUITE

    if started.job is None:
        return None
    folders = sorted(Path("results").glob("*"), reverse=True) if out is None else [out]
    for folder in folders:
        with contextlib.suppress(DabenchError):
            document = read_run(folder, SUITE)
            # Whatever else the same process has started was asked for otherwise.
            if (document.get("job"), document["command"]) == (started.job, command_of(started)):
                return str(folder)
    return None
