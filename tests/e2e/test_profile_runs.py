"""Profiles in real processes: records, report, trace, rows for what failed."""

import json
import platform
import time
from functools import partial

import command
import pandas as pd
import pytest

from dabench.records.folder import read_run


@pytest.fixture
def dabench(tmp_path):
    return partial(command.dabench, cwd=tmp_path)


def read_lines(path):
    """The whole lines of a table, its header left out."""
    return path.read_text().split("\n")[1:-1] if path.exists() else []


def test_a_profile_from_command_to_report(dabench, tmp_path):
    shown = dabench(
        "profile", "--model", "dw-disc,diag-disc", "--mode", "train", "--size", "64x64",
        "--batch", "2", "--threads", "1", "--max-time", "1s", "--launches", "2", "--trace",
        "--out", "run",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "conv_layers.0" in shown.stdout
    layers = pd.read_csv(tmp_path / "run" / "layers.csv")
    models = pd.read_csv(tmp_path / "run" / "models.csv")
    assert models["phase"].tolist() == ["forward", "backward"] * 2
    assert (models["launches"] == 2).all()
    for row in models.itertuples():
        mine = layers[(layers["case_id"] == row.case_id) & (layers["phase"] == row.phase)]
        assert mine["median_s"].sum() == pytest.approx(row.median_s)
        assert mine["executed_flops"].sum() == row.executed_flops
    masked = layers[(layers["model"] == "diag-disc") & (layers["kind"] == "DiagonalwiseConv2d")]
    assert (masked["executed_flops"] > masked["flops"]).any()
    (first, _) = sorted((tmp_path / "run" / "traces").iterdir())
    assert json.loads((first / "trace.json").read_text())["traceEvents"]
    memory = pd.read_csv(first / "memory.csv")
    assert (memory["seconds"].diff().dropna() >= 0).all()
    assert memory["allocated_bytes"].max() > 0

    shown = dabench("report", "run", "--name", "p", "--out", "reports")
    assert shown.returncode == 0, shown.stderr
    text = (tmp_path / "reports" / "p.md").read_text()
    assert "Where the time goes" in text
    assert "The machine's ceilings" in text
    assert (tmp_path / "reports" / "p-layers.png").stat().st_size > 5000
    assert (tmp_path / "reports" / "p-roofline-fp32-1t.png").stat().st_size > 5000


def test_a_case_that_cannot_be_is_a_row(dabench, tmp_path):
    shown = dabench(
        "profile", "--model", "stdc1-bisenet", "--mode", "train", "--size", "64x64", "--threads",
        "1", "--out", "run",
    )  # fmt: skip
    assert shown.returncode == 1
    assert "cannot train on batch 1" in shown.stdout
    models = pd.read_csv(tmp_path / "run" / "models.csv")
    assert models["status"].tolist() == ["unsupported"] * 2


NETS = """
from torch import nn

def tiny():
    layers = [
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.LeakyReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Sigmoid(),
    ]
    return nn.Sequential(*layers)

def dense():
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())

def light():
    layers = [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1), nn.ReLU()]
    return nn.Sequential(*layers)
"""


def test_layers_with_next_to_nothing_to_do_are_bound_by_their_launch(dabench, tmp_path):
    """A real profile of maps of one pixel: whatever they take, it is not their work."""
    (tmp_path / "nets.py").write_text(NETS)
    shown = dabench(
        "profile", "--model", "nets.py:tiny", "--input", "8x1x1", "--threads", "1", "--mode",
        "eval,train", "--batch", "2", "--max-time", "2s", "--launches", "2", "--out", "run",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    layers = pd.read_csv(tmp_path / "run" / "layers.csv")
    passes = pd.read_csv(tmp_path / "run" / "passes.csv")
    floors = passes[passes["kind"] == "floor"]
    assert {"convolution 1x1", "grouped convolution", "ReLU"} <= set(floors["layer"])
    # Each launch has its own, in each phase.
    in_all = passes.groupby(["launch", "phase"]).ngroups
    assert floors.groupby(["launch", "phase"]).ngroups == in_all == 6
    bound = layers[layers["bound"].notna()]
    for (mode, phase), rows in bound.groupby(["mode", "phase"]):
        launch = rows.loc[rows["bound"] == "launch", "median_s"].sum()
        assert launch > 0.5 * rows["median_s"].sum(), (mode, phase)


WIDE = """
from torch import nn

def wide():
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_profile_with_memory_kept_stands_beside_the_other(dabench, tmp_path):
    (tmp_path / "nets.py").write_text(WIDE)
    shown = dabench(
        "profile", "--model", "nets.py:wide", "--input", "3x256x256", "--threads", "1",
        "--allocator", "default,keep", "--launches", "1", "--max-time", "200ms", "--out", "run",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    for table in ("models.csv", "layers.csv"):
        rows = pd.read_csv(tmp_path / "run" / table)
        assert rows["allocator"].drop_duplicates().tolist() == ["default", "keep"]
    assert dabench("report", "run", "--name", "kept", "--out", "reports").returncode == 0
    text = (tmp_path / "reports" / "kept.md").read_text()
    for setting in ("1 thread, forward", "1 thread, memory kept, forward"):
        assert f"nets.py:wide, 1x256x256 eval fp32 nchw, {setting}: the " in text


def killed_after(launches, count, *arguments, cwd, **changes):
    """The rows of a table of launches when so many were there and the command was killed."""
    process = command.start(*arguments, cwd=cwd, **changes)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and len(read_lines(launches)) < count:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    return read_lines(launches)


def test_an_explanation_cites_its_rows(dabench, tmp_path):
    """Killed in the middle of its profile, then of its trials, it goes on to the same end.

    What torch.compile makes of a network is not asked here: it is off, and its trial is run.
    """
    off = {"TORCH_COMPILE_DISABLE": 1}
    (tmp_path / "nets.py").write_text(NETS)
    launches, trials = (tmp_path / "run" / f / "launches.csv" for f in ("", "trials"))
    asked = (
        "nets.py:dense", "nets.py:light", "--input", "16x64x64", "--threads", "1", "--max-time",
        "500ms", "--launches", "2", "--out", "run",
    )  # fmt: skip
    before = killed_after(launches, 4, "explain", *asked, cwd=tmp_path, **off)
    assert before
    tried = killed_after(trials, 2, "explain", "--resume", "run", cwd=tmp_path, **off)
    assert tried
    profiled = read_lines(launches)
    assert profiled[: len(before)] == before
    shown = dabench("profile", "--resume", "run", "--trace")
    assert shown.returncode == 2
    shown = dabench("explain", "--resume", "run", "--json", **off)
    assert shown.returncode == 0, shown.stderr
    assert read_lines(launches) == profiled
    assert read_lines(trials)[: len(tried)] == tried
    for table in (launches, trials):
        assert set(pd.read_csv(table)["case_id"].value_counts()) == {2}
    document = json.loads(shown.stdout)
    # Per pixel 16 x 16 x 9 products against 16 x 9 + 16 x 16.
    assert document["sentences"][0].startswith("By operations nets.py:light should take 1/5.76 ")
    profiled = {row["setting"] for row in document["evidence"] if "one image" not in row["what"]}
    native = read_run(tmp_path / "run")["environment"]["native"]["cpu"]
    precisions = ("fp32", "bf16") if "bf16" in native else ("fp32",)
    assert profiled == {f"{dtype} {layout}" for dtype in precisions for layout in ("nchw", "nhwc")}
    tried = {row["setting"] for row in document["evidence"] if "one image" in row["what"]}
    assert {
        "fp32 nchw", "fp32 nchw, torch.compile (default)", "fp32 nchw, batch 1",
        "fp32 nchw, batch 8",
    } <= tried  # fmt: skip
    assert dabench("report", "run", "--name", "why", "--out", "reports").returncode == 0
    report = (tmp_path / "reports" / "why.md").read_text()
    for sentence in document["sentences"]:
        assert sentence in report
    refused = dabench("audit", "run")
    assert refused.returncode == 2
    assert "run holds no timings; audit takes runs of time or sweep" in refused.stderr


def test_the_papers_discriminators_are_explained_by_default(dabench):
    shown = dabench(
        "explain", "--size", "64x64", "--threads", "1", "--max-time", "500ms", "--launches", "2",
        "--no-trials", "--json",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    first = json.loads(shown.stdout)["sentences"][0]
    assert first.startswith("By operations dw-disc should take 1/14.")


def test_ceilings_are_remembered(dabench):
    first, second = (
        json.loads(dabench("ceilings", "--dtype", "fp32", "--threads", "1", "--json").stdout)
        for _ in range(2)
    )
    assert first == second
    assert first["ceilings"][0]["launch_s"] > 0


def test_ceilings_and_counts_are_kept_as_runs_and_reported(dabench, tmp_path):
    for words in (
        ("ceilings", "--dtype", "fp32", "--threads", "1", "--out", "roof"),
        ("flops", "--model", "disc,dw-disc", "--size", "64x64", "--out", "ops"),
    ):
        shown = dabench(*words)
        assert shown.returncode == 0, shown.stderr
        # Finished: nothing is left to do, and the same is shown.
        again = dabench(words[0], "--resume", words[-1])
        assert (again.returncode, again.stdout) == (0, shown.stdout)
    assert read_run(tmp_path / "roof")["kind"] == "ceilings"
    assert read_run(tmp_path / "ops")["kind"] == "count"
    assert dabench("report", "roof", "ops", "--name", "both", "--out", ".").returncode == 0
    text = (tmp_path / "both.md").read_text()
    assert "## The machine's ceilings" in text
    assert "## Operations, parameters and bytes of one image" in text
    refused = dabench("flops", "--model", "disc", "--out", "ops")
    assert refused.returncode == 2
    assert "--out: 'ops' holds a run already" in refused.stderr


def test_the_audit_of_the_published_tables(dabench, tmp_path):
    shown = dabench("audit", "--out", "reports")
    assert shown.returncode == 0, shown.stderr
    assert "impossible in fp32" in shown.stdout
    assert "5800X" not in shown.stdout
    assert "49.4 TFLOP" in (tmp_path / "reports" / "audit.md").read_text()
