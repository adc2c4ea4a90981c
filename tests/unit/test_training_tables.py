"""Training runs as frames, and what the seeds say of a difference."""

import math

import pandas as pd
import pytest
from suites import write_suite

from dabench.base.errors import ResultsError
from dabench.findings.scaling import scaling
from dabench.findings.trainings import Comparison, compare, load_training, published_accuracy
from dabench.report import write_report
from dabench.report.methods import costs_table
from dabench.report.training import _helps
from dabench.timing.statistics import mean_interval


def test_a_mean_over_seeds_has_students_interval():
    interval = mean_interval([1.0, 2.0, 3.0])
    half = 4.303 / math.sqrt(3)
    assert interval.estimate == 2.0
    assert (interval.low, interval.high) == pytest.approx((2 - half, 2 + half), rel=1e-3)
    alone = mean_interval([1.0])
    assert (alone.low, alone.high) == (-math.inf, math.inf)


def test_what_a_method_costs_and_gives():
    said = []

    class Out:
        def table(self, frame, caption):
            said.append((frame, caption))

    runs = runs_of(augment=[0.2, 0.3], minent=[0.25, 0.37])
    facts = {"steps": 100, "batch": 4, "threads": 2, "budget": "equal source images"}
    facts["processes"] = 1
    runs = runs.assign(**facts, device="cpu", train_s=[90.0, 90.0, 100.0, 170.0])
    runs["cpu_s"] = 2 * runs["train_s"]
    costs_table(Out(), runs, runs.groupby("label", sort=False))
    table = said[0][0].set_index("run")
    assert table.loc["minent"].tolist() == ["400", "135", "0.075", "1.50", "+6.0 [-6.7, +18.7]"]
    assert table.loc["augment"].tolist() == ["400", "90", "0.050", "1.00", "-"]
    assert "at equal source images" in said[0][1]
    costs_table(Out(), runs.assign(device="cuda"), [("minent", runs[2:].assign(device="cuda"))])
    assert "device-hours" in said[1][0]
    assert said[1][0]["device-hours"].tolist() == ["0.037"]


