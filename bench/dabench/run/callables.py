"""Callables of a running program, measured as cases are.

A callable lives in its process: it is measured here, by the same engine, and this
process is one launch. Further launches need the same callable in a fresh process, which
only its owner can start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dabench.base.errors import UsageError
from dabench.device.base import Device, DeviceUnavailableError
from dabench.device.machine import describe_host, describe_torch
from dabench.device.registry import open_device
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.settings import Settings
from dabench.records.folder import RunFolder
from dabench.records.measurements import FLAG_RULES
from dabench.records.timings import TimingRecord
from dabench.run.runner import LAUNCH_RULE, Runner
from dabench.run.sampling import sampled
from dabench.run.session import NoProgress, Session
from dabench.timing.engine import STEADY_RULE, StopRule
from dabench.timing.statistics import INTERVAL_RULE

Message = dict[str, Any]
Relaunch = Callable[[Message], list[Message]]
"""Measures the callable in a fresh process, by a stop rule; its messages, the last one last."""


class _Call:
    """A callable as a pass."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._result: object = None

    def prepare(self) -> None:
        """Nothing to prepare."""

    def run(self) -> None:
        """Calls it; what it returns is kept until the clock has stopped."""
        self._result = self._function()

    def release(self) -> None:
        """Lets go of what it returned."""
        self._result = None


class _Here:
    """A pool whose first launch is this process."""

    def __init__(self, function: Callable[[], object], device: Device, relaunch: Relaunch) -> None:
        self._function = function
        self._device = device
        self._relaunch = relaunch
        self._ran = 0

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Measures one launch; of the operations of a callable nothing is known."""
        if request["kind"] == "count":
            return {"kind": "done"}
        self._ran += 1
        if self._ran == 1:
            messages = measured_here(self._function, self._device, request["rule"])
        else:
            messages = self._relaunch(request["rule"])
        *rest, last = messages
        for message in rest:
            receive(message)
        return last


def measured_here(
    function: Callable[[], object], device: Device, rule: Mapping[str, Any]
) -> list[Message]:
    """One launch of a callable in this process, as messages of a worker."""
    facts = {**device.describe(), "precision": None, "loss": None}
    phase = sampled("forward", _Call(function), device, "steady", StopRule(**rule))
    return [
        {"kind": "device", "device": facts},
        {**phase, "peak_bytes": None},
        {"kind": "done"},
    ]


def opened(name: str) -> Device:
    """A device by its name.

    Raises:
        UsageError: This machine lacks it.
    """
    try:
        return open_device(name)
    except DeviceUnavailableError as error:
        raise UsageError(f"--device: {error}") from None


def time_callable(
    function: Callable[[], object],
    name: str,
    *,
    device: str,
    batch: int,
    settings: Settings,
    folder: Path,
    command: str,
    relaunch: Relaunch,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> Session:
    """Measures a callable as the only phase, ``forward``, of a case of its own.

    Args:
        function: What is timed; it may queue work on the device, which is waited for.
        name: Of the case's model.
        device: Where it runs.
        batch: Images that one call processes.
        settings: Those of any case.
        folder: For the records.
        command: What the user asked for, for the record.
        relaunch: Measures it in a fresh process.
        details: What else the record says of the run.

    Raises:
        UsageError: This machine lacks the device, or the folder cannot be written.
    """
    case = Case.apart(name, device=device, batch=batch)
    plan = [PlannedCase(case=case, settings=settings)]
    rules = {
        "warmup": STEADY_RULE, "launches": LAUNCH_RULE, "flags": FLAG_RULES,
        "interval": INTERVAL_RULE,
    }  # fmt: skip
    environment = describe_host() | describe_torch()
    pool = _Here(function, opened(device), relaunch)
    run = RunFolder.create(
        folder, "timing", command=command, environment=environment, rules=rules,
        plan=[planned.to_dict() for planned in plan], **details,
    )  # fmt: skip
    with run:
        outcome = Runner(plan, pool, TimingRecord(run), NoProgress()).run()
    return Session(outcome, environment, folder)
