"""Whether an adversary and its discriminator do what they are for, told by their losses. No torch.

Let D be the discriminator's answer, the probability that it gives to "source", and all losses
binary cross-entropy. The segmenter's adversarial loss on the target is a = mean(-log D), the
discriminator's own loss there b = mean(-log(1 - D)).

* Whatever D is, b is at least -log(1 - exp(-a)), by convexity. Losses that are lower together
  cannot be of one D and opposite labels: what is called fooling labels the target as the
  discriminator already believes, and both work for the same end.
* The best possible D, s / (s + t) with the densities of source and target, sees a of at least
  ln 2: its mean over the target is at most 1/2, and -log is convex. Where nobody kept the
  discriminator's loss, an adversarial loss that stays below half of that is taken for none. One
  that is somewhat below may be that of a discriminator which lags behind.

What is healthy otherwise: the discriminator's loss about 0.2 to 0.5, the adversarial loss rising
(the author of AdaptSegNet, github.com/wasidennis/AdaptSegNet, issue 22).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dabench.records.trainings import EpochRow

CHANCE_LOSS = math.log(2)
"""Of a discriminator that cannot tell: 0.693."""

CHANCE_LIMIT = 0.68
"""A discriminator whose loss never fell to this stayed at chance."""

COOPERATES = "adversary cooperates"
AT_CHANCE = "discriminator at chance"
TOO_STRONG = "discriminator too strong"

FEWEST = 3
"""Epochs of a training that goes on, below which nothing is said: all begin at chance."""

_COOPERATION = 0.5 * CHANCE_LOSS
_SLACK = 1.1  # losses logged before and after an update are not of quite the same D
_STRONG_LOSS, _STRONG_ADVERSARIAL = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that is wrong with an adversary, with the numbers that say so."""

    flag: str
    evidence: str


def signs(
    adversarial: Sequence[float | None],
    discriminator: Sequence[float | None] = (),
    *,
    fewest: int = FEWEST,
) -> list[Sign]:
    """What is wrong with an adversarial training, by its losses so far; empty if nothing is.

    Args:
        adversarial: The adversarial loss of each epoch, before lambda; None where there is none.
            Below zero it is no cross-entropy, and nothing is said.
        discriminator: The discriminator's loss of each epoch, mean over both domains; empty or
            None where it was not kept.
        fewest: Epochs below which nothing is said.
    """
    fooling, telling = finite(adversarial), finite(discriminator)
    if len(fooling or telling) < max(fewest, 1) or min((*fooling, *telling)) < 0:
        return []
    found = _at_chance(fooling, telling)
    if found is None and fooling:
        both = (finite(pair) for pair in zip(adversarial, discriminator, strict=False))
        epochs = [(pair[0], pair[1]) for pair in both if len(pair) == 2]
        found = _cooperates(fooling, epochs) or _too_strong(fooling, telling)
    return [] if found is None else [found]


def signs_of(rows: Sequence[EpochRow], *, fewest: int = FEWEST) -> list[Sign]:
    """Of a run of dabench, by its rows so far (`signs`)."""
    fooling, telling = ([getattr(r, n) for r in rows] for n in ("adversarial_loss", "disc_loss"))
    return signs(fooling, telling, fewest=fewest)


def finite(values: Sequence[float | None]) -> list[float]:
    """Those that are numbers: a training that diverged has others."""
    return [value for value in values if value is not None and math.isfinite(value)]


def at_chance(discriminator: Sequence[float]) -> bool:
    """Whether a discriminator never left chance, by its loss of each epoch."""
    return min(discriminator) > CHANCE_LIMIT


def late(values: Sequence[float]) -> float:
    """The mean over the later half."""
    half = values[len(values) // 2 :]
    return sum(half) / len(half)


def _at_chance(fooling: Sequence[float], telling: Sequence[float]) -> Sign | None:
    if telling:
        if not at_chance(telling):
            return None
        what = f"its loss never fell below {min(telling):.3f}"
    else:
        furthest = max(abs(value - CHANCE_LOSS) for value in fooling)
        if furthest >= CHANCE_LOSS - CHANCE_LIMIT:
            return None
        what = f"the adversarial loss never left {CHANCE_LOSS:.3f} by more than {furthest:.3f}"
    return Sign(AT_CHANCE, f"{what}; one that cannot tell has {CHANCE_LOSS:.3f}")


def _cooperates(fooling: Sequence[float], epochs: Sequence[tuple[float, float]]) -> Sign | None:
    """Judges the epochs in which both losses are known, if there are any."""
    course = f"the adversarial loss goes from {fooling[0]:.2f} to {fooling[-1]:.2f}"
    if epochs:
        # It holds of the means of every epoch; in the first ones nothing has come of it yet.
        a, d = max(epochs[len(epochs) // 2 :], key=lambda epoch: _least(epoch[0]) - 2 * epoch[1])
        if _least(a) <= 2 * d * _SLACK:
            return None
        return Sign(
            COOPERATES,
            f"{course}; where it is {a:.2f}, the discriminator's loss on the target is at least "
            f"-ln(1 - exp(-{a:.2f})) = {_least(a):.2f} if the two want the opposite, and it is at "
            f"most twice {d:.2f}, its mean over both domains",
        )
    a = late(fooling)
    if a >= _COOPERATION:
        return None
    return Sign(
        COOPERATES,
        f"{course} (mean of the later half {a:.2f}); against the best discriminator it is at least "
        f"ln 2 = {CHANCE_LOSS:.2f}, and none that goes on learning stays fooled so: the target is "
        "labelled as what the discriminator believes of it already",
    )


def _least(a: float) -> float:
    """The least loss on the target of a discriminator that is fooled at a loss of a."""
    return -math.log(-math.expm1(-a)) if a > 0 else math.inf


def _too_strong(fooling: Sequence[float], telling: Sequence[float]) -> Sign | None:
    if telling:
        if (found := late(telling)) >= _STRONG_LOSS:
            return None
        what = f"its loss is {found:.2f} in the later half; 0.2 to 0.5 is healthy"
    else:
        if (found := late(fooling)) <= _STRONG_ADVERSARIAL:
            return None
        what = (
            f"the adversarial loss is {found:.1f} in the later half: it believes "
            f"{math.exp(-found):.1%} of the target to be source"
        )
    return Sign(TOO_STRONG, f"{what}; what the segmenter could learn from it fades")
