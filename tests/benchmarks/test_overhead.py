"""What the harness itself costs."""

import os
import subprocess
import sys
from statistics import median

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import make_case, make_launch
from large import write_large
from records import write_record

import dabench
from dabench.device.cpu import CpuDevice
from dabench.findings.tables import load
from dabench.plan.cases import expand
from dabench.plan.settings import Grid, Settings
from dabench.records.samples import SAMPLE_COLUMNS
from dabench.run.runner import Runner
from dabench.run.session import NoProgress
from dabench.timing.clock import host_clock
from dabench.timing.engine import StopRule, measure
from dabench_models import build


def command(*arguments, **changes):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | changes
    return lambda: subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, env=environment
    )


SMALLEST = """
import typer
app = typer.Typer(rich_markup_mode="rich")
@app.command()
def hello(name: str = "you"):
    "Greet somebody."
@app.command()
def bye(name: str = "you"):
    "Take leave."
app(["--help"])
"""


@pytest.mark.quick
def test_help_is_quick(compare):
    ours, typer = compare.medians(
        command("-m", "dabench", "--help"), command("-c", "import typer, rich.console"), rounds=25
    )
    compare.check("dabench --help over importing typer", ours / typer, at_most=2.0)


@pytest.mark.quick
def test_help_costs_little_more_than_any_help(compare):
    """Against the help of the smallest typer application: what is left is our own doing."""
    ours, smallest = compare.medians(
        command("-m", "dabench", "--help"), command("-c", SMALLEST), rounds=15
    )
    compare.check("dabench --help over the smallest typer help", ours / smallest, at_most=1.5)


