"""What ``dabench choose`` was asked, and how its race stands: a run of kind ``choice``.

Its folder holds ``run.json``, the run of its timings in ``times/``, and in ``scores-1/``,
``scores-2/``, ... the accuracy of what was left of each trained network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from dabench.base.errors import bad_value, check_choice
from dabench.base.units import parse_bytes, parse_duration, parse_fraction
from dabench.plan.cases import Case, PlannedCase
from dabench.records.folder import RUN, bad_row, has_run
from dabench.records.measurements import LaunchRecord, seconds_of
from dabench.timing.halving import Race, race
from dabench.timing.statistics import quantile
from dabench.timing.tails import PERCENTILES

KIND = "choice"
TIMES = "times"
MEDIAN = "p50"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a choice must keep; None is no limit.

    Attributes:
        deadline_s: For a pass, in seconds.
        percentile: Of `dabench.timing.tails.PERCENTILES`: which of the passes are to be within it.
        miou: A fraction.
        memory_bytes: Peak of the process or the device.
        joules: Of an image.
        max_time_s: After so many seconds of timing nothing more is launched.
    """

    deadline_s: float | None = None
    percentile: str = MEDIAN
    miou: float | None = None
    memory_bytes: float | None = None
    joules: float | None = None
    max_time_s: float = 600.0

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Limits.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Limits:
        """Reads what `to_dict` wrote."""
        found = cls(**document)
        if found.percentile not in PERCENTILES:
            raise ValueError(found.percentile)
        return found


_TIME = "it takes a time above 0, such as 33ms"
_SHARE = "it takes a share of up to 100%, such as 70%"


def limits_of(given: Mapping[str, Any]) -> Limits:
    """Limits from option values, as typed or as numbers in seconds, bytes, joules and fractions.

    Args:
        given: ``deadline``, ``percentile``, ``miou``, ``memory``, ``energy`` and ``max_time``,
            those that there are.

    Raises:
        UsageError: One does not take its value.
    """
    name = str(given.get("percentile", MEDIAN))
    name = name if name.startswith("p") else f"p{name}"
    check_choice("--percentile", name, PERCENTILES)
    if "percentile" in given and "deadline" not in given:
        raise bad_value("--percentile", given["percentile"], "it is of a --deadline; name one")
    miou = _positive(given, "miou", parse_fraction, _SHARE)
    if miou is not None and miou > 1:
        raise bad_value("--miou", given["miou"], _SHARE)
    return Limits(
        deadline_s=_positive(given, "deadline", parse_duration, _TIME),
        percentile=name,
        miou=miou,
        memory_bytes=_positive(given, "memory", parse_bytes, "it takes bytes, such as 1G or 512M"),
        joules=_positive(given, "energy", _joules, "it takes joules above 0, such as 2J"),
        max_time_s=_positive(given, "max_time", parse_duration, _TIME) or Limits().max_time_s,
    )


def _positive(
    given: Mapping[str, Any], key: str, read: Callable[[str], float], form: str
) -> float | None:
    if key not in given:
        return None
    try:
        value = read(str(given[key]))
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise bad_value("--" + key.replace("_", "-"), given[key], form)
    return value


def _joules(text: str) -> float:
    return float(text.strip().upper().removesuffix("J"))


def read_limits(path: Path, document: Mapping[str, Any]) -> Limits | None:
    """The limits of a run; None where nothing is to be chosen.

    Args:
        path: Its folder, for errors.
        document: Of its ``run.json``.

    Raises:
        ResultsError: Not what dabench writes.
    """
    if "choose" not in document:
        return None
    with bad_row(path / RUN, 1):
        return Limits.of(document["choose"])


def scores_of(folder: Path) -> list[Path]:
    """The folders of the scores that there are."""
    return sorted(path for path in folder.glob("scores-*") if has_run(path))


def group_of(case: Case) -> str:
    """What a case runs against: other ways of the same network in the same precision."""
    return f"{case.model} {case.dtype}"


def launch_s(record: LaunchRecord, percentile: str) -> float:
    """What stands for a launch that went well: a percentile of its passes, in seconds."""
    seconds = sorted(seconds_of(record.phases[0], "steady"))
    return median(seconds) if percentile == MEDIAN else quantile(seconds, PERCENTILES[percentile])


def races(
    plan: Sequence[PlannedCase], launches: Mapping[str, Sequence[LaunchRecord]], limits: Limits
) -> dict[str, Race]:
    """How the race of each group stands; those that cannot run are in none.

    Args:
        plan: The cases.
        launches: By case.
        limits: Of the choice.
    """
    times: dict[str, dict[str, list[float]]] = {}
    for planned in plan:
        records = launches[planned.case.case_id]
        if planned.impossible is None and all(record.status == "ok" for record in records):
            group = times.setdefault(group_of(planned.case), {})
            group[planned.case.case_id] = [launch_s(each, limits.percentile) for each in records]
    return {name: race(group, limits.deadline_s) for name, group in times.items()}
