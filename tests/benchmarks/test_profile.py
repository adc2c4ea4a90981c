"""What a profile costs, how little it disturbs, and that its rows add up."""

import json
import subprocess
import sys
import time

import pytest

import dabench


def profile(folder, *options):
    """A profile by the command line: its rows, and the seconds the command took."""
    out = folder / f"run-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "dabench", "profile", "--threads", "2", "--json", "--out", out]
    begin = time.perf_counter()
    shown = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, timeout=600, check=True
    )
    return json.loads(shown.stdout), time.perf_counter() - begin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("profiles")


@pytest.mark.parametrize(
    ("model", "size"), [("stdc1-bisenet", "512x1024"), ("dw-disc", "1024x512")]
)
def test_a_profile_adds_up_and_disturbs_little(compare, folder, model, size):
    """Ceilings included where this machine's are not known yet."""
    quick = [] if compare.measuring else ["--launches", "1", "--max-time", "500ms"]
    size = size if compare.measuring else "64x64"
    found, seconds = profile(folder, "--model", model, "--size", size, *quick)
    (row,) = [row for row in found["models"] if row["phase"] == "forward"]
    compare.benchmark.pedantic(lambda: None, rounds=1, iterations=1)
    begin = time.perf_counter()
    dabench.time(model, size=size, threads=2, max_time="12s" if compare.measuring else "500ms")
    timed = time.perf_counter() - begin
    compare.check(f"a profile of {model} over its timing", seconds / timed, at_most=5.0)
    # What is left over is a row of its own; it must not be where the time goes.
    left = abs(row["remainder_s"]) / row["median_s"]
    compare.check(f"share outside of the layers of {model}", left, at_most=0.10)
    disturbed = 0.0 if row["corrected"] else row["disturbance"]
    compare.check(f"uncorrected disturbance by hooks in {model}", disturbed, at_most=0.05)
    layers = [layer for layer in found["layers"] if layer["phase"] == "forward"]
    total = sum(layer["median_s"] for layer in layers)
    assert total == pytest.approx(row["median_s"])
