"""Comparisons of two sides: what was asked, kept in ``run.json``, and the launches of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dabench.records.folder import RUN, bad_row
from dabench.records.measurements import LaunchRecord, seconds_of
from dabench.timing.verdicts import Sides

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
        return Comparison.of(document["compare"])


def sides_of(
    base: Sequence[LaunchRecord],
    new: Sequence[LaunchRecord],
    phase: str,
    protocol: str,
    *,
    alternated: bool,
) -> Sides:
    """The launches of two sides that have a phase, as they are judged.

    Args:
        base: In the order they ran.
        new: Likewise.
        phase: Which.
        protocol: Of both cases.
        alternated: Whether rounds of the two are the same rounds.
    """
    (base_s, base_rounds), (new_s, new_rounds) = (
        _with_phase(side, phase, protocol) for side in (base, new)
    )
    return Sides(base_s, new_s, (base_rounds, new_rounds) if alternated else None)


def _with_phase(
    launches: Sequence[LaunchRecord], phase: str, protocol: str
) -> tuple[list[list[float]], list[int | None]]:
    seconds, rounds = [], []
    for launch in launches:
        for record in launch.phases:
            if record.phase == phase:
                seconds.append(seconds_of(record, protocol))
                rounds.append(launch.round)
    return seconds, rounds
