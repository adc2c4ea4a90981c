"""Times of the stages of one pass, beside that of the pass as a whole.

A clock between two stages must wait for the device, which takes the overlap of what the host
asks and what the device does out of the pass. So passes that are taken apart alternate with
passes that are not: whoever adds the stages up can see by how much they miss the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dabench.timing.clock import Clock

Stage = Callable[[Any], Any]
"""Takes what the stage before it gave; the first takes None."""


@dataclass(frozen=True, slots=True)
class StageSamples:
    """Seconds of passes.

    Attributes:
        whole: Of each pass that was not taken apart.
        stages: Of each stage of each pass that was.
    """

    whole: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]


def measure_stages(
    stages: Sequence[Stage],
    clock: Clock,
    synchronize: Callable[[], None],
    *,
    warmup: int,
    passes: int,
) -> StageSamples:
    """Times passes as a whole and taken apart, in turn: A B B A.

    Args:
        stages: In order.
        clock: The host's.
        synchronize: Waits for the device.
        warmup: Untimed passes of each kind.
        passes: Timed passes of each kind.
    """
    whole: list[float] = []
    apart: list[tuple[float, ...]] = []
    for number in range(warmup + passes):
        for taken_apart in ((False, True), (True, False))[number % 2]:
            seconds = _one_pass(stages, clock, synchronize, taken_apart=taken_apart)
            if number < warmup:
                continue
            if taken_apart:
                apart.append(seconds)
            else:
                whole.append(seconds[0])
    return StageSamples(tuple(whole), tuple(apart))


def _one_pass(
    stages: Sequence[Stage],
    clock: Clock,
    synchronize: Callable[[], None],
    *,
    taken_apart: bool,
) -> tuple[float, ...]:
    value: Any = None
    marks: list[float] = []
    synchronize()
    begin = clock()
    for stage in stages:
        value = stage(value)
        if taken_apart:
            synchronize()
            marks.append(clock())
    if not taken_apart:
        synchronize()
        marks.append(clock())
    return tuple(end - start for start, end in zip([begin, *marks], marks, strict=False))
