"""How many seeds decide whether one training is better than another by a margin.

Seeds are the replicates, and both sides have the same: what is judged is the difference of a
seed's two scores, by Student's t. Who looks again after every further seed until a verdict
falls gets one by chance in the end: looks have shares of the level in proportion to their
number, as those of timings have (`dabench.timing.verdicts`), whose sum is the level
(Bonferroni's inequality).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from dabench.timing.statistics import Interval, mean_interval

LEVEL = 0.05
"""Probability of a false verdict on one question."""

LOOKS = (3, 4, 6, 8, 11, 16, 23, 32, 45, 64)
"""Seeds after which one may look, up to the most that there may be."""

EQUAL = 1e-9
"""Differences within which scores are the same but for rounding."""

POWER = 0.8
"""Probability that the seeds which are said to be needed decide a difference."""

MOST_NEEDED = 1000

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What seeds say of a claim that a difference is larger than a margin.

    Attributes:
        verdict: ``holds``: it is larger; ``fails``: it is smaller.
        difference: With its own 95% interval.
        tested: The interval on which the verdict rests, widened for the looks.
        seeds: That were looked at.
    """

    verdict: Verdict
    difference: Interval
    tested: Interval
    seeds: int


def looks_up_to(most: int, first: int = 0) -> tuple[int, ...]:
    """After how many seeds one may look: of so many there may be, the first there are anyway."""
    return (*(look for look in LOOKS if first <= look < most), most)


def decide(
    differences: Sequence[float],
    margin: float,
    most: int,
    first: int = 0,
    *,
    over: bool = False,
) -> Decision | None:
    """A claim as it was decided one look after the other; the open one at its last look.

    The same again whenever it is asked with the same seeds, or with more of them.

    Args:
        differences: Of the scores, first seed first.
        margin: What the difference is claimed to exceed.
        most: Seeds there may be; it decides how the level is shared out.
        first: Seeds there are anyway: nobody looks before.
        over: Whether no more seeds will come. If some gave no score, the next look's share of
            the level serves for those that there are.

    Returns:
        None where there are fewer seeds than the first look takes, or than two if it is over.
    """
    looks = looks_up_to(most, first)
    latest: Decision | None = None
    for number, look in enumerate(looks):
        seeds = min(look, len(differences))
        if seeds < look:
            looked_at = 1 if latest is None else latest.seeds
            if not over or seeds <= looked_at:
                break
        level = LEVEL * 2 * (number + 1) / (len(looks) * (len(looks) + 1))
        latest = _judged(differences[:seeds], margin, level)
        if latest.verdict != "undecided":
            break
    return latest


def _judged(differences: Sequence[float], margin: float, level: float) -> Decision:
    seeds, mean, half = len(differences), fmean(differences), math.inf
    # Equal differences say that seeds were not drawn anew, not that they do not scatter.
    if max(differences) - min(differences) > EQUAL:
        half = float(stdtrit(seeds - 1, 1 - level / 2)) * stdev(differences) / math.sqrt(seeds)
    verdict: Verdict = "undecided"
    if mean - half > margin:
        verdict = "holds"
    elif mean + half < margin:
        verdict = "fails"
    tested = Interval(mean, mean - half, mean + half)
    return Decision(verdict, mean_interval(differences), tested, seeds)


def more_seeds(differences: Sequence[float], effect: float) -> int | None:
    """Further seeds with which a difference of that size would be decided, should they scatter so.

    Decided is: the 95% interval of the mean difference leaves out zero, with a probability of
    `POWER`.

    Args:
        differences: Of the scores, two seeds or more.
        effect: The difference that is to be told from none.

    Returns:
        0 where there are enough; None where no sensible number would do, or one seed says
        nothing of the scatter.
    """
    if len(differences) < 2:
        return None
    seeds = np.arange(len(differences), MOST_NEEDED)
    quantiles = stdtrit(seeds - 1, 1 - LEVEL / 2) + stdtrit(seeds - 1, POWER)
    with np.errstate(over="ignore", invalid="ignore"):  # of a spread without bounds none are
        enough = quantiles * stdev(differences) / np.sqrt(seeds) <= effect
    return int(enough.argmax()) if enough.any() else None
