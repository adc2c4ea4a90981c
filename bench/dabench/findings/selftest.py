"""A case compared with itself: how a machine scatters, and how often it deceives.

Launches of one case are dealt to two sides as `dabench compare` would run them, A
B B A, in every stretch of consecutive launches that is long enough; what is
called faster or slower there is false.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from typing import Any

from dabench.base.errors import DabenchError, UsageError
from dabench.device.machine import HARDWARE, differing
from dabench.findings.compare import read_sides
from dabench.records.comparisons import seconds_per_pass
from dabench.records.folder import RUN, read_run
from dabench.timing.verdicts import DELTA, Sides, judge

NAME = "selftest"
"""Key of ``run.json``, and part of the names of such runs' folders."""

PER_SIDE = 8
"""Launches of each side in one comparison, as `dabench compare` has them by default."""


FEWEST = 8
"""Launches that give three comparisons of two and two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest:
    """What comparing a case with itself gave.

    Attributes:
        case_id: Which case.
        phase: Which phase.
        launches: How many there are.
        scatter: Standard deviation of the logarithms of their medians.
        per_side: Launches of each side of one comparison.
        comparisons: How many of them there are; they overlap.
        false_faster: Those that were called faster.
        false_slower: Those that were called slower.
        below: Those whose ratio was below 1; as many should be above.
        floor: Smallest difference that half of such comparisons would find.
        largest: Largest difference that was seen, where there is none.
    """

    case_id: str
    phase: str
    launches: int
    scatter: float
    per_side: int
    comparisons: int
    false_faster: int
    false_slower: int
    below: int
    floor: float
    largest: float


def read_selftest(path: Path, delta: float = DELTA) -> list[SelfTest]:
    """What a run of `dabench selftest` says, phase by phase.

    Raises:
        UsageError: No such run there, or too few launches.
        ResultsError: Damaged records.
    """
    if NAME not in read_run(path, "timing"):
        raise UsageError(f"{path} was not made by 'dabench selftest'")
    found = []
    for side in read_sides(path).values():
        lost = [launch for launch in side.launches if launch.status != "ok"]
        if lost:
            raise UsageError(f"{side.case.case_id}: {lost[0].status}: {lost[0].reason}")
        for phase in side.case.phases:
            launches, _ = seconds_per_pass(side, phase)
            found.append(_tested(side.case.case_id, phase, launches, delta))
    return found


def _tested(
    case_id: str, phase: str, launches: Sequence[Sequence[float]], delta: float
) -> SelfTest:
    if len(launches) < FEWEST:
        raise UsageError(f"{case_id}: {len(launches)} launches are too few; {FEWEST} are the least")
    per_side = min(PER_SIDE, len(launches) // 4)
    judged = [judge({NAME: each}, delta)[NAME] for each in _comparisons(launches, per_side)]
    halves = [math.log(each.ratio.high / each.ratio.low) / 2 for each in judged]
    return SelfTest(
        case_id=case_id,
        phase=phase,
        launches=len(launches),
        scatter=stdev(math.log(median(each)) for each in launches),
        per_side=per_side,
        comparisons=len(judged),
        false_faster=sum(each.verdict == "faster" for each in judged),
        false_slower=sum(each.verdict == "slower" for each in judged),
        below=sum(each.ratio.estimate < 1 for each in judged),
        floor=math.expm1(median(halves) + math.log1p(delta)),
        largest=max(math.expm1(abs(math.log(each.ratio.estimate))) for each in judged),
    )


def _comparisons(launches: Sequence[Sequence[float]], per_side: int) -> Iterator[Sides]:
    """Stretches of consecutive launches, dealt A B B A.

    One begins at every second launch: where the next deals the same launches it deals them the
    other way round, so that what a stretch begins with favours neither side.
    """
    for begin in range(0, len(launches) - 2 * per_side + 1, 2):
        sides: tuple[list[Sequence[float]], list[Sequence[float]]] = ([], [])
        for place, samples in enumerate(launches[begin : begin + 2 * per_side]):
            sides[place % 4 in (1, 2)].append(samples)
        rounds = list(range(per_side))
        yield Sides(*sides, (rounds, rounds))


def noise_floor(root: Path, environment: dict[str, Any]) -> tuple[str, float] | None:
    """The last selftest of a machine under a folder: its run's name and floor; None if none."""
    for path in sorted(root.glob(f"*{NAME}*/{RUN}"), reverse=True):
        # What is damaged or was cut off is no reason against a comparison.
        with suppress(DabenchError):
            document = read_run(path.parent)
            if differing(document["environment"], environment, HARDWARE) is None:
                return path.parent.name, max(each.floor for each in read_selftest(path.parent))
    return None
