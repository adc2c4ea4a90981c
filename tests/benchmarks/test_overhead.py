"""What the harness itself costs."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
from fakes import make_case, make_launch
from records import ENVIRONMENT

import dabench
from dabench.device.cpu import CpuDevice
from dabench.findings.tables import load
from dabench.records.timings import LAUNCH_COLUMNS, SAMPLE_COLUMNS, RunWriter
from dabench.timing.clock import host_clock
from dabench.timing.engine import StopRule, measure, take_sample


def command(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return lambda: subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, env=environment
    )


def test_help_is_quick(compare):
    (seconds,) = compare.medians(command("-m", "dabench", "--help"), rounds=9)
    compare.check("seconds of dabench --help", seconds, at_most=0.3)


def test_a_small_case_costs_two_imports_of_torch_and_a_second(compare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = "-m dabench time --model dw-disc --batch 1 --size 64x64 --repeat 3 --mode eval"
    whole, torch_alone = compare.medians(
        command(*call.split()), command("-c", "import torch"), rounds=5
    )
    compare.check("seconds above two imports of torch", whole - 2 * torch_alone, at_most=1.0)


class Nothing:
    """The empty model."""

    def prepare(self):
        pass

    def run(self):
        pass

    def release(self):
        pass


def test_the_engine_adds_microseconds_per_sample(compare):
    n = 5000
    work, device = Nothing(), CpuDevice()

    def engine():
        for _ in range(n):
            take_sample(work, device, None, host_clock)

    def bare():
        for _ in range(n):
            host_clock()
            work.run()
            host_clock()

    ours, theirs = compare.medians(engine, bare, rounds=9)
    compare.check("microseconds per sample over a bare loop", (ours - theirs) / n * 1e6, at_most=10)


def test_a_whole_measurement_adds_microseconds_per_sample(compare):
    """With the stop rule and the bookkeeping; the one collection before it taken out."""
    few, many = 1000, 9000
    work, device = Nothing(), CpuDevice()

    def measured(n):
        rule = StopRule(warmup=1, repeat=n, target_ci=None, max_time_s=60)
        return lambda: measure(work, device, host_clock, rule)

    long, short = compare.medians(measured(many), measured(few), rounds=9)
    per_sample = (long - short) / (many - few) * 1e6
    compare.check("microseconds per sample, all in", per_sample, at_most=10)


GRID = """
[[grid]]
model = ["disc", "dw-disc", "diag-disc"]
device = "cpu"
batch = [1, 2]
memory_format = ["nchw", "nhwc"]
size = "64x64"
repeat = 3
"""


def test_a_sweep_costs_half_a_second_per_case_beyond_its_samples(compare, tmp_path):
    """Start-up of the run apart, which the test above bounds; samples include warm-up."""
    (tmp_path / "grid.toml").write_text(GRID)
    one = GRID.replace('"disc", "dw-disc", "diag-disc"', '"dw-disc"').replace("[1, 2]", "1")
    (tmp_path / "one.toml").write_text(one.replace('["nchw", "nhwc"]', '"nchw"'))
    sampled = []

    def sweep():
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        dabench.sweep(tmp_path / "grid.toml", out=out)
        sampled.append(load([out]).samples["wall_s"].sum())

    whole, small = compare.medians(sweep, lambda: dabench.sweep(tmp_path / "one.toml"), rounds=3)
    # 12 cases against one: what 11 cases more cost.
    per_case = (whole - small - float(np.median(sampled))) / 11
    compare.check("seconds per case beyond its samples", per_case, at_most=0.5)


def test_a_million_samples_are_read_back_in_seconds(compare, tmp_path):
    n, launches = (1_000_000, 100) if compare.measuring else (1000, 10)
    case = make_case()
    run = {"run_id": "big", "created": "", "command": "", "environment": ENVIRONMENT, "plan": []}
    writer = RunWriter.create(tmp_path / "big", run)
    for launch in range(launches):
        writer.launch(make_launch(case, [], launch=launch))
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
    assert "phases" in LAUNCH_COLUMNS
    frame.to_csv(tmp_path / "big" / "samples.csv", index=False)
    (seconds,) = compare.medians(lambda: load([tmp_path / "big"]), rounds=3)
    assert len(load([tmp_path / "big"]).samples) == n
    compare.check("seconds to read a million samples", seconds, at_most=5.0)