def runs_of(**scores):
    return pd.DataFrame(
        [
            {"data": "a -> b", "label": label.replace("_", " "), "seed": seed, "status": "ok",
             "miou": value}
            for label, values in scores.items()
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([0.30, 0.31, 0.32], [0.20, 0.21, 0.22], "better"),
        ([0.20, 0.21, 0.22], [0.30, 0.31, 0.32], "worse"),
        ([0.30, 0.20, 0.32], [0.29, 0.25, 0.30], "undecided"),
        ([0.30], [0.10], "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(ours, theirs, verdict):
    found = compare(runs_of(adversarial_disc=ours, adabn=theirs), "adversarial disc", "adabn")
    assert (found.verdict, found.seeds) == (verdict, len(ours))


def test_only_seeds_that_both_have_are_compared():
    runs = runs_of(a=[0.1, 0.2, 0.3], b=[0.1, 0.2])
    assert compare(runs, "a", "b").seeds == 2
    assert compare(runs, "a", "c") is None


def test_runs_that_are_missing_have_rows_that_say_so(tmp_path):
    suite = write_suite(tmp_path, seeds=(0,), unfinished="target-seed0")
    (suite / "augment-seed0" / "result.json").unlink()
    runs = load_training([suite]).runs.set_index("run")
    assert runs.loc["target-seed0", ["status", "reason"]].tolist() == ["pending", "not begun"]
    assert runs.loc["augment-seed0", "reason"] == "not finished"
    assert runs.loc["control-disc-seed0", "status"] == "ok"


def test_damaged_epochs_name_file_and_line(tmp_path):
    suite = write_suite(tmp_path, seeds=(0,))
    path = suite / "augment-seed0" / "epochs.csv"
    path.write_text(path.read_text().replace("\n1,10,", "\nx,10,"))
    with pytest.raises(ResultsError, match=r"epochs\.csv line 2"):
        load_training([suite])


def test_classes_that_were_cut_off_name_file_and_line(tmp_path):
    suite = write_suite(tmp_path, seeds=(0,))
    path = suite / "augment-seed0" / "classes.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]).rstrip("\n"))
    with pytest.raises(ResultsError, match=r"classes\.csv line 3: cut off"):
        load_training([suite])


@pytest.mark.parametrize(
    "kept",
    ["{}", '{"status": "well"}', '{"status": ["ok"]}', '{"status": "ok", "miou": "high"}',
     '{"status": "ok", "epochs": null}', '{"status": "failed", "reason": 3}'],
)  # fmt: skip
def test_damaged_results_name_the_file(kept, tmp_path):
    suite = write_suite(tmp_path, seeds=(0,))
    (suite / "augment-seed0" / "result.json").write_text(kept)
    with pytest.raises(ResultsError, match=r"result\.json: not what dabench writes"):
        load_training([suite])


def test_published_accuracy_is_for_the_papers_own_data():
    found = published_accuracy("gta5 -> cityscapes", "adversarial dw-disc")
    assert found == {"Table I": "73.1 / 32.7", "Table VII": "73 / 32.5",
                     "repository README": "73.1 / 32.7"}  # fmt: skip
    assert published_accuracy("synthetic gta5 -> synthetic cityscapes", "augment") == {}
    assert published_accuracy("gta5 -> cityscapes", "control disc") == {}


def test_runs_with_other_settings_are_never_pooled(tmp_path):
    one = write_suite(tmp_path, "one", seeds=(0,))
    other = write_suite(tmp_path, "other", seeds=(1,), steps=40)
    same = write_suite(tmp_path / "elsewhere", "one", seeds=(2,))
    loaded = load_training([one, other, same])
    assert loaded.runs.groupby("protocol")["seed"].unique().map(sorted).tolist() == [[0, 2], [1]]
    assert sorted(loaded.runs["suite"].unique()) == ["one", "one (2)", "other"]


@pytest.mark.parametrize(
    ("verdicts", "stuck", "helps"),
    [
        ({"control disc": "better", "adabn": "better"}, False, "yes"),
        ({"control disc": "better", "adabn": "better"}, True, "undecided"),
        ({"control disc": "better"}, False, "undecided"),
        ({"control disc": "better", "adabn": "worse"}, False, "no"),
        ({"control disc": "undecided", "adabn": "better"}, False, "undecided"),
    ],
)
def test_the_adversary_helps_only_if_it_beats_both_opponents(verdicts, stuck, helps):
    interval = mean_interval([0.1, 0.2])
    found = [Comparison("adversarial disc", a, 2, interval, v) for a, v in verdicts.items()]
    assert _helps(found, stuck=stuck) == helps


@pytest.mark.usefixtures("undrawn")
def test_more_processes_are_set_against_the_fewest(tmp_path):
    one = write_suite(tmp_path, "one", seeds=(0,))
    two = write_suite(tmp_path, "two", seeds=(0,), processes=2, epoch_s=2.5)
    loaded = load_training([one, two])
    found = scaling(loaded).set_index(["label", "processes"])
    assert found.loc[("augment", 1)].tolist()[2:] == [2, 1, 5.0, 1.0, 1.0, 0.0]
    assert found.loc[("augment", 2)].tolist()[2:] == [2, 1, 8.0, 1.6, 0.8, 0.1]
    assert scaling(load_training([one])).empty
    # Another protocol: their scores are never pooled.
    assert loaded.runs["protocol"].nunique() == 2
    write_report([one, two], folder=tmp_path / "report", name="report")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| augment | synchronised batch norm | 2 | 2 | 1 | 8.0 | 1.60 | 80% | 10% |" in report
    assert "2 processes, synchronised batch norm" in report
    assert "2 processes of 2 threads" in report
    assert "averaging gradients over the processes" in report
    # Each kind of batch norm by itself, beside the one process that is without.
    several = [
        write_suite(tmp_path / f"{n}", f"{norm}", seeds=(0,), batch=4, processes=n, norm=norm)
        for n, norm in ((1, "local"), (2, "local"), (2, "sync"))
    ]
    found = scaling(load_training(several))
    assert found[found["label"] == "augment"]["processes"].tolist() == [1, 2, 1, 2]
