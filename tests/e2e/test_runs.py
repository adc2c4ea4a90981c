"""Whole runs in real processes: killed, interrupted, resumed, out of disk."""

import json
import os
import signal
import subprocess
import sys
import time

import command
import pandas as pd
import psutil
import pytest
from processes import left

import dabench
from dabench.records.folder import read_run
from dabench.records.timings import read_launches

GRID = """
[[grid]]
model = ["dw-disc", "diag-disc"]
device = "cpu"
batch = [1, 2]
size = "64x64"
repeat = 3
launches = 3
"""
ALL_LAUNCHES = 2 * 2 * 3


def run(*arguments, cwd):
    shown = command.dabench(*arguments, cwd=cwd)
    return shown.returncode, shown.stdout, shown.stderr


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    return tmp_path


def wait_for_launches(folder, count):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = folder / "launches.csv"
        if path.exists() and len(path.read_text().splitlines()) > count:
            return
        time.sleep(0.005)
    raise AssertionError(f"{count} launches never came")


def children(process):
    return [each.pid for each in psutil.Process(process.pid).children(recursive=True)]


@pytest.mark.parametrize("after", [0, 2, 5])
def test_kill_9_loses_the_launch_at_hand_and_resume_completes(grid, after):
    folder = grid / "run"
    process = command.start("sweep", "grid.toml", "--out", "run", cwd=grid)
    wait_for_launches(folder, after)
    orphans = children(process)
    process.kill()
    process.communicate()
    assert left(orphans) == []  # no worker outlives its parent
    before = read_launches(folder)
    assert len(before) >= after

    code, out, err = run("sweep", "--resume", "run", cwd=grid)
    assert code == 0, err
    launches = read_launches(folder)
    assert launches[: len(before)] == before
    assert len(launches) == ALL_LAUNCHES
    rows = dabench.load_results(folder).measurements
    assert rows["launches"].tolist() == [3] * 4
    assert rows["n"].tolist() == [9] * 4
    assert "dw-disc" in out

    # A finished run has nothing left to measure.
    assert run("sweep", "--resume", "run", cwd=grid)[0] == 0
    assert len(read_launches(folder)) == ALL_LAUNCHES


@pytest.fixture
def interruptible():
    """A shell's background job ignores Ctrl-C, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_cleanly_and_keeps_what_was_measured(grid):
    folder = grid / "run"
    process = command.start("sweep", "grid.toml", "--out", "run", cwd=grid, leads=True)
    wait_for_launches(folder, 1)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "--resume run' continues" in err
    assert "median" in out
    assert left(workers) == []
    rows = dabench.load_results(folder).measurements
    assert (rows["status"] == "ok").any()
    assert len(rows) == 4


def test_a_full_disk_is_one_line_and_what_was_measured_stays(grid):
    """The limit on file sizes stands in for a disk that fills up."""
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (24000, 24000)); "
        "sys.argv = ['dabench', 'sweep', 'long.toml', '--out', 'run']; "
        "runpy.run_module('dabench', run_name='__main__')"
    )
    (grid / "long.toml").write_text(GRID.replace("repeat = 3", "repeat = 120"))
    shown = subprocess.run(
        [sys.executable, "-c", limited], cwd=grid, capture_output=True, text=True, timeout=300
    )
    assert shown.returncode == 2
    assert "cannot write to run: File too large; what was measured before stays" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert len(read_launches(grid / "run")) >= 1
    assert len(dabench.load_results(grid / "run").samples) > 40


def test_a_run_of_another_machine_is_not_continued(grid):
    assert run("sweep", "grid.toml", "--out", "run", cwd=grid)[0] == 0
    path = grid / "run" / "run.json"
    document = json.loads(path.read_text())
    document["environment"]["cpu"] = "Another CPU"
    path.write_text(json.dumps(document))
    code, _, err = run("sweep", "--resume", "run", cwd=grid)
    assert code == 2
    assert 'cpu was "Another CPU"' in err


def test_records_say_what_was_run_and_in_which_order(grid):
    assert run("sweep", "grid.toml", "--out", "run", cwd=grid)[0] == 0
    document = read_run(grid / "run")
    assert document["schema"] == 7
    assert document["command"] == "dabench sweep grid.toml --out run"
    assert len(document["plan"]) == 4
    environment = document["environment"]
    for fact in ("cpu", "memory_bytes", "torch", "threads", "load_1min", "variables", "devices"):
        assert fact in environment
    launches = read_launches(grid / "run")
    assert [launch.launch for launch in launches] == list(range(ALL_LAUNCHES))
    rounds = [{each.case_id for each in launches[i : i + 4]} for i in range(0, ALL_LAUNCHES, 4)]
    assert all(len(names) == 4 for names in rounds)
    orders = {
        tuple(each.case_id for each in launches[i : i + 4]) for i in range(0, ALL_LAUNCHES, 4)
    }
    assert len(orders) > 1


def test_the_python_interface_gives_the_same(tmp_path):
    result = dabench.time(
        "dw-disc",
        device="cpu",
        batch=2,
        size=(64, 64),
        mode="eval",
        repeat=3,
        launches=3,
        out=tmp_path / "r",
    )
    assert result.status == "ok"
    assert result.median_s > 0
    assert result.ci_low_s <= result.median_s <= result.ci_high_s
    assert (result.n, result.launches) == (9, 3)
    frame = result.to_frame()
    back = dabench.load_results(tmp_path / "r").measurements
    pd.testing.assert_frame_equal(frame, back.drop(columns=["run_id", "machine"]))


def test_several_rows_are_picked_by_phase():
    result = dabench.time("dw-disc", device="cpu", size="64x64", mode="train", repeat=1, launches=1)
    assert [row.phase for row in result] == ["forward", "backward", "optimizer", "total"]
    assert result["backward"].median_s == result[1].median_s
    with pytest.raises(AttributeError, match="4 rows have a median_s; pick by index or phase"):
        _ = result.median_s
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        dabench.time("disc", colour="red")
    with pytest.raises(dabench.UsageError, match="unknown model"):
        dabench.time("nope")


def test_a_script_without_a_main_guard_can_measure(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import dabench\n"
        "m = dabench.time('dw-disc', device='cpu', size='64x64', repeat=1, launches=1)\n"
        "print(m.status)\n"
    )
    shown = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert shown.stdout == "ok\n", shown.stderr


def test_a_sweep_from_python(grid):
    result = dabench.sweep(grid / "grid.toml")
    assert [row.status for row in result] == ["ok"] * 4
    assert dabench.count("dw-disc", height=64, width=64).macs > 0
