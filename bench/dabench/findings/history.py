"""One case of one machine across commits and dates, and where it became faster or slower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean, median
from typing import Any

from dabench.base.errors import DabenchError, UsageError
from dabench.device.machine import SOFTWARE, differing
from dabench.findings.compare import read_sides
from dabench.records.catalog import Entry, catalogue
from dabench.records.comparisons import Side, seconds_per_pass
from dabench.timing.changes import Step, find_steps
from dabench.timing.statistics import Interval, launch_interval
from dabench.timing.verdicts import DELTA


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A case in one run.

    Attributes:
        run: The run's folder.
        created: When it was begun, in ISO 8601.
        commit: Of what was measured: of the network's own repository, of the one that was worked
            in, or of dabench; empty where nobody knows.
        level_s: Geometric mean over launches of their medians, in seconds.
        time: Median over launches with its 95% interval, in seconds.
        step: The step that this run is the first after; None if it is none.
        changed: In which software it differs from the run before, in words.
    """

    run: str
    created: str
    commit: str
    launches: int
    level_s: float
    time: Interval
    step: Step | None = None
    changed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A flat JSON document."""
        return {
            "run": self.run, "created": self.created, "commit": self.commit,
            "launches": self.launches, "median_s": self.time.estimate, "ci_low_s": self.time.low,
            "ci_high_s": self.time.high, "step": self.step and self.step.ratio,
            "step_p": self.step and self.step.p, "changed": self.changed,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class History:
    """A case and phase of one machine over time.

    Attributes:
        machine: Its identity (`dabench.device.machine.machine_key`).
        points: Oldest first.
    """

    machine: str
    case_id: str
    phase: str
    points: tuple[Point, ...]

    @property
    def steps(self) -> list[Point]:
        """The runs with which it became faster or slower."""
        return [point for point in self.points if point.step is not None]

    def to_dict(self) -> dict[str, Any]:
        """A JSON document."""
        points = [point.to_dict() for point in self.points]
        return {
            "machine": self.machine, "case_id": self.case_id, "phase": self.phase, "points": points,
        }  # fmt: skip


def histories(
    roots: Sequence[Path], case: str | None = None, delta: float = DELTA
) -> tuple[list[History], list[tuple[Path, str]]]:
    """The histories of the cases below some folders, and the runs that cannot be read.

    A run that lies there twice, such as merged from elsewhere, counts once.

    Args:
        roots: Folders of runs, at whatever depth.
        case: Part of a case's id, or a pattern with ``*``; None takes all.
        delta: Steps of up to this share are left out.

    Raises:
        UsageError: No such folder, no timings there, or no such case.
    """
    entries, unreadable = catalogue(roots, nested=True)
    once = {(e.document["run_id"], e.created, e.machine): e for e in reversed(entries)}
    timings = [each for each in reversed(once.values()) if each.document["kind"] == "timing"]
    if not timings:
        raise _none(f"no timings below {', '.join(map(str, roots))}", unreadable)
    points: dict[tuple[str, str, str], list[tuple[Point, Mapping[str, Any]]]] = {}
    cases: dict[str, None] = {}
    for entry in timings:
        try:
            sides = read_sides(entry.path)
        except DabenchError as error:
            unreadable.append((entry.path, str(error)))
            continue
        for case_id, side in sides.items():
            cases[case_id] = None
            if case is None or fnmatch(case_id, f"*{case}*"):
                for phase in side.case.phases:
                    if (point := _point(entry, side, phase)) is not None:
                        key = (entry.machine, case_id, phase)
                        points.setdefault(key, []).append((point, side.environment))
    if not points:
        known = ", ".join(list(cases)[:5])
        if case is None or not cases:
            raise _none(f"nothing was measured below {', '.join(map(str, roots))}", unreadable)
        raise UsageError(f"--case: {case!r} was never measured; there are: {known}")
    found = [History(*key, _with_steps(each, delta)) for key, each in points.items()]
    return found, unreadable


def _none(what: str, unreadable: Sequence[tuple[Path, str]]) -> UsageError:
    """That there is nothing to show, and the first of what could not be read."""
    others = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
    why = f"; {unreadable[0][1]}{others}" if unreadable else ""
    return UsageError(what + why)


def _point(entry: Entry, side: Side, phase: str) -> Point | None:
    launches, _ = seconds_per_pass(side, phase)
    if not launches:
        return None
    return Point(
        run=str(entry.path),
        created=entry.created,
        commit=_commit(entry.document, side.case.model),
        launches=len(launches),
        level_s=math.exp(fmean(math.log(median(each)) for each in launches)),
        time=launch_interval(launches),
    )


def _commit(document: Mapping[str, Any], model: str) -> str:
    identity = (document.get("networks") or {}).get(model) or {}
    worked_in = document.get("repository") or {}
    own = document["environment"].get("commit") or document["environment"].get("dabench")
    return str(identity.get("commit") or worked_in.get("commit") or own or "")


def _with_steps(
    found: Sequence[tuple[Point, Mapping[str, Any]]], delta: float
) -> tuple[Point, ...]:
    steps = {step.at: step for step in find_steps([point.level_s for point, _ in found], delta)}
    return tuple(
        replace(
            point,
            step=steps.get(number),
            changed=differing(found[max(number - 1, 0)][1], environment, SOFTWARE) or "",
        )
        for number, (point, environment) in enumerate(found)
    )
