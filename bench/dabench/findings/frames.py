"""What a frame costs: its stages, how they add up, and what each convention would print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from dabench.findings.tables import machine_name
from dabench.plan.axes import variant_of
from dabench.plan.cases import Case
from dabench.plan.conventions import CONVENTIONS, WHOLE
from dabench.records.folder import read_run
from dabench.records.frames import KIND, FrameLaunch, read_frame_launches
from dabench.records.timings import read_plan
from dabench.timing.statistics import Interval, launch_interval

ADDS_UP = 0.03
"""Share of the whole that the stages may miss it by without a flag."""

FRAME_RULE = (
    "a pass is timed as a whole and taken apart in turn; a share is of the pass beside it that was "
    "not taken apart, the rest what a pass that was misses it by, a flag above "
    f"{ADDS_UP:.0%}: waiting for the device between two stages takes away what host and device do "
    "at once. A convention's time is that of its stages in the passes that were taken apart"
)


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """A case's times.

    Attributes:
        case: The case.
        status: ``ok``, or why there are none.
        reason: More of it.
        launches: How many gave times.
        failed: Why others did not; empty where none failed.
        device_name: Of the device; None where it has no name.
        notes: What the reader must know of how it ran.
        difference: How far its outputs are from the plain network's, at most.
        stages: Name -> seconds, over launches.
        shares: Name -> share of the pass beside it that was not taken apart, median over all.
        added: All stages of a pass over the pass beside it that was not taken apart.
        whole: Seconds of a pass that is not taken apart.
        conventions: Name -> seconds of its stages, of those that it and the frame have.
    """

    case: Case
    status: str
    reason: str = ""
    launches: int = 0
    failed: str = ""
    device_name: str | None = None
    notes: str = ""
    difference: float | None = None
    stages: Mapping[str, Interval] | None = None
    shares: Mapping[str, float] | None = None
    added: Interval | None = None
    whole: Interval | None = None
    conventions: Mapping[str, Interval] | None = None

    @property
    def rest(self) -> float:
        """What the stages miss the whole by, as a share of it; 0 without times."""
        return 0.0 if self.added is None else 1 - self.added.estimate

    @property
    def adds_up(self) -> bool:
        """Whether that is little enough."""
        return abs(self.rest) <= ADDS_UP


def frame_times(cases: Sequence[Case], launches: Sequence[FrameLaunch]) -> list[FrameTimes]:
    """The times of cases by their launches; those without any are left out."""
    found = []
    for case in cases:
        own = [each for each in launches if each.case_id == case.case_id]
        good = [each for each in own if each.status == "ok"]
        if good:
            bad = [f"{each.status}: {each.reason}" for each in own if each.status != "ok"]
            found.append(replace(_times(case, good), failed="; ".join(bad)))
        elif own:
            found.append(FrameTimes(case, own[-1].status, own[-1].reason))
    return found


def _times(case: Case, launches: Sequence[FrameLaunch]) -> FrameTimes:
    names = launches[0].stages
    stages = {
        name: launch_interval([[each[place] for each in one.apart] for one in launches])
        for place, name in enumerate(names)
    }
    shares = {
        name: median(
            each[place] / whole
            for one in launches
            for each, whole in zip(one.apart, one.whole, strict=True)
        )
        for place, name in enumerate(names)
    }
    conventions = {}
    for name, convention in CONVENTIONS.items():
        places = [place for place, stage in enumerate(names) if stage in convention.stages]
        conventions[name] = launch_interval(
            [[sum(each[place] for place in places) for each in one.apart] for one in launches]
        )
    return FrameTimes(
        case,
        "ok",
        launches=len(launches),
        device_name=launches[0].device_name or None,
        notes="; ".join(
            dict.fromkeys(
                note
                for one in launches
                for note in (one.notes, f"{case.dtype} is emulated here" * one.emulated)
                if note
            )
        ),
        difference=max((d for one in launches if (d := one.difference) is not None), default=None),
        stages=stages,
        shares=shares,
        added=launch_interval(
            [
                [sum(each) / whole for each, whole in zip(one.apart, one.whole, strict=True)]
                for one in launches
            ]
        ),
        whole=launch_interval([one.whole for one in launches]),
        conventions=conventions,
    )


COLUMNS = (
    "run_id", "machine", "source", "frame", "model", "way", "device", "height", "width", "dtype",
    "memory_format", "threads", "launches", "status", "reason", "failed", "notes", "part",
    "kind", "seconds", "low_s", "high_s",
)  # fmt: skip


def name_of(document: Mapping[str, Any]) -> str:
    """A run's frame: the name of its file, or that it was a camera's."""
    return Path(str(document["source"]["text"])).name


def size_of(document: Mapping[str, Any]) -> str:
    """Height and width of a run's frame."""
    return f"{document['source']['height']}x{document['source']['width']}"


def read_frames(folder: Path) -> tuple[dict[str, Any], list[FrameTimes]]:
    """A run's document and times.

    Raises:
        UsageError: No such run.
        ResultsError: Damaged records.
    """
    document = read_run(folder, KIND)
    cases = [planned.case for planned in read_plan(folder, document)]
    return document, frame_times(cases, read_frame_launches(folder))


def frames_frame(runs: Sequence[Path]) -> pd.DataFrame:
    """The times of runs with `COLUMNS`: a row per case and stage, whole and convention.

    Raises:
        UsageError: No such run.
        ResultsError: Damaged records.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        document, found = read_frames(run)
        for each in found:
            case = each.case
            shared = {
                **{name: getattr(case, name) for name in COLUMNS if hasattr(case, name)},
                "run_id": document["run_id"],
                "machine": machine_name(document["environment"], each.device_name, case.device),
                "source": name_of(document),
                "frame": size_of(document),
                "way": variant_of(case),
                "launches": each.launches,
                "status": each.status,
                "reason": each.reason,
                "failed": each.failed,
                "notes": each.notes,
            }
            parts = [("stage", name, one) for name, one in (each.stages or {}).items()]
            parts += [] if each.whole is None else [("whole", WHOLE, each.whole)]
            parts += [("convention", name, one) for name, one in (each.conventions or {}).items()]
            rows += [
                {
                    **shared, "part": name, "kind": kind, "seconds": one.estimate,
                    "low_s": one.low, "high_s": one.high,
                }
                for kind, name, one in parts
            ]  # fmt: skip
            if not parts:
                rows.append(shared)
    return pd.DataFrame(rows, columns=list(COLUMNS))
