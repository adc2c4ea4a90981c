"""The order of models on each machine: places with ties, and where an order holds."""

import json

import pytest
from command import dabench
from fakes import make_case, make_launch
from records import ENVIRONMENT, write_record

from dabench.base.errors import UsageError
from dabench.findings.ranks import rank
from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings

PATTERN = (1.0, 1.004, 0.996, 1.002, 0.998, 1.001)


def write(folder, seconds, cpu="Test CPU", batch=2, launches=6):
    """{model: seconds} on one machine."""
    cases = {name: make_case(model=name, batch=batch) for name in seconds}
    plan = [PlannedCase(case=case, settings=Settings.of()).to_dict() for case in cases.values()]
    writer = write_record(folder, plan=plan, environment={**ENVIRONMENT, "cpu": cpu})
    number = 0
    for index in range(launches):
        for shift, (name, case) in enumerate(cases.items()):
            each = seconds[name] * PATTERN[(index + 2 * shift) % len(PATTERN)]
            writer.launch(make_launch(case, [each] * 3, launch=number, round=index))
            number += 1
    return folder


def test_models_that_cannot_be_told_apart_share_a_place(tmp_path):
    run = write(tmp_path / "a", {"disc": 2.0, "dw-disc": 1.0, "diag-disc": 1.002})
    ((ranking,), _) = rank([run])
    assert ranking.order == "dw-disc ~ diag-disc < disc"
    assert [(name, place) for name, _, place in ranking.models] == [
        ("dw-disc", 1), ("diag-disc", 1), ("disc", 3),
    ]  # fmt: skip
    assert ranking.models[2][1] == pytest.approx(2.0, rel=0.01)
    assert ranking.place.machine == "Test CPU, 2 threads"


def test_an_order_holds_or_flips_over_machines_and_batches(tmp_path):
    runs = [
        write(tmp_path / "a", {"disc": 2.0, "dw-disc": 1.0, "diag-disc": 3.0}),
        write(tmp_path / "b", {"disc": 1.0, "dw-disc": 2.0, "diag-disc": 3.0}, cpu="Other CPU"),
        write(tmp_path / "c", {"disc": 2.0, "diag-disc": 2.001}, batch=8),
    ]
    _, pairs = rank(runs)
    found = {(pair.first, pair.second): pair for pair in pairs}
    flips = found["disc", "dw-disc"]
    assert (flips.order, flips.first_on, flips.second_on) == (
        "flips", ("Other CPU, 2 threads b2",), ("Test CPU, 2 threads b2",),
    )  # fmt: skip
    assert found["diag-disc", "dw-disc"].order == "holds"
    assert found["diag-disc", "disc"].order == "open"
    assert found["diag-disc", "disc"].undecided_on == ("Test CPU, 2 threads b8",)
    assert pairs[0] is flips


def test_two_runs_of_a_machine_stand_apart(tmp_path):
    both = {"disc": 2.0, "dw-disc": 1.0}
    runs = [write(tmp_path / name, both) for name in "ab"]
    rankings, _ = rank(runs)
    assert [each.place.machine for each in rankings] == [
        "Test CPU, 2 threads", "Test CPU, 2 threads (b)",
    ]  # fmt: skip


def test_a_single_launch_decides_nothing(tmp_path):
    ((ranking,), _) = rank([write(tmp_path / "a", {"disc": 2.0, "dw-disc": 1.0}, launches=1)])
    assert ranking.order == "dw-disc ~ disc"


def test_the_papers_figures_stand_beside_as_printed(tmp_path):
    run = write(tmp_path / "a", {"disc": 2.0, "dw-disc": 1.0})
    rankings, pairs = rank([run], printed=True)
    orders = {(each.place.machine, each.place.mode): each.order for each in rankings}
    assert orders["T4 (printed)", "train"] == "disc < dw-disc"
    assert orders["Colab CPU (printed)", "train"] == "dw-disc < disc"
    (train,) = [pair for pair in pairs if (pair.mode, pair.way) == ("train", "fp32 nchw paper")]
    assert train.order == "flips"
    assert {"T4 (printed) b32", "RTX 4070 (printed) b32"} <= set(train.first_on)
    assert {"5800X (printed) b8", "Colab TPU (printed) b8"} <= set(train.second_on)


def test_one_model_has_no_order(tmp_path):
    with pytest.raises(UsageError, match="no two models"):
        rank([write(tmp_path / "a", {"disc": 2.0})])


def test_it_is_printed_and_a_document(tmp_path):
    write(tmp_path / "a", {"disc": 2.0, "dw-disc": 1.0})
    write(tmp_path / "b", {"disc": 1.0, "dw-disc": 2.0}, cpu="Other CPU")
    shown = dabench("rank", "a", "b", cwd=tmp_path)
    assert shown.returncode == 0
    assert "dw-disc < disc" in shown.stdout
    assert "flips: disc, dw-disc, eval forward fp32 nchw steady: disc is faster on Other" in (
        shown.stdout
    )
    document = json.loads(dabench("rank", "a", "b", "--json", cwd=tmp_path).stdout)
    assert [each["order"] for each in document["pairs"]] == ["flips"]
    refused = dabench("rank", "none", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert dabench("rank", "a", "--delta", "2", cwd=tmp_path).returncode == 2
