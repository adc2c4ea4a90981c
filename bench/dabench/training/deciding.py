"""A claim about two trainings that further seeds decide: ``advent > adabn by 1``. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dabench.base.errors import bad_value, check_choice
from dabench.plan.methods import label_of, method_of
from dabench.timing.seeds import Decision, decide
from dabench.training.config import DISCRIMINATORS

OPTION = "--decide"
MOST_SEEDS = 10
"""Where nobody says how many there may be."""

_FORM = re.compile(
    r"\s*(?P<better>[^>\s][^>]*?)\s*>\s*(?P<than>[^>\s][^>]*?)(?:\s+by\s+(?P<by>\d+(?:\.\d+)?))?\s*"
)
_ALLOWED = "it takes such as 'advent > adabn by 1' (points of mIoU)"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two trainings."""

    method: str
    disc: str

    @property
    def label(self) -> str:
        """As runs are labelled."""
        return label_of(self.method, self.disc)


@dataclass(frozen=True, slots=True)
class Claim:
    """That one training beats another by more than a margin.

    Attributes:
        text: As it was typed.
        better: The one that is said to be better.
        than: The other.
        by: The margin, a fraction of mIoU.
    """

    text: str
    better: Side
    than: Side
    by: float


@dataclass(frozen=True, slots=True)
class Question:
    """A claim and how far one goes for it, as a suite keeps it.

    Attributes:
        text: The claim.
        better: Label of the one that is said to be better.
        than: Of the other.
        by: The margin, a fraction of mIoU.
        seeds: All there may be, in order.
        first: How many of them every training of the suite has.
    """

    text: str
    better: str
    than: str
    by: float
    seeds: tuple[int, ...]
    first: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `question_of` reads it back."""
        return asdict(self)


def parse_claim(text: str, disc: str) -> Claim:
    """Reads a claim.

    Args:
        text: ``METHOD [DISC] > METHOD [DISC] [by POINTS]``.
        disc: The discriminator of sides that train one and do not name it.

    Raises:
        UsageError: Of another form, an unknown method or discriminator, or one side twice.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise bad_value(OPTION, text, _ALLOWED)
    better, than = (_side(found[name], text, disc) for name in ("better", "than"))
    if better.label == than.label:
        raise bad_value(OPTION, text, "the two sides must differ")
    return Claim(text.strip(), better, than, float(found["by"] or 0) / 100)


def _side(words: str, text: str, disc: str) -> Side:
    name, *discs = words.split()
    if len(discs) > 1:
        raise bad_value(OPTION, text, _ALLOWED)
    for each in discs:
        check_choice(OPTION, each, DISCRIMINATORS)
    return Side(method_of(name, OPTION).name, discs[0] if discs else disc)


def question_of(document: Mapping[str, Any]) -> Question | None:
    """The question of a suite, from its document; None if it has none."""
    asked = document.get("decide")
    return None if asked is None else Question(**{**asked, "seeds": tuple(asked["seeds"])})


def answer(
    question: Question, scores: Mapping[str, Mapping[int, float]], *, over: bool = False
) -> Decision | None:
    """What the seeds so far say; None while there are too few.

    Args:
        question: Of the suite.
        scores: Label -> seed -> mIoU, of the runs that are done.
        over: Whether there will be no more.
    """
    ours, theirs = (scores.get(label, {}) for label in (question.better, question.than))
    differences = [
        ours[seed] - theirs[seed] for seed in question.seeds if seed in ours.keys() & theirs.keys()
    ]
    return decide(differences, question.by, len(question.seeds), question.first, over=over)


def further_seeds(seeds: Sequence[int], most: int) -> tuple[int, ...]:
    """Seeds that may follow others, up to so many in all."""
    start = max(seeds) + 1
    return tuple(range(start, start + most - len(seeds)))


def in_words(question: Question, decision: Decision | None) -> str:
    """One line for a person."""
    if decision is None:
        return f"{question.text}: undecided, fewer seeds have two scores than a first look takes"
    difference = decision.difference
    return (
        f"{question.text}: {decision.verdict} after {decision.seeds} seeds; difference "
        f"{100 * difference.estimate:+.1f} points, [{100 * decision.tested.low:+.1f}, "
        f"{100 * decision.tested.high:+.1f}] widened for the looks ([{100 * difference.low:+.1f}, "
        f"{100 * difference.high:+.1f}] as if nobody had looked before)"
    )
