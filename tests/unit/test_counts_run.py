"""Runs of operation counts: kept after each network, continued, reported."""

import csv
import json

import pytest

from dabench.base.errors import UsageError
from dabench.records.counts import read_counts, read_uncounted
from dabench.records.folder import read_run
from dabench.report import write_report
from dabench.run import counts
from dabench.run.counts import CountRequest, count_into, resume_counts

HERE = {"cpu": "Test CPU", "torch": "2.15", "variables": {}}


def count_of(item):
    """A count as a worker sends it."""
    return {
        "model": item["name"],
        **{name: item[name] for name in ("batch", "channels", "height", "width", "mode")},
        "params": 7, "macs": 10 * item["batch"], "executed_macs": 10, "backward_macs": 20,
        "executed_backward_macs": 20, "activations": 5, "min_bytes": 100, "bytes_moved": 200,
        "by_operator": {"convolution": 10 * item["batch"]}, "without": {}, "uncounted": {},
        "time_shares": None, "layers": [],
    }  # fmt: skip


class Workers:
    """Counts every network but those in ``fails``; Ctrl-C at those in ``interrupted``."""

    def __init__(self):
        self.asked, self.fails, self.interrupted = [], (), ()

    def __enter__(self):
        return self

    def __exit__(self, *ending):
        pass

    def run(self, request, receive, *, timeout_s):
        (item,) = request["items"]
        if item["name"] in self.interrupted:
            raise KeyboardInterrupt
        self.asked.append(item["name"])
        if item["name"] in self.fails:
            return {"kind": "failed", "status": "error", "reason": "ValueError: no such layer"}
        receive({"kind": "count", "count": count_of(item)})
        return {"kind": "done"}


@pytest.fixture
def workers(monkeypatch):
    fake = Workers()
    monkeypatch.setattr(counts, "Launcher", lambda: fake)
    monkeypatch.setattr(counts, "describe_host", lambda: HERE)
    monkeypatch.setattr(counts, "probe", lambda launcher: {})
    return fake


def request(*names, batch=1):
    shape = {"channels": 19, "height": 64, "width": 64, "mode": "eval", "batch": batch}
    return CountRequest(items=[{"name": name, **shape} for name in names])


def test_what_was_counted_before_ctrl_c_is_not_counted_again(tmp_path, workers):
    folder = tmp_path / "run"
    workers.fails, workers.interrupted = ("dw-disc",), ("diag-disc",)
    asked = request("disc", "dw-disc", "diag-disc")
    with pytest.raises(KeyboardInterrupt):
        count_into(folder, asked, command="dabench flops")
    assert read_run(folder)["kind"] == "count"
    assert [each["model"] for each in read_counts(folder)] == ["disc"]
    assert [each["reason"] for each in read_uncounted(folder)] == ["ValueError: no such layer"]

    workers.asked, workers.fails, workers.interrupted = [], (), ()
    done = resume_counts(folder)
    # What failed may work now.
    assert workers.asked == ["dw-disc", "diag-disc"]
    assert [each["model"] for each in done.counts] == ["disc", "dw-disc", "diag-disc"]
    assert done.failed == []
    assert read_counts(folder) == done.counts
    assert read_uncounted(folder) == []


def test_what_is_known_stays_on_disk_while_another_is_tried_again(tmp_path, workers):
    folder = tmp_path / "run"
    workers.fails = ("dw-disc", "diag-disc-bias")
    names = ("disc", "dw-disc", "diag-disc", "diag-disc-bias")
    count_into(folder, request(*names), command="dabench flops")
    workers.fails, workers.interrupted = (), ("diag-disc-bias",)
    with pytest.raises(KeyboardInterrupt):
        resume_counts(folder)
    assert [each["model"] for each in read_counts(folder)] == ["disc", "dw-disc", "diag-disc"]
    assert [each["model"] for each in read_uncounted(folder)] == ["diag-disc-bias"]


def test_a_run_of_which_nothing_could_be_counted_is_reported(tmp_path, workers):
    workers.fails = ("disc",)
    count_into(tmp_path / "run", request("disc"), command="dabench flops")
    markdown, _ = write_report([tmp_path / "run"], folder=tmp_path, name="none")
    assert "ValueError: no such layer" in markdown.read_text()


def test_another_machine_does_not_go_on(tmp_path, workers, monkeypatch):
    count_into(tmp_path / "run", request("disc"), command="dabench flops")
    monkeypatch.setattr(counts, "describe_host", lambda: {**HERE, "torch": "2.16"})
    with pytest.raises(UsageError, match=r'torch was "2\.15", here it is "2\.16"'):
        resume_counts(tmp_path / "run")


def test_a_report_of_counts(tmp_path, workers):
    workers.fails = ("dw-disc",)
    asked = request("disc", "dw-disc", batch=4)
    count_into(tmp_path / "run", asked, command="dabench flops")
    markdown, table = write_report([tmp_path / "run"], folder=tmp_path, name="ops")
    text = markdown.read_text()
    assert "## Operations, parameters and bytes of one pass" in text
    assert "| disc | 4 | 19x64x64 |" in text
    assert "ValueError: no such layer" in text
    assert table.name == "ops-operations.csv"
    assert "ops-operations.csv" in text
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["run_id"], row["model"], row["batch"], row["macs"]) == ("run", "disc", "4", "40")
    assert json.loads(row["by_operator"]) == {"convolution": 40}
