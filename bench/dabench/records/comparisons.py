"""Comparisons of two sides: what was asked, kept in ``run.json``, and the launches of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dabench.base.cores import usable_cores
from dabench.plan.cases import Case
from dabench.records.folder import RUN, bad_row
from dabench.records.measurements import (
    BUSY_LIMIT,
    DRIFT_LIMIT,
    LaunchRecord,
    PhaseRecord,
    seconds_of,
    worst_drift,
)
from dabench.records.timings import read_plan
from dabench.timing.verdicts import Judgement, Sides, judge, judge_sequentially

Pair = tuple[str, str]
"""Case ids: base, new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What `dabench compare` was asked to measure.

    Attributes:
        pairs: Cases to compare.
        delta: Differences of up to this share are called the same.
        decide: Whether to go on until every pair is decided.
        max_time_s: After so many seconds it is not gone on.
    """

    pairs: tuple[Pair, ...]
    delta: float
    decide: bool
    max_time_s: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Comparison.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Comparison:
        """Reads what `to_dict` wrote."""
        pairs = tuple((str(base), str(new)) for base, new in document["pairs"])
        return cls(**{**document, "pairs": pairs})


def read_comparison(path: Path, document: Mapping[str, Any]) -> Comparison | None:
    """What a run was asked to compare; None if nothing.

    Args:
        path: Its folder, for errors.
        document: Of its ``run.json``.

    Raises:
        ResultsError: Not what dabench writes.
    """
    if "compare" not in document:
        return None
    with bad_row(path / RUN, 1):
        asked = Comparison.of(document["compare"])
        known = {planned.case.case_id for planned in read_plan(path, document)}
        for case_id in (each for pair in asked.pairs for each in pair if each not in known):
            raise ValueError(f"{case_id} is compared and not planned")
        return asked


@dataclass(frozen=True, slots=True)
class Side:
    """One case of one run.

    Attributes:
        impossible: Why it could not be measured, known beforehand.
    """

    case: Case
    launches: Sequence[LaunchRecord]
    environment: Mapping[str, Any]
    impossible: str | None = None


Key = tuple[str, str, str]
"""Case ids of base and new, and the phase."""


@dataclass(frozen=True, slots=True)
class Family:
    """All that is judged together.

    Attributes:
        pairs: What is compared, whether or not there is anything to judge.
        alternated: Whether the two sides of each ran in the same rounds.
    """

    pairs: Mapping[Key, tuple[Side, Side]]
    alternated: bool

    @classmethod
    def of(cls, pairs: Iterable[tuple[Side, Side]], *, alternated: bool) -> Family:
        """Every phase that both sides of a pair have."""
        found = {
            (base.case.case_id, new.case.case_id, phase): (base, new)
            for base, new in pairs
            for phase in base.case.phases
            if phase in new.case.phases
        }
        return cls(found, alternated)

    def sides(self, key: Key) -> Sides:
        """Seconds per pass of both sides' launches."""
        base, new = self.pairs[key]
        (base_s, base_rounds), (new_s, new_rounds) = (
            seconds_per_pass(side, key[2]) for side in (base, new)
        )
        return Sides(base_s, new_s, (base_rounds, new_rounds) if self.alternated else None)

    def judged(self, delta: float, *, sequential: bool, families: int = 1) -> dict[Key, Judgement]:
        """Judges what was measured on both sides; what failed still counts in the family.

        Args:
            delta: The margin.
            sequential: Whether it was looked at again and again.
            families: Families of this size that are judged at once, of which this is one.
        """
        there = {key: self.sides(key) for key in self.pairs if self.failure(key) is None}
        known = {key: sides for key, sides in there.items() if sides.launches > 1}
        judges = judge_sequentially if sequential else judge
        return judges(known, delta, families * len(self.pairs))

    def failure(self, key: Key) -> str | None:
        """Why a side was not measured; None if both were."""
        for side in self.pairs[key]:
            lost = next((each for each in side.launches if each.status != "ok"), None)
            if side.impossible or lost or not side.launches:
                why = f"{lost.status}: {lost.reason}" if lost else "not measured yet"
                return f"{side.case.model}: {side.impossible or why}"
        return None

    def disturbance(self, key: Key, judged: Judgement | None = None) -> tuple[str, str] | None:
        """A code of `DISTURBANCES` and words, where too many launches were disturbed.

        Args:
            key: Of the pair.
            judged: What its launches say; a difference that the disturbance cannot make stands.
        """
        phase = key[2]
        checks: Mapping[str, Callable[[LaunchRecord], bool]] = {
            "throttled": lambda launch: any(p.throttled for p in launch.phases),
            "busy": lambda launch: any(p.other_cores > BUSY_LIMIT for p in launch.phases),
            "drift": lambda launch: any(
                abs(worst_drift(p)) > DRIFT_LIMIT for p in launch.phases if p.phase == phase
            ),
        }
        for code, disturbs in checks.items():
            for side in self.pairs[key]:
                number = sum(map(disturbs, side.launches))
                if number > AFFECTED * len(side.launches) and not self._is_beyond(
                    code, key, judged
                ):
                    of = f"in {number} of {len(side.launches)} launches of {side.case.model}"
                    return code, f"{DISTURBANCES[code]} {of}"
        return None

    def _is_beyond(self, code: str, key: Key, judged: Judgement | None) -> bool:
        """Whether a difference is larger than what a disturbance can make."""
        if judged is None or code not in _MOST:
            return False
        factor = max(
            _MOST[code](side, phase)
            for side in self.pairs[key]
            for launch in side.launches
            for phase in launch.phases
            if phase.phase == key[2]
        )
        low, high = judged.tested.low / factor, judged.tested.high * factor
        return low > 1 + judged.margin or high < 1 - judged.margin


def _by_drift(side: Side, phase: PhaseRecord) -> float:
    return 1 + abs(worst_drift(phase))


def _by_others(side: Side, phase: PhaseRecord) -> float:
    """Of n cores others take c: what is left is (n - c) / n, and of a shared core a half."""
    known = side.environment
    cores = known.get("usable_cores") or known.get("logical_cores") or usable_cores()
    left = cores - phase.other_cores
    return max(cores / left, 2.0) if left > 0 else math.inf


_MOST: Mapping[str, Callable[[Side, PhaseRecord], float]] = {
    "drift": _by_drift,
    "busy": _by_others,
}
"""By what factor a disturbance may lengthen passes; a throttled processor by whatever it likes."""


AFFECTED = 0.25
"""Share of one side's launches that may be disturbed before nothing is said."""

DISTURBANCES: Mapping[str, str] = {
    "throttled": "the processor slowed itself down",
    "busy": f"other programs used over {BUSY_LIMIT:g} cores",
    "drift": f"passes changed by over {DRIFT_LIMIT:.0%} within a launch",
}


def seconds_per_pass(side: Side, phase: str) -> tuple[list[list[float]], list[int | None]]:
    """Seconds of each sample of each launch that has a phase, and the launches' rounds."""
    seconds, rounds = [], []
    for launch in side.launches:
        for record in launch.phases:
            if record.phase == phase:
                samples = seconds_of(record, side.case.protocol)
                seconds.append([each / record.passes for each in samples])
                rounds.append(launch.round)
    return seconds, rounds
