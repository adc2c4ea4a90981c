"""``dabench compare`` as it is typed: tables, JSON, exit codes, what it refuses."""

import json

import pytest
from command import dabench
from fakes import make_case, make_launch
from records import write_record

from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings

CASE = make_case()
FLAT = (1.0, 1.004, 0.996, 1.002, 0.998, 1.001)


def write(folder, factor, scatter=1.0, case=CASE, **details):
    plan = [PlannedCase(case=case, settings=Settings.of()).to_dict()]
    writer = write_record(folder, plan=plan, **details)
    for number, each in enumerate(FLAT):
        seconds = factor * (1 + scatter * (each - 1))
        writer.launch(make_launch(case, [seconds] * 3, launch=number, round=number))
    return folder


@pytest.fixture
def runs(tmp_path):
    write(tmp_path / "base", 1.0)
    write(tmp_path / "slower", 1.1)
    write(tmp_path / "faster", 0.9)
    write(tmp_path / "unsure", 1.05, scatter=30.0)
    return tmp_path


@pytest.mark.parametrize(
    ("new", "options", "code", "words"),
    [
        ("slower", (), 1, ["slower", "1.100"]),
        ("faster", (), 0, ["faster", "0.900"]),
        ("faster", ("--delta", "15%"), 0, ["same", "up to 15.0%"]),
        ("slower", ("--delta", "15%", "--strict"), 0, ["same"]),
        ("unsure", (), 0, ["undecided", "more launches of each would decide it"]),
        ("unsure", ("--strict",), 3, ["undecided"]),
    ],
)
def test_the_exit_code_tells_whether_anything_is_slower(runs, new, options, code, words):
    done = dabench("compare", "base", new, *options, cwd=runs)
    assert (done.returncode, done.stderr) == (code, "")
    assert all(word in done.stdout for word in words)


def test_json_is_one_document(runs):
    done = dabench("compare", "base", "slower", "--json", "--explain-verdict", cwd=runs)
    document = json.loads(done.stdout)
    (row,) = document["verdicts"]
    assert done.returncode == 1
    assert (row["verdict"], row["code"], row["base"]) == ("slower", "", CASE.case_id)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["explained"]["from the interval"] == "slower"
    assert document["delta"] == 0.02


def test_what_led_to_a_verdict_is_shown(runs):
    done = dabench("compare", "base", "slower", "--explain-verdict", cwd=runs)
    for word in ("degrees of freedom", "level allowed", "0.980 to 1.020", "Rule: ", "(Holm)"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("base", "none"), "none holds no run"),
        (("base", "slower", "--batch", "2"), "--batch: runs are compared as they are"),
        (("base", "slower", "--vs", "disc"), "--vs: runs are compared as they are"),
        (("base", "slower", "--delta", "much"), "--delta: 'much' is not allowed; it takes"),
        (("base", "slower", "--delta", "100%"), "--delta: '100%' is not allowed; it takes"),
        (("base",), "not made by 'dabench compare'"),
        ((), "compare needs two runs, or --model and --vs"),
        (("--model", "disc"), "compare needs two runs, or --model and --vs"),
        (("--model", "disc", "--vs", ""), "--vs: '' is not allowed; it takes a model"),
        (("--model", "disc", "--vs", "--speed 3"), "--vs: '--speed' is not allowed; it takes a"),
        (("--model", "disc", "--vs", "--batch"), "--vs: '--batch' is not allowed; it needs a"),
        (("--model", "disc", "--vs", "--batch '1"), "its quotes do not match"),
        (("--model", "disc", "--vs", "--batch 1,2"), "--batch may have one value on each side"),
        (("--model", "disc,dw-disc", "--vs", "diag-disc"), "--model may have one value on each"),
        (("--model", "disc", "--vs", "nothing"), "nothing"),
        (("--model", "disc", "--vs", "dw-disc", "--decide", "--launches", "3"),
         "--launches: '3' is not allowed; --decide looks after 4, 6"),
        (("--resume", "base", "--model", "disc"), "--resume goes on as planned"),
        (("--resume", "base"), "not made by 'dabench compare'"),
        (("base", "base"), "are one run"),
        (("--model", "disc", "--vs", "dw-disc", "--order", "blocked"), "both sides alternate"),
        (("--model", "disc", "--vs", "--protocol paper"), "--vs: '--protocol' is not allowed"),
        (("--model", "disc", "--vs", "--dtype tf32"), "nothing can be compared: tf32 is a mode"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(runs, words, message):
    done = dabench("compare", *words, cwd=runs)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_fault_is_no_verdict(runs, monkeypatch):
    monkeypatch.setattr("dabench.findings.compare.compare_runs", lambda *_: 1 / 0)
    done = dabench("compare", "base", "slower", cwd=runs)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_sides_are_measured_one_after_the_other_and_back(tmp_path):
    done = dabench(
        "compare", "--model", "dw-disc", "--vs", "--batch=2", "--size", "64x64", "--repeat", 2,
        "--launches", 2, "--delta", "5%", "--out", "run", "--json", cwd=tmp_path,
    )  # fmt: skip
    (row,) = json.loads(done.stdout)["verdicts"]
    assert row["base"].startswith("dw-disc/cpu/b1/")
    assert row["new"].startswith("dw-disc/cpu/b2/")
    assert row["launches"] == 2
    lines = (tmp_path / "run" / "launches.csv").read_text().splitlines()[1:]
    assert [line.split(",")[2].split("/")[2] for line in lines] == ["b1", "b2", "b2", "b1"]
    shown = dabench("compare", "run", cwd=tmp_path)
    assert "dw-disc b1 -> b2 eval" in shown.stdout
    again = dabench("compare", "run", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["verdicts"] == [row]
    assert again.returncode == done.returncode
    resumed = dabench("compare", "--resume", "run", "--json", cwd=tmp_path)
    assert json.loads(resumed.stdout) == json.loads(again.stdout)
