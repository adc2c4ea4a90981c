"""Which cases of a comparison are measured further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dabench.plan.cases import PlannedCase
from dabench.records.comparisons import Comparison, sides_of
from dabench.records.measurements import LaunchRecord
from dabench.timing.clock import Clock, host_clock
from dabench.timing.verdicts import LOOKS, Sides, judge_sequentially, next_look


class Decider:
    """Asks for further launches of the pairs that are not decided, until time is up.

    Args:
        asked: The comparison.
        plan: Its cases.
        clock: The host's; time runs from here on.
    """

    def __init__(
        self, asked: Comparison, plan: Sequence[PlannedCase], clock: Clock = host_clock
    ) -> None:
        self._asked = asked
        self._cases = {planned.case.case_id: planned.case for planned in plan}
        self._clock = clock
        self._begin = clock()

    def __call__(self, launches: Mapping[str, Sequence[LaunchRecord]]) -> set[str]:
        """The cases that are to run again, by their launches so far."""
        if not self._asked.decide or self._is_late(max(map(len, launches.values()))):
            return set()
        undecided = self._undecided(launches)
        wanted = set()
        for pair in self._asked.pairs:
            if pair in undecided and all(map(next_look, map(len, map(launches.__getitem__, pair)))):
                wanted |= set(pair)
        return wanted

    def _is_late(self, rounds: int) -> bool:
        """Whether one more round, as long as the others, would end too late."""
        spent_s = self._clock() - self._begin
        return spent_s + spent_s / rounds > self._asked.max_time_s

    def _undecided(self, launches: Mapping[str, Sequence[LaunchRecord]]) -> set[tuple[str, str]]:
        """The pairs of which some phase is open; a pair that failed is none."""
        family: dict[tuple[str, str, str], Sides] = {}
        for base, new in self._asked.pairs:
            case = self._cases[base]
            if any(each.status != "ok" for side in (base, new) for each in launches[side]):
                continue
            for phase in case.phases:
                sides = sides_of(
                    launches[base], launches[new], phase, case.protocol, alternated=True
                )
                if sides.launches >= LOOKS[0]:
                    family[base, new, phase] = sides
        judged = judge_sequentially(family, self._asked.delta)
        return {key[:2] for key, each in judged.items() if each.verdict == "undecided"}
