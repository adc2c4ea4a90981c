"""Which claims of trainings their own logs do not carry.

Every rule gives its arithmetic. Adversaries are judged in `dabench.training.health`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean, median
from typing import Any

from dabench.base.units import format_seconds
from dabench.findings.audit import Finding
from dabench.findings.logs import STEPWISE, Curve, TrainingLog
from dabench.training.health import (
    AT_CHANCE,
    CHANCE_LIMIT,
    CHANCE_LOSS,
    COOPERATES,
    FEWEST,
    TOO_STRONG,
    Sign,
    finite,
    signs,
)

BUDGETS = "budgets differ"
WOBBLE = "wobble as large as the claim"
ONE_SEED = "one seed"
BEST = "best epoch above the last"
SELECTED = "selected on target labels"
NOT_IN_LOG = "printed figure is not in the log"
NOT_TRAINING = "time per epoch is not training"
LOADER = "waits for data"
SAME_PACE = "a step takes as long"
LAMBDA = "lambda is not known"
DIVERGED = "diverged"

WINDOW = 10
"""Last epochs whose span is a run's wobble."""

_BUDGET_MARGIN = 0.02
_BEST_POINTS = 0.5
_TIME_MARGIN = 0.1
_LOADER_SHARE = 0.1
_POWERS = tuple(10.0**-n for n in range(6, -1, -1))
_FIRST = (0.02, 4.0)
"""Between which the adversarial loss of a first epoch may be."""
_NEAR_SUM = 0.15
_TENTHS = 10
_SAME_PACE = 0.02
_ROUNDED = 0.55  # points by which a figure printed without digits may be off


