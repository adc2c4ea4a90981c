"""Which cases of a comparison, or of a choice, are measured further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dabench.plan.cases import PlannedCase
from dabench.records.choices import Limits, races
from dabench.records.comparisons import Comparison, Family, Side
from dabench.records.measurements import LaunchRecord
from dabench.timing.clock import Clock, host_clock
from dabench.timing.verdicts import next_look

Launches = Mapping[str, Sequence[LaunchRecord]]


class Decider:
    """Asks for further launches of the pairs that are not decided, until time is up.

    Args:
        asked: The comparison.
        plan: Its cases.
        done: Launches that an interrupted run has already.
        clock: The host's; time runs from here on.
    """

    def __init__(
        self,
        asked: Comparison,
        plan: Sequence[PlannedCase],
        done: int = 0,
        clock: Clock = host_clock,
    ) -> None:
        self._asked = asked
        self._plan = {planned.case.case_id: planned for planned in plan}
        self._done = done
        self._clock = clock
        self._begin = clock()

    def __call__(self, launches: Launches) -> set[str]:
        """The cases that are to run again, by their launches so far."""
        wanted: set[str] = set()
        if self._asked.decide:
            for pair in self._open(launches):
                fewest = min(len(launches[case_id]) for case_id in pair)
                if next_look(fewest) is not None:
                    # After an interruption one side may be ahead.
                    wanted |= {each for each in pair if len(launches[each]) == fewest}
        ran = sum(map(len, launches.values())) - self._done
        return set() if self._is_late(ran, len(wanted)) else wanted

    def _is_late(self, ran: int, wanted: int) -> bool:
        """Whether so many further launches, as long as those that ran, would end too late."""
        return _is_late(self._clock() - self._begin, ran, wanted, self._asked.max_time_s)

    def _open(self, launches: Launches) -> list[tuple[str, str]]:
        """The pairs of which a phase is undecided or disturbed; those that failed are none."""
        sides = {
            case_id: Side(planned.case, launches[case_id], {}, planned.impossible)
            for case_id, planned in self._plan.items()
        }
        pairs = [(sides[base], sides[new]) for base, new in self._asked.pairs]
        family = Family.of(pairs, alternated=True)
        judged = family.judged(self._asked.delta, sequential=True)
        undecided = [
            key[:2]
            for key in family.pairs
            if family.failure(key) is None
            and (
                key not in judged
                or judged[key].verdict == "undecided"
                or family.disturbance(key, judged[key]) is not None
            )
        ]
        return list(dict.fromkeys(undecided))


class Halver:
    """Asks for further launches of what may still be chosen, until time is up.

    Args:
        limits: Of the choice.
        plan: Its cases.
        done: Launches that an interrupted run has already.
        clock: The host's; time runs from here on.
    """

    def __init__(
        self,
        limits: Limits,
        plan: Sequence[PlannedCase],
        done: int = 0,
        clock: Clock = host_clock,
    ) -> None:
        self._limits = limits
        self._plan = plan
        self._done = done
        self._clock = clock
        self._begin = clock()

    def __call__(self, launches: Launches) -> set[str]:
        """The cases that are to run again, by their launches so far."""
        wanted = {
            case_id
            for race in races(self._plan, launches, self._limits).values()
            for case_id in race.left
            if race.launches is not None and len(launches[case_id]) < race.launches
        }
        ours = [each for some in launches.values() for each in some if each.launch >= self._done]
        spent_s = self._clock() - self._begin
        further = [_again_s(launches[case_id]) for case_id in wanted]
        share = _share(further, [each.seconds for each in ours])
        return set() if spent_s * (1 + share) > self._limits.max_time_s else wanted


def _again_s(launches: Sequence[LaunchRecord]) -> float:
    """Seconds of another launch: what the first one tried, compiled or exported is there."""
    last = launches[-1]
    compiled_s = 0.0
    if len(launches) == 1:
        spent = {"tried_s": 1, "compile_s": 1, "exported_before_s": -1}  # the last by another case
        compiled_s = sum(sign * float(last.device.get(key) or 0.0) for key, sign in spent.items())
    return max(last.seconds - compiled_s, sum(phase.spent_s or 0.0 for phase in last.phases))


def _share(further: Sequence[float], ran: Sequence[float]) -> float:
    """Time of further launches, in that of those that ran; where nobody timed these, by number."""
    if sum(ran) > 0:
        return sum(further) / sum(ran)
    return len(further) / max(len(ran), 1)


def _is_late(spent_s: float, ran: int, wanted: int, limit_s: float) -> bool:
    """Whether so many further launches, as long as those that ran, would end too late."""
    return spent_s + spent_s / max(ran, 1) * wanted > limit_s
