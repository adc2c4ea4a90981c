"""Launches dealt to machines of one kind, so that what is compared is compared fairly.

No two machines are equally fast, not even of one kind. A round, in which cases alternate, is
therefore one machine's as a whole: what differs between machines is in both sides of a pair. Where
there are at least twice as many machines as rounds a round is shared by several, each of which has
a part of the cases; pairs are then no pairs, and launches belong to no round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence

from dabench.plan.cases import PlannedCase


class Lanes:
    """What each machine has to do still.

    Args:
        due: Rounds, if they belong to any, and cases, in order.
        count: How many machines there are.
    """

    def __init__(self, due: Sequence[tuple[int | None, PlannedCase]], count: int) -> None:
        rounds = {number: place for place, number in enumerate(dict(due))}
        # No two launches of a case on one machine, as long as there are enough of them.
        parts = max(count // max(len(rounds), 1), 1)
        cases = {each.case.case_id: None for _, each in due}
        part = {case_id: place % parts for place, case_id in enumerate(cases)}
        self._alternate = parts == 1
        self._had: list[set[str]] = [set() for _ in range(count)]
        self._enough = count >= len(rounds)
        self._lanes: list[deque[tuple[int | None, PlannedCase]]] = [deque() for _ in range(count)]
        for number, planned in due:
            lane = rounds[number] * parts + part[planned.case.case_id]
            self._lanes[lane % count].append((number, planned))

    @property
    def left(self) -> int:
        """How many launches are due."""
        return sum(map(len, self._lanes))

    def next_of(
        self, free: Iterable[int], running: Container[str]
    ) -> tuple[int, int | None, PlannedCase] | None:
        """Takes the next launch that a free machine can make.

        Args:
            free: Machines that wait.
            running: Cases that none should run now.

        Returns:
            The machine, the round and the case; None if none can do anything. A machine without
            work takes over what another one would do last, which then belongs to no round.
        """
        idle = []
        for lane in free:
            for place, (number, planned) in enumerate(self._lanes[lane]):
                if planned.case.case_id not in running:
                    del self._lanes[lane][place]
                    self._had[lane].add(planned.case.case_id)
                    return lane, number if self._alternate else None, planned
            if not self._lanes[lane]:
                idle.append(lane)
        for lane in idle:
            if (other := self._taken_over(lane, running)) is not None:
                self._had[lane].add(other.case.case_id)
                return lane, None, other
        return None

    def _taken_over(self, lane: int, running: Container[str]) -> PlannedCase | None:
        """What another machine would do last, best of a case that this one has not had.

        Where there are machines enough for every launch of a case only of such a one.
        """
        again = [False] if self._enough else [False, True]
        for had in again:
            for other in sorted(self._lanes, key=len, reverse=True):
                for place in reversed(range(len(other))):
                    _, planned = other[place]
                    name = planned.case.case_id
                    if name not in running and (had or name not in self._had[lane]):
                        del other[place]
                        return planned
        return None
