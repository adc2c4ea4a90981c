"""Whole passes with one thing changed: what is timed, and what comes of it."""

import pytest
from fakes import make_case, make_launch
from records import write_record

from dabench.findings.trials import FOLDER, changed, read_trials, trial_grids
from dabench.plan.cases import PlannedCase, expand
from dabench.plan.settings import Grid, Settings
from dabench.records.measurements import failed, summarise


def grid(**changes):
    known = {
        "models": ("disc", "dw-disc"), "devices": ("cpu",), "batches": (2,), "dtypes":
        ("fp32", "bf16"), "memory_formats": ("nchw", "nhwc"), "phases": ("forward", "backward"),
    }  # fmt: skip
    return Grid(**{**known, **changes})


def changes_of(grids):
    base = None
    for each, settings in grids:
        for planned in expand(each, settings):
            case = planned.case
            found = (case.compile, case.batch, case.threads)
            base = base or found
            yield sum(a != b for a, b in zip(found, base, strict=True)), found, case


def test_one_thing_is_changed_at_a_time():
    found = list(changes_of(trial_grids(grid(threads=(1,)), cores=4)))
    assert {(count, changed) for count, changed, _ in found} == {
        (0, ("off", 2, 1)), (1, ("default", 2, 1)), (1, ("off", 1, 1)), (1, ("off", 8, 1)),
        (1, ("off", 2, 4)),
    }  # fmt: skip
    assert {case.model for *_, case in found} == {"disc", "dw-disc"}
    assert {(case.dtype, case.memory_format, case.phases) for *_, case in found} == {
        ("fp32", "nchw", ("forward",))
    }


def test_one_core_has_no_other_number_of_threads():
    assert {c[2] for _, c, _ in changes_of(trial_grids(grid(), cores=1))} == {0}
    assert {c[2] for _, c, _ in changes_of(trial_grids(grid(), cores=2))} == {0, 1}


def test_memory_is_kept_where_it_can_be():
    planned = [each for each, _ in trial_grids(grid(), cores=1, keeps=True)]
    assert [each.allocators for each in planned].count(("keep",)) == 1
    assert {each.allocators for each, _ in trial_grids(grid(), cores=1)} == {("default",)}


def test_training_is_timed_as_whole_steps():
    cases = [case for *_, case in changes_of(trial_grids(grid(modes=("train",)), cores=1))]
    assert {case.phases for case in cases} == {("total",)}


def write_trials(folder, seconds):
    """{(model, compile, batch): seconds per pass}"""
    cases = [make_case(model=m, compile=c, batch=b) for m, c, b in seconds]
    plan = [PlannedCase(case=case, settings=Settings.of()).to_dict() for case in cases]
    writer = write_record(folder / FOLDER, plan=plan)
    rows, number = [], 0
    for case, base in zip(cases, seconds.values(), strict=True):
        if base is None:
            rows += failed(case, "oom", "too large")
            continue
        compiled = case.compile
        facts = {"device_name": "c", "threads": 2, "precision": "as is", "loss": None}
        facts |= {"compile_s": 7.0} if compiled != "off" else {}
        launches = []
        for _ in range(3):
            launches.append(make_launch(case, [base] * 3, launch=number, device=facts))
            writer.launch(launches[-1])
            number += 1
        rows += summarise(case, launches, {}, None)
    writer.measurements(rows, number)


def test_gains_are_per_image_and_ratios_of_like_with_like(tmp_path):
    write_trials(
        tmp_path,
        {
            ("disc", "off", 2): 4.0, ("disc", "default", 2): 2.0, ("disc", "off", 8): 8.0,
            ("dw-disc", "off", 2): 1.0, ("dw-disc", "default", 2): 1.0,
        },
    )  # fmt: skip
    trials = read_trials(tmp_path, "disc", "dw-disc")
    by = {(t.model, t.change): t for t in trials}
    compiled = "torch.compile (default)"
    assert set(by) == {
        ("disc", ""), ("disc", compiled), ("disc", "batch 8"), ("dw-disc", ""),
        ("dw-disc", compiled),
    }  # fmt: skip
    assert by["disc", "batch 8"].seconds == 1.0
    assert by["disc", "batch 8"].gain[0] == pytest.approx(2.0)
    assert by["disc", compiled].gain[0] == pytest.approx(2.0)
    assert by["disc", compiled].compile_s == 7.0
    assert by["disc", compiled].against is None
    assert by["dw-disc", ""].against[0] == pytest.approx(4.0)
    assert by["dw-disc", compiled].against[0] == pytest.approx(2.0)
    assert [t.change for t in changed(trials, "disc")] == [compiled, "batch 8"]


def test_where_the_plain_case_failed_nothing_is_called_plain(tmp_path):
    write_trials(
        tmp_path,
        {
            ("disc", "off", 2): 4.0, ("dw-disc", "off", 2): None, ("dw-disc", "default", 2): 1.0,
        },
    )  # fmt: skip
    assert {(t.model, t.change) for t in read_trials(tmp_path, "disc", "dw-disc")} == {("disc", "")}


def test_a_profile_without_trials_has_none(tmp_path):
    assert read_trials(tmp_path, "disc", "dw-disc") == []
