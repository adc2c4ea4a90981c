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
from dabench.plan.trained import is_trained
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
        memory_bytes: Peak of a pass: of a GPU what it holds, of a CPU what the process has more
            than before it, weights and input included.
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


def launch_s(record: LaunchRecord, percentile: str) -> float:
    """What stands for a launch that went well: a percentile of its passes, in seconds."""
    seconds = sorted(seconds_of(record.phases[0], "steady"))
    return median(seconds) if percentile == MEDIAN else quantile(seconds, PERCENTILES[percentile])


@dataclass(frozen=True, slots=True)
class Figures:
    """What launches say of a case beside its time; None where nobody knows.

    Attributes:
        peak_bytes: The most of any.
        joules: Of an image, median over launches.
    """

    peak_bytes: float | None
    joules: float | None

    @classmethod
    def of(cls, case: Case, launches: Sequence[LaunchRecord]) -> Figures:
        """From launches that went well."""
        phases = [record.phases[0] for record in launches]
        peaks = [phase.peak_bytes for phase in phases if phase.peak_bytes is not None]
        joules = [phase.joules for phase in phases if phase.joules is not None]
        return cls(max(peaks, default=None), median(joules) / case.batch if joules else None)

    def within(self, limits: Limits) -> bool | None:
        """Whether they meet the limits that there are; None where that is not known."""
        pairs = ((self.peak_bytes, limits.memory_bytes), (self.joules, limits.joules))
        asked = [(value, limit) for value, limit in pairs if limit is not None]
        if any(value is not None and value > limit for value, limit in asked):
            return False
        return None if any(value is None for value, _ in asked) else True


def races(
    plan: Sequence[PlannedCase], launches: Mapping[str, Sequence[LaunchRecord]], limits: Limits
) -> dict[str, Race]:
    """How the race of each group stands; what cannot run, or be chosen, is in none.

    Ways of a trained network race in each precision by itself: the fastest may not be the most
    accurate. What has no figure for a limit does not drive out what has one.

    Args:
        plan: The cases.
        launches: By case.
        limits: Of the choice.
    """
    times: dict[str, dict[str, list[float]]] = {}
    for planned in plan:
        case, records = planned.case, launches[planned.case.case_id]
        if planned.impossible is not None or any(record.status != "ok" for record in records):
            continue
        within = Figures.of(case, records).within(limits) if records else True
        if within is not False:
            precision = case.dtype if is_trained(case.model) else ""
            group = times.setdefault(f"{case.model} {precision} {within}", {})
            group[case.case_id] = [launch_s(each, limits.percentile) for each in records]
    return {name: race(group, limits.deadline_s) for name, group in times.items()}
