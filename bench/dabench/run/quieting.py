"""How a machine scatters as it is and with threads kept in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from tempfile import TemporaryDirectory

from scipy.special import fdtri

from dabench.device.tuning import pinned
from dabench.plan.settings import Grid, Settings
from dabench.records.timings import read_launches
from dabench.run.session import NoProgress, run_grids
from dabench.timing.statistics import TAIL, quantile

LAUNCHES = 4
"""In each of four turns: as it is, in place, in place, as it is."""

REPEAT = 30
TURN_S = 15.0


@dataclass(frozen=True, slots=True)
class Noise:
    """How the times of one small network scatter.

    Attributes:
        launches: How many processes there were.
        between: Standard deviation of the logarithms of their medians.
        within: Median over them of the 5th to 95th percentile's width over the median.
        median_s: Median over launches, in seconds.
    """

    launches: int
    between: float
    within: float
    median_s: float


def noise_of(launches: Sequence[Sequence[float]]) -> Noise:
    """What launches say of the noise.

    Args:
        launches: Positive samples of each of two launches or more, in seconds.
    """
    medians = [median(samples) for samples in launches]
    widths = [
        (quantile(ordered, 0.95) - quantile(ordered, 0.05)) / median(ordered)
        for ordered in map(sorted, launches)
    ]
    return Noise(len(launches), stdev(map(math.log, medians)), median(widths), median(medians))


def beyond_chance(launches: int) -> float:
    """Ratio of two scatters over so many launches each that chance exceeds in 5 of 100 (F-test)."""
    return math.sqrt(float(fdtri(launches - 1, launches - 1, 1 - TAIL)))


def noise_before_and_after(cores: Sequence[int]) -> tuple[Noise, Noise]:
    """Measures as it is and pinned to some cores, A B B A."""
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    for tuned in (False, True, True, False):
        with pinned(cores) if tuned else nullcontext():
            found[tuned].extend(_turn())
    return noise_of(found[0]), noise_of(found[1])


def _turn() -> list[list[float]]:
    grid = Grid(models=("dw-disc",), devices=("cpu",), sizes=((128, 128),))
    settings = Settings.of(repeat=REPEAT, launches=LAUNCHES, max_time_s=TURN_S)
    with TemporaryDirectory(prefix="dabench-") as scratch:
        folder = Path(scratch) / "noise"
        session = run_grids(
            [(grid, settings)], folder=folder, observer=NoProgress(), command="noise"
        )
        if session.outcome.interrupted:
            raise KeyboardInterrupt
        return [
            [sample.wall_s for sample in phase.samples.samples]
            for launch in read_launches(folder)
            for phase in launch.phases
        ]
