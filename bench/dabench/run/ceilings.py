"""The machine's ceilings: measured once per device, dtype and threads, then remembered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from dabench.base.errors import DabenchError
from dabench.base.files import cache_folder, disk_errors, write_atomically
from dabench.profiling.roofline import Ceilings
from dabench.run.launcher import Launcher

FILE = "ceilings.json"
TIMEOUT_S = 600.0
_VERSIONS = ("torch", "cuda", "cudnn", "driver")


class Setting(NamedTuple):
    """What ceilings depend on besides the machine."""

    device: str
    dtype: str
    threads: int


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
    path = cache_folder() / FILE
    known = {} if again else _read(path, environment)
    found: dict[Setting, Ceilings] = {}
    for setting in dict.fromkeys(settings):
        if setting not in known:
            known[setting] = _measure(setting, launcher, environment)
            _keep(path, known[setting], environment)
        found[setting] = known[setting]
    return found


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


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for remembered ceilings to hold."""
    names = ("cpu", "cpu_capability", "gpus", "usable_cores", "variables", *_VERSIONS)
    return {name: environment.get(name) for name in names}


def _read(path: Path, environment: Mapping[str, Any]) -> dict[Setting, Ceilings]:
    machine = _machine(environment)
    return {
        Setting(c.device, c.dtype, c.threads): c
        for entry in _entries(path)
        if entry["machine"] == machine
        for c in [Ceilings.of(entry["ceilings"])]
    }


def _entries(path: Path) -> list[dict[str, Any]]:
    """What the file holds; one that cannot be read is measured over."""
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries:
            # Those of an older dabench lack streams and floors.
            entry["machine"], entry["ceilings"]["streams"]
            Ceilings.of(entry["ceilings"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return entries


def _keep(path: Path, ceilings: Ceilings, environment: Mapping[str, Any]) -> None:
    """Adds one entry in place of an older one of the same setting."""
    machine = _machine(environment)
    mine = (ceilings.device, ceilings.dtype, ceilings.threads)
    others = [
        entry
        for entry in _entries(path)
        if entry["machine"] != machine
        or tuple(entry["ceilings"][name] for name in Setting._fields) != mine
    ]
    entry = {"machine": machine, "ceilings": ceilings.to_dict()}
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps([*others, entry], indent=1) + "\n")