def test_a_small_case_costs_three_imports_of_torch(compare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = "-m dabench time --model dw-disc --batch 1 --size 64x64 --repeat 3 --mode eval"
    whole, torch_alone = compare.medians(
        command(*call.split()), command("-c", "import torch"), rounds=5
    )
    compare.check("a small case over importing torch", whole / torch_alone, at_most=3.0)


class Nothing:
    """The empty model."""

    def prepare(self):
        pass

    def run(self):
        pass

    def release(self):
        pass


def smallest_pass():
    """Seconds of the shortest pass anybody measures: a small forward of `dw-disc`."""
    network = build("dw-disc").eval()
    x = torch.randn(1, 19, 64, 64)
    times = []
    with torch.inference_mode():
        for _ in range(200):
            begin = host_clock()
            network(x)
            times.append(host_clock() - begin)
    return median(times)


@pytest.mark.quick
def test_a_sample_costs_little_of_the_shortest_pass(compare):
    """With the stop rule and the bookkeeping; the one collection before it taken out."""
    few, many = (1000, 9000) if compare.measuring else (10, 20)
    work, device = Nothing(), CpuDevice()

    def measured(n):
        rule = StopRule(warmup=1, repeat=n, target_ci=None, max_time_s=60)
        return lambda: measure(work, device, host_clock, rule)

    long, short = compare.medians(measured(many), measured(few), rounds=9)
    per_sample = (long - short) / (many - few)
    compare.check("a sample over the shortest pass", per_sample / smallest_pass(), at_most=0.03)


class Answers:
    """A worker that answers at once."""

    def run(self, request, receive, *, timeout_s):
        if request["kind"] == "time":
            receive({"kind": "device", "device": {"device_name": "Fake", "threads": 1}})
            receive(
                {
                    "kind": "phase", "phase": "forward", "warmup": [[1.0, None]] * 3,
                    "samples": [[1.0, None]] * 10, "steady": True, "stop": "repeat",
                    "spent_s": 13.0, "passes": 1, "peak_bytes": 7, "other_cores": 0.0,
                    "throttled": None,
                }
            )  # fmt: skip
        return {"kind": "done"}


def seconds_per_launch(folder, cases):
    grid = Grid(models=("dw-disc",), devices=("cpu",), batches=tuple(range(1, cases + 1)))
    plan = expand(grid, Settings.of(repeat=10, launches=3))
    record = write_record(folder, plan=[planned.to_dict() for planned in plan])
    begin = host_clock()
    Runner(plan, Answers(), record, NoProgress()).run()
    record.run.close()
    return (host_clock() - begin) / (3 * cases)


def synced_appends(folder, times):
    """What no record can do without: two lines that are on disk."""
    folder.mkdir()
    begin = host_clock()
    for _ in range(times):
        for name in ("a", "b"):
            with (folder / name).open("a") as file:
                file.write("x" * 500 + "\n")
                file.flush()
                os.fsync(file.fileno())
    return (host_clock() - begin) / times


@pytest.mark.quick
def test_keeping_a_launch_costs_the_same_however_large_the_run(compare, tmp_path):
    small, large = (100, 800) if compare.measuring else (2, 4)
    few, many = seconds_per_launch(tmp_path / "f", small), seconds_per_launch(tmp_path / "m", large)
    bare = synced_appends(tmp_path / "bare", 100 if compare.measuring else 2)
    compare.benchmark.pedantic(lambda: None, rounds=1, iterations=1)
    compare.check("a launch at 800 cases over one at 100", many / few, at_most=1.5)
    compare.check("a launch over two synced appends", many / bare, at_most=5.0)


GRID = """
[[grid]]
model = ["disc", "dw-disc", "diag-disc"]
device = "cpu"
batch = [1, 2]
memory_format = ["nchw", "nhwc"]
size = "64x64"
repeat = 3
"""


def test_a_case_more_costs_less_than_importing_torch(compare, tmp_path):
    """Start-up of the run apart, which the test above bounds; samples include warm-up."""
    (tmp_path / "grid.toml").write_text(GRID)
    one = GRID.replace('"disc", "dw-disc", "diag-disc"', '"dw-disc"').replace("[1, 2]", "1")
    (tmp_path / "one.toml").write_text(one.replace('["nchw", "nhwc"]', '"nchw"'))
    sampled = []

    def sweep():
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        dabench.sweep(tmp_path / "grid.toml", out=out)
        sampled.append(load([out]).samples["wall_s"].sum())

    whole, small, torch_alone = compare.medians(
        sweep,
        lambda: dabench.sweep(tmp_path / "one.toml"),
        command("-c", "import torch"),
        rounds=3,
    )
    # 12 cases against one: what 11 cases more cost.
    per_case = (whole - small - float(np.median(sampled))) / 11
    compare.check("a case more over importing torch", per_case / torch_alone, at_most=0.5)


def test_samples_are_read_about_as_fast_as_pandas_can(compare, tmp_path):
    n, launches = (1_000_000, 100) if compare.measuring else (1000, 10)
    case = make_case()
    record = write_record(tmp_path / "big")
    for launch in range(launches):
        record.launch(make_launch(case, [], launch=launch))
    record.measurements([], launches)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "launch": np.repeat(np.arange(launches), n // launches),
            "case_id": case.case_id,
            "phase": "forward",
            "kind": "sample",
            "index": np.tile(np.arange(n // launches), launches),
            "wall_s": rng.random(n),
            "device_s": "",
        }
    )
    assert tuple(frame.columns) == SAMPLE_COLUMNS
    path = tmp_path / "big" / "samples.csv"
    frame.to_csv(path, index=False)
    ours, bare = compare.medians(
        lambda: load([tmp_path / "big"]), lambda: pd.read_csv(path), rounds=3
    )
    assert len(load([tmp_path / "big"]).samples) == n
    compare.check("reading a million samples over pandas alone", ours / bare, at_most=2.5)


# A process's peak as getrusage has it includes what it was forked from.
MEASURED = """
import re, sys
from pathlib import Path
from dabench.__main__ import main
try:
    main()
finally:
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1] if status.exists() else 0
    print(peak, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Pairs of runs of 200,000 samples and of two million."""
    root = tmp_path_factory.mktemp("large")
    return [
        [write_large(root / f"{cases}" / side / "run", cases) for side in "ab"]
        for cases in (200, 2000)
    ]


@pytest.mark.parametrize("name", ["report", "compare", "history", "show"])
def test_time_and_memory_grow_no_faster_than_samples(compare, large, tmp_path, name):
    peaks = ([], [])

    def call(size):
        one, two = map(str, large[size])
        words = {
            "report": [one, "--name", "large", "--out", str(tmp_path)],
            "compare": [one, two],
            "history": [str(large[size][0].parent), "--case", "disc/cpu/b1/"],
            "show": [one, "--json"],
        }[name]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, name, *words], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        peaks[size].append(int(done.stderr.split()[-1]))

    few, many = compare.medians(lambda: call(0), lambda: call(1), rounds=3, warmup=0)
    compare.check(f"{name} of ten times the samples", many / few, at_most=11)
    if all(map(all, peaks)):
        compare.check("memory for them", median(peaks[1]) / median(peaks[0]), at_most=11)


@pytest.mark.quick
def test_the_plugin_costs_nothing_where_it_is_not_used(compare, tmp_path, monkeypatch):
    """At most 20 ms, of the four tenths of a second that pytest takes to start where it is fast."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    monkeypatch.chdir(tmp_path)
    plain = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_benchmark.plugin")
    with_ours, without = compare.medians(
        command(*plain, "-p", "dabench.guard.plugin", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        command(*plain, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        rounds=25,
    )
    compare.check("pytest with the plugin over without", with_ours / without, at_most=1.05)
