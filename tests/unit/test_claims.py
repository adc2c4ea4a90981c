"""What logs of trainings say against what is claimed of them: planted cases, the published runs."""

import math
from dataclasses import replace

import pytest

from dabench.findings.claims import (
    BEST,
    BUDGETS,
    DIVERGED,
    LAMBDA,
    LOADER,
    NOT_IN_LOG,
    NOT_TRAINING,
    ONE_SEED,
    SAME_PACE,
    SELECTED,
    WOBBLE,
    adversary_signs,
    audit_trainings,
    pace_of,
    summary,
    waiting_share,
)
from dabench.findings.logs import Curve, TrainingLog, published_logs
from dabench.report.audit import published_trainings
from dabench.training.health import AT_CHANCE, COOPERATES


def curve(values, seconds=None, points=None):
    return Curve(
        tuple(points or range(len(values))),
        tuple(values),
        tuple(seconds or [math.nan] * len(values)),
    )


def log(name="a", curves=None, **facts):
    given = {
        metric: c if isinstance(c, Curve) else curve(c) for metric, c in (curves or {}).items()
    }
    return TrainingLog(**{"name": name, "source": "s", "curves": given, "label": name, **facts})


def found(*logs, printed=None):
    return {f.finding for f in audit_trainings(logs, printed)}


def flat(last, span=0.0):
    """mIoU of twelve epochs whose last ten span so much, in fractions."""
    return [0.1, 0.2, *[last - span] * 5, *[last] * 5]


def test_the_published_runs_say_what_is_wrong_with_them():
    findings = audit_trainings(*published_trainings())
    by_run = {(f.what, f.finding): f.evidence for f in findings}
    for run, course in (("3", "0.83 to 0.03"), ("4_A", "0.65 to 0.06"), ("4_B", "0.61 to 0.09")):
        assert f"from {course}" in by_run[run, COOPERATES]
    factors = {
        f.what: float(f.evidence.split("a factor of ")[1].split(";")[0])
        for f in findings
        if f.finding == NOT_TRAINING
    }
    assert factors == {
        "2_A": 2.0, "2_B": 1.6, "2_C_2": 1.25, "3": 1.33, "4_A": 1.33, "4_B": 1.34,
    }  # fmt: skip
    adapted = "2_C_2, 3, 4_A, 4_B"
    assert "15,600 of 2_C_2; 9,800 of 3, 4_A, 4_B" in by_run[adapted, BUDGETS]
    assert "4 trainings, each once" in by_run[adapted, ONE_SEED]
    assert (
        "differs by 1.0 points; over the last 10 epochs that of 3 spans 1.8, that of 4_A 1.7"
        in (by_run["3, 4_A", WOBBLE])
    )
    assert by_run["3, 4_A", SAME_PACE].endswith("-0.6%")
    # Table I is the last epoch's; others are in no epoch.
    assert {f.evidence.split(" prints")[0] for f in findings if f.finding == NOT_IN_LOG} == {
        "Table II", "Table III", "Table V", "Table VI", "Table VII",
    }  # fmt: skip
    assert SELECTED not in {f.finding for f in findings}


def test_what_nobody_says_of_lambda_is_told_from_the_first_epoch():
    runs = [replace(each, adversarial_weight=None) for each in published_logs()]
    flagged = {f.what for f in audit_trainings(runs) if f.finding == COOPERATES}
    assert flagged == {"3", "4_A", "4_B"}
    _, said = adversary_signs(next(each for each in runs if each.name == "3"))
    assert said == "taken as logged times 0.001, the same with others that are likely: "


@pytest.mark.parametrize(
    "course",
    [
        # Healthy if it was multiplied by 0.001, cooperating if by 0.01; and the other way round.
        [0.7e-3, 1.1e-3, 1.4e-3, 1.5e-3],
        [0.035, 0.03, 0.02, 0.015],
    ],
)
def test_what_depends_on_lambda_is_not_said(course):
    one = log(curves={"adversarial_loss": course})
    (finding,) = audit_trainings([one])
    assert finding.finding == LAMBDA
    assert "--lambda says it" in finding.evidence
    assert summary(one)["flags"] == []
    assert LAMBDA not in found(replace(one, adversarial_weight=1e-3))


def test_what_holds_for_every_lambda_needs_no_word():
    # Healthy whether it was multiplied by 0.1 or not at all.
    assert not found(log(curves={"adversarial_loss": [0.25, 0.4, 0.5, 0.45]}))


def test_weights_that_are_known_are_taken():
    fallen = [0.7, 0.3, 0.1, 0.1]
    assert COOPERATES in found(log(curves={"adversarial_loss": fallen}, adversarial_weight=1.0))
    assert not found(log(curves={"adversarial_loss": [0.7, 1.1, 1.5]}, adversarial_weight=1.0))
    assert not found(log())


def test_a_discriminators_loss_may_be_the_sum_over_domains():
    healthy = {"adversarial_loss": [0.7, 1.1, 1.4], "disc_loss": [1.38, 0.9, 0.75]}
    assert not found(log(curves=healthy, adversarial_weight=1.0))
    stuck = {"adversarial_loss": [0.7, 0.7, 0.7], "disc_loss": [1.386, 1.385, 1.386]}
    assert found(log(curves=stuck, adversarial_weight=1.0)) == {AT_CHANCE}


