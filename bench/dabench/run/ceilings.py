"""The machine's ceilings: measured once per device, dtype and threads, then remembered.

What is remembered is a run of kind ``ceilings`` in the cache, one per machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dabench.base.errors import DabenchError, ResultsError, UsageError
from dabench.base.files import cache_folder
from dabench.device.machine import MACHINE, describe_host, difference
from dabench.plan.devices import resolve
from dabench.plan.settings import Grid
from dabench.profiling.roofline import Ceilings, Setting
from dabench.records.ceilings import CEILINGS, KIND, CeilingsRecord, read_ceilings
from dabench.records.folder import (
    RUN,
    RunFolder,
    bad_row,
    check_new_run,
    check_same_machine,
    read_run,
)
from dabench.run.launcher import Launcher
from dabench.run.session import probe

TIMEOUT_S = 600.0
WAIT_S = 600.0
"""For another dabench that measures the same ceilings."""

_VERSIONS = ("torch", "cuda", "cudnn", "driver")


@dataclass(frozen=True, slots=True)
class MachineCeilings:
    """The ceilings that were asked for.

    Attributes:
        found: In the order of the request.
        left_out: A line for each precision not measured, since the machine only emulates it.
    """

    found: list[Ceilings]
    left_out: list[str]


def measure_ceilings(
    grid: Grid, *, again: bool, folder: Path | None = None, command: str = ""
) -> MachineCeilings:
    """The ceilings of this machine for the devices, dtypes and threads of a grid.

    Args:
        grid: Its other axes are of no account.
        again: Measure anew what is remembered.
        folder: For a run of their own.
        command: What the user asked for, for the record.

    Raises:
        UsageError: Anything wrong with the request; nothing was measured.
        DabenchError: They could not be measured.
    """
    if folder is not None:
        check_new_run(folder)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        resolved, left_out = resolve(grid, environment)
        settings = [
            Setting(device, dtype, threads)
            for each in resolved
            for device in each.devices
            for dtype in each.dtypes
            for threads in each.threads or (int(environment["threads"]),)
        ]
        if folder is None:
            found = ceilings_of(settings, launcher, environment, again=again)
            return MachineCeilings(list(found.values()), left_out)
        plan = [setting._asdict() for setting in settings]
        with RunFolder.create(
            folder, KIND, command=command, environment=environment, plan=plan, anew=again,
            left_out=left_out,
        ) as run:  # fmt: skip
            return _complete(run, launcher, environment)


def resume_ceilings(folder: Path) -> MachineCeilings:
    """Continues an interrupted run of ceilings where it stopped.

    Raises:
        UsageError: No such run there, or it was made on another machine.
        ResultsError: Its records are damaged.
        DabenchError: They could not be measured.
    """
    document = read_run(folder, KIND)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        check_same_machine(folder, document["environment"], environment)
        with RunFolder.open(folder, KIND) as run:
            return _complete(run, launcher, environment)


def _complete(
    run: RunFolder, launcher: Launcher, environment: Mapping[str, Any]
) -> MachineCeilings:
    """Measures what is left of a run's plan."""
    record = CeilingsRecord(run)
    with bad_row(run.path / RUN, 1):
        plan = [Setting(**each) for each in run.document["plan"]]
    if not plan:
        raise UsageError(
            f"--resume: {run.path} is what is remembered of a machine; nothing is left"
        )
    for setting in plan:
        if setting not in record.found:
            known = ceilings_of([setting], launcher, environment, again=run.document["anew"])
            record.keep(known[setting])
    return MachineCeilings([record.found[setting] for setting in plan], run.document["left_out"])


def ceilings_of(
    settings: Iterable[Setting],
    launcher: Launcher,
    environment: Mapping[str, Any],
    *,
    again: bool = False,
) -> dict[Setting, Ceilings]:
    """Reads the ceilings of this machine, measuring those it does not know yet.

    Args:
        settings: Threads must be resolved (no 0).
        launcher: Starts the worker that measures.
        environment: Of `dabench.run.session.probe` and `describe_host`.
        again: Measure all of them anew.

    Raises:
        DabenchError: They could not be measured.
    """
    wanted = dict.fromkeys(settings)
    known = {} if again else _known(environment)
    missing = [setting for setting in wanted if setting not in known]
    if missing:
        # Another dabench that wants the same waits for these, and does not disturb them.
        with _kept(environment) as record:
            for setting in missing:
                if record is not None and not again and setting in record.found:
                    known[setting] = record.found[setting]
                    continue
                known[setting] = _measure(setting, launcher, environment)
                if record is not None:
                    record.keep(known[setting])
    return {setting: known[setting] for setting in wanted}


def _path(environment: Mapping[str, Any]) -> Path:
    """Where the ceilings of a machine are remembered."""
    facts = json.dumps([environment.get(name) for name in MACHINE], sort_keys=True)
    return cache_folder() / KIND / hashlib.sha256(facts.encode()).hexdigest()[:16]


def _known(environment: Mapping[str, Any]) -> dict[Setting, Ceilings]:
    """What is remembered of this machine; nothing where it cannot be read."""
    path = _path(environment)
    try:
        then = read_run(path, KIND)["environment"]
        return {} if difference(then, environment, MACHINE) else read_ceilings(path)
    except DabenchError:
        return {}


@contextmanager
def _kept(environment: Mapping[str, Any]) -> Iterator[CeilingsRecord | None]:
    """The run in the cache that remembers this machine's ceilings, begun anew where it is damaged.

    None where it cannot be written, or another process does not let go of it.
    """
    path = _path(environment)
    try:
        run = RunFolder.create(
            path,
            KIND,
            command="ceilings",
            environment=environment,
            again=True,
            wait_s=WAIT_S,
            plan=[],
            left_out=[],
            anew=False,
        )
    except DabenchError:
        yield None
        return
    with run:
        try:
            record = CeilingsRecord(run)
        except ResultsError:
            run.write_json(CEILINGS, [])
            record = CeilingsRecord(run)
        yield record


def _measure(setting: Setting, launcher: Launcher, environment: Mapping[str, Any]) -> Ceilings:
    answer: dict[str, Any] = {}
    request = {"kind": "ceilings", **setting._asdict()}
    last = launcher.run(
        request, lambda message: answer.update(message["ceilings"]), timeout_s=TIMEOUT_S
    )
    if last["kind"] != "done":
        raise DabenchError(
            f"the ceilings of {setting.device} in {setting.dtype} could not be measured: "
            f"{last['reason']}"
        )
    return Ceilings.of(
        {
            **answer,
            **setting._asdict(),
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: environment.get(name) for name in _VERSIONS},
        }
    )
