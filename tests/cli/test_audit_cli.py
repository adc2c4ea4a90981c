"""Audits of trainings, as they are typed: logs of anyone, claims, runs that go on."""

import json

import pytest
from command import dabench
from suites import write_suite

from dabench.cli.progress import TrainProgress
from dabench.records.trainings import read_epochs

# The segmenter's adversarial loss falls with the discriminator's: the two want the same.
LOG = "run,metric,epoch,value\n" + "".join(
    f"fake,lossG,{epoch},{0.7e-3 / (1 + epoch):.3g}\n"
    f"fake,miou_val,{epoch},{0.3 + 0.01 * (epoch % 5)}\n"
    f"fake,whatever,{epoch},1\n"
    for epoch in range(12)
)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path


def test_a_log_of_anyone(log):
    done = dabench("audit", "log.csv", "--map", "lossG=adversarial_loss", cwd=log)
    assert done.returncode == 0
    assert "log.csv, fake: adversary cooperates" in done.stdout
    assert "taken as logged times 0.001" in done.stdout
    assert "log.csv: not read: whatever; --map NAME=METRIC says what it is" in done.stderr
    # Nothing of the published tables where logs alone are judged.
    assert "published" not in done.stdout
    done = dabench("audit", "log.csv", "--map", "lossG=adversarial_loss", "--json", cwd=log)
    document = json.loads(done.stdout)
    (course,) = document["trainings"]
    assert course["flags"] == ["adversary cooperates"]
    assert course["adversarial_first"] == pytest.approx(0.7)
    assert {each["what"] for each in document["findings"]} == {"fake"}


def test_what_is_said_of_a_log_counts(log):
    words = ("audit", "log.csv", "--map", "lossG=adversarial_loss", "--lambda", "1e-4", "--json")
    (course,) = json.loads(dabench(*words, cwd=log).stdout)["trainings"]
    assert course["adversarial_first"] == pytest.approx(7)
    assert course["flags"] == []
    done = dabench("audit", "log.csv", "--claim", "fake=34", "--out", "reports", cwd=log)
    assert "fake: selected on target labels" in done.stdout
    assert "the claim prints 34%; mIoU last 31.0%, best 34.0% (epoch 4)" in done.stdout
    written = (log / "reports" / "audit.md").read_text()
    assert "## Audit of trainings" in written
    assert "selected on target labels" in written
    assert "the chip's peak" not in written


def test_runs_of_dabench_and_folders_of_them(tmp_path):
    suite = write_suite(tmp_path / "results")
    done = dabench("audit", str(suite), cwd=tmp_path)
    assert done.returncode == 0
    assert "adversarial-dw-disc-seed0" in done.stdout
    assert "one seed" not in done.stdout


def test_a_training_says_its_flags_while_it_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = read_epochs(write_suite(tmp_path) / "adversarial-dw-disc-seed0")
    with TrainProgress(quiet=False) as progress:
        progress.run("adversarial-dw-disc-seed0", 1, 1, 2)
        for row in (*rows, rows[-1]):
            progress.epoch(row)
        progress.run("next", 1, 1, 2)
        progress.epoch(rows[0])
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert ["12% waiting for data" in line for line in lines] == [True] * 4
    assert ["discriminator at chance" in line for line in lines] == [False, False, True, False]
