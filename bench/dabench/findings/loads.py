"""What a case holds under load: percentiles, deadlines, and how many at once are worth it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dabench.findings.compare import read_sides
from dabench.plan.axes import columns_of
from dabench.plan.cases import THROUGHPUT
from dabench.records.measurements import Measurement, seconds_by_member
from dabench.timing.statistics import Interval
from dabench.timing.tails import Percentile, percentile, share_within

WORTH = 0.05
"""A further process is worth it where throughput grows by more than this share."""

KNEE_RULE = (
    f"knee: the most processes at once up to which images per second grow by over {WORTH:.0%} and "
    "by more than their intervals"
)


@dataclass(frozen=True, slots=True)
class Tail:
    """The tail of one phase of one case.

    Attributes:
        percentiles: In the order they were asked for.
        deadline_s: In seconds; None if none was named.
        within: Share of passes that take no longer.
        refusal: Why there is no tail at all; empty if there is.
    """

    case_id: str
    phase: str
    percentiles: tuple[Percentile, ...]
    deadline_s: float | None
    within: Interval | None
    refusal: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "case_id": self.case_id,
            "phase": self.phase,
            "percentiles": [
                {
                    "name": each.name,
                    "seconds": each.seconds and each.seconds.estimate,
                    "ci_low_s": each.seconds and each.seconds.low,
                    "ci_high_s": each.seconds and each.seconds.high,
                    "launches": each.launches,
                    "passes": each.passes,
                    "needed": each.needed,
                    "refusal": each.refusal,
                }
                for each in self.percentiles
            ],
            "deadline_s": self.deadline_s,
            "within": self.within and self.within.estimate,
            "within_low": self.within and self.within.low,
            "within_high": self.within and self.within.high,
            "refusal": self.refusal,
        }


def tails_of(run: Path, names: Sequence[str], deadline_s: float | None) -> list[Tail]:
    """The tails of a run's cases.

    Args:
        run: A folder of timings.
        names: Of `dabench.timing.tails.PERCENTILES`.
        deadline_s: In seconds; None for none.

    Raises:
        UsageError: No timings there.
        ResultsError: Damaged records.
    """
    found = []
    for case_id, side in read_sides(run).items():
        for phase in side.case.phases:
            records = [p for launch in side.launches for p in launch.phases if p.phase == phase]
            # Of several processes at once each is a replicate, as launches are.
            launches = [each for record in records for each in seconds_by_member(record)]
            if not launches:
                continue
            if side.case.protocol in _NO_PASSES:
                why = f"a sample of the protocol {side.case.protocol} is no single pass"
                found.append(Tail(case_id, phase, (), deadline_s, None, why))
                continue
            percentiles = tuple(percentile(name, launches) for name in names)
            within = None if deadline_s is None else share_within(launches, deadline_s)
            found.append(Tail(case_id, phase, percentiles, deadline_s, within))
    return found


_NO_PASSES = ("paper", THROUGHPUT)


@dataclass(frozen=True, slots=True)
class Knee:
    """How a case's throughput grows with the processes that share the device.

    Attributes:
        at_once: The knee.
        images_per_s: There.
        beyond: The next larger number that was measured; None if the knee is the largest.
        gain: Images per second there over those at the knee.
        slowdown: Time of a pass there over that at the knee.
        decided: Whether no larger number may give more by what their intervals leave open.
    """

    case: str
    phase: str
    at_once: int
    images_per_s: float
    beyond: int | None
    gain: float | None
    slowdown: float | None
    decided: bool


def knees(rows: Iterable[Measurement]) -> list[Knee]:
    """The knees of cases that were measured with several numbers of processes."""
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for row in rows:
        if row.status == "ok" and row.images_per_s is not None:
            key = tuple(
                getattr(row, name) for name in (*columns_of("phase", "concurrency"), "phase")
            )
            groups.setdefault(key, []).append(row)
    return [_knee(sorted(g, key=_at_once)) for g in groups.values() if len(g) > 1]


def _at_once(row: Measurement) -> int:
    return row.concurrency


def _knee(rows: Sequence[Measurement]) -> Knee:
    best = rows[0]
    for row in rows[1:]:
        (_, high), (low, _) = _bounds(best), _bounds(row)
        if _rate(row) > (1 + WORTH) * _rate(best) and low > high:
            best = row
    more = [row for row in rows if row.concurrency > best.concurrency]
    beyond = more[0] if more else None
    decided = all(_bounds(row)[1] <= (1 + WORTH) * _bounds(best)[0] for row in more)
    case = best.case_id if best.concurrency == 1 else _without(best.case_id, best.concurrency)
    if beyond is None:
        return Knee(case, best.phase, best.concurrency, _rate(best), None, None, None, decided)
    assert beyond.median_s is not None
    assert best.median_s is not None
    return Knee(
        case,
        best.phase,
        best.concurrency,
        _rate(best),
        beyond.concurrency,
        _rate(beyond) / _rate(best),
        beyond.median_s / best.median_s,
        decided,
    )


def _without(case_id: str, at_once: int) -> str:
    """A case's id without the number of processes, which stands last but for the protocol's."""
    head, _, tail = case_id.rpartition(f"/x{at_once}")
    return head + tail


def _rate(row: Measurement) -> float:
    assert row.images_per_s is not None
    return row.images_per_s


def _bounds(row: Measurement) -> tuple[float, float]:
    """Of images per second, from the interval of the time."""
    rate = _rate(row)
    if row.median_s is None or row.ci_low_s is None or row.ci_high_s is None:
        return rate, rate
    return rate * row.median_s / row.ci_high_s, rate * row.median_s / row.ci_low_s