def test_best_and_last():
    assert BEST in found(log(curves={"miou": [0.1, 0.35, 0.34]}))
    assert BEST not in found(log(curves={"miou": [0.1, 0.344, 0.34]}))
    one = log(curves={"miou": [0.1, 0.35, 0.34]})
    assert SELECTED in found(one, printed={"a": {"the claim": "35.0"}})
    assert not {SELECTED, NOT_IN_LOG} & found(one, printed={"a": {"the claim": "34.0"}})
    assert NOT_IN_LOG in found(one, printed={"a": {"the claim": "36.1"}})
    # A figure without digits may be rounded by half a point, one with a digit by a twentieth.
    near = log(curves={"miou": [0.1, 0.3445, 0.3445]})
    assert NOT_IN_LOG not in found(near, printed={"a": {"the claim": "34"}})
    assert NOT_IN_LOG in found(near, printed={"a": {"the claim": "34.0"}})


def test_wobble_against_the_claim():
    steady, better = log("a", {"miou": flat(0.3)}), log("b", {"miou": flat(0.33)})
    assert WOBBLE not in found(steady, better)
    shaky = log("b", {"miou": flat(0.33, span=0.04)})
    assert WOBBLE in found(steady, shaky)
    assert ONE_SEED in found(steady, better)
    # Runs of other data are not compared, and seeds of one thing are no claim.
    assert WOBBLE not in found(steady, replace(shaky, group="elsewhere"))
    assert not {WOBBLE, ONE_SEED} & found(steady, replace(shaky, label="a"))
    # Seeds say more than the wobble of one run.
    more = [replace(steady, name=f"a{n}") for n in range(2)]
    assert not {WOBBLE, ONE_SEED} & found(*more, shaky)
    assert WOBBLE not in found(log("a", {"miou": [0.3] * 5}), log("b", {"miou": [0.3, 0.2]}))


def test_budgets():
    one = log("a", steps=1000)
    assert BUDGETS not in found(one, log("b", steps=1010))
    assert BUDGETS in found(one, log("b", steps=1100))
    assert BUDGETS not in found(one, log("b"))
    # By the steps that were logged, also where not each was.
    every, tenth = (
        log(name, {"loss_step": curve([1.0] * (1000 // apart), points=range(0, 1000, apart))})
        for name, apart in (("a", 1), ("b", 10))
    )
    assert BUDGETS not in found(every, tenth)
    assert BUDGETS in found(every, log("b", {"loss_step": [1.0] * 600}))
    # What is not over has no budget yet.
    assert BUDGETS not in found(one, log("b", steps=500, finished=False))


def stepwise(epochs=4, steps=10, step_s=2.0, rest_s=10.0):
    """A log of steps of 2 s each, epochs with 10 s of something else."""
    times, marks = [], []
    now = 0.0
    for _ in range(epochs):
        for _ in range(steps):
            now += step_s
            times.append(now)
        marks.append(now + 0.5)
        now += rest_s
    return {
        "loss_step": curve([1.0] * len(times), times),
        "loss": curve([1.0] * epochs, marks),
        "adversarial_loss_step": curve([0.7 + n // steps for n in range(len(times))], times),
    }


def test_time_per_epoch_from_steps():
    one = log(curves=stepwise())
    pace = pace_of(one)
    assert (pace.epoch_s, pace.training_s, pace.step_s) == (30.0, 20.0, 2.0)
    assert NOT_TRAINING in found(one)
    assert NOT_TRAINING not in found(log(curves=stepwise(rest_s=1.0)))
    # What was logged per step is taken epoch by epoch.
    told = summary(one)
    assert told["adversarial_first"] == pytest.approx(0.7)
    assert told["adversarial_last"] == pytest.approx(3.7)
    assert (told["steps"], told["epochs"]) == (40, 4)


def test_steps_without_epochs_are_taken_in_tenths():
    falling = [0.69 - 0.0067 * n for n in range(100)]
    both = {"adversarial_loss_step": falling, "disc_loss_step": falling}
    assert COOPERATES in found(log(curves=both, adversarial_weight=1.0))


def test_what_diverged_is_said_and_nothing_else_of_it():
    bad = {"adversarial_loss": [0.7, 1.0, math.nan, math.nan], "miou": [0.3, 0.2, math.nan, 0.1]}
    findings = audit_trainings([log(curves=bad, adversarial_weight=1.0)])
    assert {f.finding for f in findings} == {DIVERGED, BEST}
    evidence = {f.evidence for f in findings if f.finding == DIVERGED}
    assert "adversarial_loss is no number at 2 of 4 points, the first at 2" in evidence


def test_an_evaluation_before_training_is_no_epoch():
    evaluated = curve([0.1, 0.2, 0.3, 0.4], [5.0, 115.0, 225.0, 335.0])
    trained = curve([2.0, 1.0, 0.5], [105.0, 215.0, 325.0], points=(1, 2, 3))
    pace = pace_of(log(curves={"miou": evaluated, "loss": trained}))
    assert (pace.epoch_s, pace.training_s) == (110.0, 100.0)


def test_no_times_no_pace():
    assert pace_of(log(curves={"loss": [1.0, 0.5], "miou": [0.1, 0.2]})) is None
    assert pace_of(log()) is None
    assert summary(log())["epoch_s"] is None


def test_waiting_for_data():
    slow = log(curves={"data_s": [3.0, 3.0], "epoch_s": [10.0, 10.0]})
    assert waiting_share(slow) == pytest.approx(0.3)
    assert LOADER in found(slow)
    assert LOADER not in found(log(curves={"data_s": [0.5], "epoch_s": [10.0]}))
    assert waiting_share(log()) is None
