"""Where a training step's time goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from dabench.records.trainings import EPOCH_PARTS
from dabench.timing.clock import Clock


class Stopwatch:
    """Adds up the seconds of each part of the steps.

    On a device that queues work every part is synchronised, so that it holds
    its own work; the time this costs is the price of knowing.
    """

    def __init__(self, clock: Clock, synchronize: Callable[[], object] = lambda: None) -> None:
        self._clock = clock
        self._synchronize = synchronize
        self.seconds = dict.fromkeys(EPOCH_PARTS, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times one part."""
        begin = self._clock()
        yield
        self._synchronize()
        self.seconds[name] += self._clock() - begin

    @contextlib.contextmanager
    def side_by_side(self) -> Iterator[tuple[Stopwatch, Stopwatch]]:
        """A watch for each of two threads that work at once.

        The time until both are done is shared out to their parts in proportion
        to what each took, so that parts still add up to what passed.
        """
        both = (
            Stopwatch(self._clock, self._synchronize),
            Stopwatch(self._clock, self._synchronize),
        )
        begin = self._clock()
        yield both
        passed = self._clock() - begin
        taken = {name: sum(watch.seconds[name] for watch in both) for name in EPOCH_PARTS}
        whole = sum(taken.values())
        for name, seconds in taken.items():
            self.seconds[name] += passed * seconds / whole if whole else 0.0

    def reset(self) -> dict[str, float]:
        """Returns the seconds so far and starts again."""
        seconds, self.seconds = self.seconds, dict.fromkeys(EPOCH_PARTS, 0.0)
        return seconds
