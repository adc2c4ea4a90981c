"""Runs made of the samples of other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError
from dabench.base.files import slug
from dabench.exchange.runs import WholeRun
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.settings import Settings
from dabench.records.measurements import LaunchRecord, PhaseRecord
from dabench.timing.engine import PhaseSamples
from dabench.timing.samples import Sample


def foreign_run(
    path: Path,
    tool: str,
    samples: Mapping[str, Sequence[float]],
    *,
    device: str,
    environment: Mapping[str, Any],
    created: str | None,
    device_name: str | None = None,
) -> WholeRun:
    """A run of one launch per name.

    Args:
        path: The file, after which the run is named.
        tool: What measured.
        samples: Name -> seconds.
        device: Where it ran.
        environment: What is known of the machine.
        created: When, in ISO 8601; None is now.
        device_name: Of the device, as it calls itself.

    Raises:
        UsageError: There are no samples, or some are no times.
    """
    if not samples:
        raise UsageError(f"{path} holds no samples")
    plan, launches = [], []
    for number, (name, seconds) in enumerate(samples.items()):
        if not seconds or min(seconds) <= 0:
            raise UsageError(f"{path}: {name} has samples that are no times")
        case = Case.apart(name, device=device)
        settings = Settings.of(launches=1, repeat=len(seconds))
        plan.append(PlannedCase(case=case, settings=settings))
        timed = PhaseSamples(samples=[Sample(each, None) for each in seconds])
        phase = PhaseRecord(
            phase="forward", samples=timed, passes=1, peak_bytes=None, other_cores=0.0,
            throttled=None,
        )  # fmt: skip
        facts = {"device_name": device_name, "notes": [f"measured by {tool}"]}
        launch = LaunchRecord(
            launch=number, case_id=case.case_id, status="ok", seconds=sum(seconds), device=facts,
            phases=(phase,),
        )  # fmt: skip
        launches.append(launch)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = {name: value for name, value in environment.items() if value is not None}
    document = {
        "run_id": f"{tool}-{slug(path.stem)}",
        "created": created or now,
        "command": f"{tool} (imported)",
        "environment": {"cpu": None, **known},
    }
    return WholeRun(document, plan, launches)
