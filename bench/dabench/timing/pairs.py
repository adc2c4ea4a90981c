"""Two passes of one process against each other: what both share, such as the launch, is out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dabench.timing.clock import Clock
from dabench.timing.statistics import Interval, student

PAIRS = 12
"""Timed pairs; as many passes of each."""

WARMUP = 2
"""Untimed pairs before them."""

Pass = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of the passes of both, pair by pair."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    def ratio(self) -> Interval:
        """First over second: the mean of the logarithms, with Student's 95% interval."""
        logs = np.log(np.asarray(self.first)) - np.log(np.asarray(self.second))
        centre, half = (float(each) for each in student(logs))
        return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def measure_pairs(
    first: Pass, second: Pass, clock: Clock, synchronize: Callable[[], None], pairs: int = PAIRS
) -> Pairs:
    """Times two passes in turn, A B B A, each from an idle device until its work is done.

    Args:
        first: A pass.
        second: Another one.
        clock: The host's.
        synchronize: Waits for the device.
        pairs: How many are timed.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(WARMUP + pairs):
        for side in ((0, 1), (1, 0))[number % 2]:
            synchronize()
            begin = clock()
            (first, second)[side]()
            synchronize()
            if number >= WARMUP:
                seconds[side].append(clock() - begin)
    return Pairs(tuple(seconds[0]), tuple(seconds[1]))