CLAIMS_RULE = (
    f"`{COOPERATES}`: the adversarial loss stays below what any discriminator that has learnt its "
    f"task gives, or it and the discriminator's are lower together than opposite labels allow; "
    f"`{AT_CHANCE}`: its loss never fell below {CHANCE_LIMIT}; `{TOO_STRONG}`: it leaves nothing "
    f"to learn from; `{BUDGETS}`: optimiser steps of runs that are compared, by more than "
    f"{_BUDGET_MARGIN:.0%}; `{WOBBLE}`: one run's mIoU spans more in its last {WINDOW} epochs than "
    f"two runs differ by; `{ONE_SEED}`: nothing says how far seeds scatter; `{BEST}`: by "
    f"{_BEST_POINTS} points or more; `{SELECTED}`: the printed figure is the best epoch's; "
    f"`{NOT_IN_LOG}`: it is neither the best nor the last; `{NOT_TRAINING}`: by more than "
    f"{_TIME_MARGIN:.0%}; `{LOADER}`: more than {_LOADER_SHARE:.0%} of training; `{SAME_PACE}`: "
    f"of two adversarial trainings, to {_SAME_PACE:.0%}; `{LAMBDA}`: and what is found depends on "
    f"it; `{DIVERGED}`: what was logged is no number"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Where the time of a run's epochs goes, each the median over its epochs but the first.

    Attributes:
        epoch_s: From one epoch to the next.
        training_s: From its first step to its last, or from the end of the evaluation before:
            then the start of the loaders is in it.
        step_s: Of training, per step; None where the steps are not known.
    """

    epoch_s: float
    training_s: float
    step_s: float | None


Printed = Mapping[str, Mapping[str, str]]
"""Name of a log -> where a figure of it was printed -> mIoU in percent, digit by digit."""


def audit_trainings(logs: Sequence[TrainingLog], printed: Printed | None = None) -> list[Finding]:
    """Every rule over every log, and over the logs of one group together.

    Args:
        logs: Of which those of one group are compared.
        printed: What was claimed of them.
    """
    found = [f for log in logs for f in _of_one(log, (printed or {}).get(log.name, {}))]
    by_group = attrgetter("group")
    for _, group in itertools.groupby(sorted(logs, key=by_group), key=by_group):
        # A training that goes on has no last epoch and no budget yet.
        found += _of_group([log for log in group if log.finished])
    return found


def _of_one(log: TrainingLog, printed: Mapping[str, str]) -> Iterator[Finding]:
    found, said = adversary_signs(log)
    for sign in found:
        yield _finding(log, sign.flag, f"{said}{sign.evidence}")
    if said and not found and log.adversarial_weight is None:
        yield _finding(log, LAMBDA, said)
    for metric, curve in log.curves.items():
        bad = [p for p, v in zip(curve.points, curve.values, strict=True) if not math.isfinite(v)]
        if bad:
            where = f"at {len(bad)} of {len(curve.points)} points, the first at {bad[0]}"
            yield _finding(log, DIVERGED, f"{metric} is no number {where}")
    if miou := _known(log.curves.get("miou")):
        yield from _best(log, miou, printed)
    pace = pace_of(log)
    if pace and 0 < (1 + _TIME_MARGIN) * pace.training_s < pace.epoch_s:
        step = "" if pace.step_s is None else f", {format_seconds(pace.step_s)} a step"
        yield _finding(
            log,
            NOT_TRAINING,
            f"{format_seconds(pace.epoch_s)} from epoch to epoch, of which at most "
            f"{format_seconds(pace.training_s)} train{step}: a factor of "
            f"{pace.epoch_s / pace.training_s:.2f}; the rest evaluates and starts loaders",
        )
    waiting = waiting_share(log)
    if waiting is not None and waiting > _LOADER_SHARE:
        yield _finding(log, LOADER, f"{waiting:.0%} of an epoch's training waits for data")


def _known(curve: Curve | None) -> list[tuple[int, float]]:
    """Points of a curve whose values are numbers."""
    if curve is None:
        return []
    points = zip(curve.points, curve.values, strict=True)
    return [(point, value) for point, value in points if math.isfinite(value)]


def adversary_signs(log: TrainingLog) -> tuple[list[Sign], str]:
    """What is wrong with a log's adversary, and what had to be assumed of it.

    Where nobody says by what the adversarial loss was multiplied, every power of ten is tried with
    which the first epoch's mean is likely, since the discriminator begins at chance; nothing is
    wrong unless it is with each of them.
    """
    fooling, telling = per_epoch(log, "adversarial_loss"), _telling(log)
    weights = _weights(log)
    each = [
        signs([a / weight for a in fooling], telling, fewest=1 if log.finished else FEWEST)
        for weight in weights
    ]
    weight = weights[0]
    if log.adversarial_weight is not None or (weight == 1 and len(weights) == 1):
        return each[0], "" if weight == 1 else f"logged times {weight:g}: "
    named = ", ".join(f"{w:g}" for w in weights)
    if len({tuple(sign.flag for sign in found) for found in each}) > 1:
        return [], f"it depends on by what the loss was multiplied ({named}?): --lambda says it"
    said = f"taken as logged times {weight:g}, the same with others that are likely: "
    return each[0], said if each[0] else ""


def _weights(log: TrainingLog) -> list[float]:
    """By what an adversarial loss may have been multiplied; the smallest first."""
    if log.adversarial_weight is not None:
        return [log.adversarial_weight]
    first = next(iter(finite(per_epoch(log, "adversarial_loss"))), 0.0)
    likely = [w for w in _POWERS if _FIRST[0] <= first / w <= _FIRST[1]]
    return likely or [1.0]


def _telling(log: TrainingLog) -> list[float]:
    """The discriminator's loss as a mean over both domains; many log the sum, 1.39 at chance."""
    losses = per_epoch(log, "disc_loss")
    first = next(iter(finite(losses)), 0.0)
    return [loss / 2 for loss in losses] if abs(first - 2 * CHANCE_LOSS) < _NEAR_SUM else losses


def per_epoch(log: TrainingLog, metric: str) -> list[float]:
    """A loss epoch by epoch: as logged, or means over what was logged step by step.

    Steps are split where something was logged once per epoch; where nothing was, into tenths.
    """
    if metric in log.curves:
        return list(log.curves[metric].values)
    steps = log.curves.get(metric + STEPWISE)
    if steps is None:
        return []
    parts = list(_cut(log, steps, steps.values))
    if len(parts) == 1 and len(steps.values) >= _TENTHS:
        ends = [round(n * len(steps.values) / _TENTHS) for n in range(_TENTHS + 1)]
        parts = [steps.values[a:b] for a, b in itertools.pairwise(ends)]
    return [fmean(known) for part in parts if (known := finite(part))]


def _cut(log: TrainingLog, steps: Curve, values: Sequence[float]) -> Iterator[Sequence[float]]:
    """Splits what was logged step by step where an epoch's points were logged."""
    marks = next((log.curves[name] for name in ("loss", "miou") if name in log.curves), None)
    begun = 0
    for end in () if marks is None else marks.seconds:
        ended = begun
        while ended < len(steps.seconds) and steps.seconds[ended] <= end:
            ended += 1
        if ended > begun:
            yield values[begun:ended]
        begun = ended
    if begun < len(values):
        yield values[begun:]


def pace_of(log: TrainingLog) -> Pace | None:
    """Where the time goes; None where points have no times or epochs are too few."""
    logged = log.curves.get("loss" + STEPWISE)
    if logged is not None:
        parts = [part for part in _cut(log, logged, logged.seconds) if len(part) > 1][1:]
        # Of n steps n - 1 lie between the first and the last.
        training = [(part[-1] - part[0]) * len(part) / (len(part) - 1) for part in parts]
        whole = [b[0] - a[0] for a, b in itertools.pairwise(parts)]
    elif "loss" in log.curves and "miou" in log.curves:
        ends = dict(zip(log.curves["loss"].points, log.curves["loss"].seconds, strict=True))
        evaluated = dict(zip(log.curves["miou"].points, log.curves["miou"].seconds, strict=True))
        training = [end - evaluated[e - 1] for e, end in ends.items() if e - 1 in evaluated]
        whole = [end - ends[e - 1] for e, end in ends.items() if e - 1 in evaluated.keys() & ends]
    else:
        return None
    if not training or not whole or any(map(math.isnan, (*training, *whole))):
        return None
    steps = steps_of(log)
    epochs = len(per_epoch(log, "loss"))
    step = median(training) * epochs / steps if steps and epochs else None
    return Pace(median(whole), median(training), step)


def steps_of(log: TrainingLog) -> int | None:
    """Optimiser steps of the whole run, if they are known; perhaps not every step was logged."""
    logged = log.curves.get("loss" + STEPWISE)
    if log.steps is not None or logged is None or len(logged.points) < 2:
        return log.steps
    apart = median(b - a for a, b in itertools.pairwise(logged.points))
    return round(logged.points[-1] - logged.points[0] + apart)


def waiting_share(log: TrainingLog) -> float | None:
    """The share of training in which a step waited for data; None where it was not kept."""
    waited, trained = log.curves.get("data_s"), log.curves.get("epoch_s")
    if waited is None or trained is None:
        return None
    seconds = [sum(finite(curve.values)) for curve in (waited, trained)]
    return seconds[0] / seconds[1] if seconds[1] > 0 else None


def _best(
    log: TrainingLog, miou: Sequence[tuple[int, float]], printed: Mapping[str, str]
) -> Iterator[Finding]:
    last = miou[-1][1]
    at, best = max(miou, key=lambda point: point[1])
    course = f"last {_percent(last)}, best {_percent(best)} (epoch {at})"
    if log.finished and 100 * (best - last) >= _BEST_POINTS:
        yield _finding(
            log,
            BEST,
            f"mIoU {course}: {100 * (best - last):.1f} points that only who looks at the labels "
            "of the evaluated frames can choose",
        )
    for where, text in printed.items():
        rounding = _ROUNDED * 10.0 ** -len(text.partition(".")[2])
        of_last, of_best = (abs(float(text) - 100 * each) <= rounding for each in (last, best))
        if not of_last:
            what = SELECTED if of_best else NOT_IN_LOG
            yield _finding(log, what, f"{where} prints {text}%; mIoU {course}")


def _of_group(logs: Sequence[TrainingLog]) -> Iterator[Finding]:
    """What is wrong with comparing runs."""
    if len(logs) < 2:
        return
    known = {
        log.name: steps
        for log in logs
        if not log.by_seconds and (steps := steps_of(log)) is not None
    }
    if known and max(known.values()) > (1 + _BUDGET_MARGIN) * min(known.values()):
        each = "; ".join(
            f"{steps:,} of {', '.join(name for name in known if known[name] == steps)}"
            for steps in sorted(set(known.values()), reverse=True)
        )
        yield _of_several(logs, BUDGETS, f"optimiser steps on the source: {each}")
    scored = [log for log in logs if _known(log.curves.get("miou"))]
    seeds = Counter(log.label for log in scored)
    if len(seeds) > 1 and max(seeds.values()) == 1:
        yield _of_several(
            scored,
            ONE_SEED,
            f"{len(seeds)} trainings, each once: how far seeds scatter is not known, and no "
            "difference can be held against it",
        )
    for one, two in itertools.combinations(scored, 2):
        if seeds[one.label] == seeds[two.label] == 1 and one.label != two.label:
            yield from _wobble(one, two)
    fooling = [log for log in logs if per_epoch(log, "adversarial_loss")]
    for one, two in itertools.combinations(fooling, 2):
        yield from _same_pace(one, two)


def _same_pace(one: TrainingLog, two: TrainingLog) -> Iterator[Finding]:
    """Whether a step with one discriminator takes as long as with another."""
    paces = [pace_of(log) for log in (one, two)]
    a, b = (pace and pace.step_s for pace in paces)
    if one.label != two.label and a and b and abs(b / a - 1) < _SAME_PACE:
        yield _of_several(
            (one, two),
            SAME_PACE,
            f"{format_seconds(a, 4)} with {one.label}, {format_seconds(b, 4)} with {two.label}: "
            f"{b / a - 1:+.1%}",
        )


def _wobble(one: TrainingLog, two: TrainingLog) -> Iterator[Finding]:
    ends = [[value for _, value in _known(log.curves["miou"])][-WINDOW:] for log in (one, two)]
    if min(map(len, ends)) < WINDOW:
        return
    spans = [100 * (max(values) - min(values)) for values in ends]
    claim = 100 * abs(ends[0][-1] - ends[1][-1])
    if claim < max(spans):
        yield _of_several(
            (one, two),
            WOBBLE,
            f"mIoU of the last epochs differs by {claim:.1f} points; over the last {WINDOW} epochs "
            f"that of {one.name} spans {spans[0]:.1f}, that of {two.name} {spans[1]:.1f}",
        )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _finding(log: TrainingLog, finding: str, evidence: str) -> Finding:
    return Finding(source=log.source, machine="", what=log.name, finding=finding, evidence=evidence)


def _of_several(logs: Sequence[TrainingLog], finding: str, evidence: str) -> Finding:
    return Finding(
        source=", ".join(dict.fromkeys(log.source for log in logs)),
        machine="",
        what=", ".join(log.name for log in logs),
        finding=finding,
        evidence=evidence,
    )


def summary(log: TrainingLog) -> dict[str, Any]:
    """A training in numbers, as its log tells them; None for what it does not.

    ``miou`` to ``span`` are fractions: of the last epoch, the best, and from the lowest to the
    highest of the last `WINDOW`. ``adversarial_first`` and ``adversarial_last`` are means of an
    epoch before lambda. Times are those of `Pace`; ``waiting`` is a share of training.
    """
    found, _ = adversary_signs(log)
    weight, telling = _weights(log)[0], finite(_telling(log))
    fooling = [value / weight for value in finite(per_epoch(log, "adversarial_loss"))]
    miou = [value for _, value in _known(log.curves.get("miou"))]
    pace = pace_of(log)
    return {
        "run": log.name,
        "label": log.label,
        "group": log.group,
        "epochs": len(per_epoch(log, "loss")) or len(miou),
        "steps": steps_of(log),
        "miou": miou[-1] if miou else None,
        "best_miou": max(miou) if miou else None,
        "span": max(miou[-WINDOW:]) - min(miou[-WINDOW:]) if len(miou) >= WINDOW else None,
        "adversarial_first": fooling[0] if fooling else None,
        "adversarial_last": fooling[-1] if fooling else None,
        "disc_loss_last": telling[-1] if telling else None,
        "epoch_s": pace and pace.epoch_s,
        "training_s": pace and pace.training_s,
        "step_s": pace and pace.step_s,
        "waiting": waiting_share(log),
        "flags": [sign.flag for sign in found],
    }
