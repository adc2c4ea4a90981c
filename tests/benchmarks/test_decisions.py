"""How often verdicts are false, how soon true ones fall, and what other rules make of the same."""

import json
import math
import subprocess
import sys
from statistics import fmean

import numpy as np
import pytest
from command import shell
from fakes import make_case, make_launch
from records import write_record
from scipy.stats import ttest_ind

from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings
from dabench.records.timings import (
    LAUNCH_COLUMNS,
    LAUNCHES,
    SAMPLE_COLUMNS,
    SAMPLES,
    launch_row,
    sample_rows,
)
from dabench.timing.verdicts import DELTA, LOOKS, Sides, judge, judge_sequentially

SCATTER, WITHIN, PASSES = 0.03, 0.01, 10
DIFFERENT = ("faster", "slower")


def log_normal(random, n):
    return random.normal(0, SCATTER, n)


def heavy_tails(random, n):
    return SCATTER / math.sqrt(3) * random.standard_t(3, n)


def two_modes(random, n):
    return np.log1p(0.1 * (random.random(n) < 0.5)) + random.normal(0, 0.005, n)


def rare_shifts(random, n):
    return np.log1p(0.1 * (random.random(n) < 0.1)) + random.normal(0, 0.01, n)


def drifting(random, n):
    return random.normal(0, 0.01, n) + np.cumsum(random.normal(0, 0.01, n))


WORLDS = (log_normal, heavy_tails, two_modes, rare_shifts, drifting)


def launches(random, world, number, slowdown=0.0):
    """Both sides measured A B B A: samples of each launch scatter about its own level."""
    levels = world(random, 2 * number)
    order = np.arange(2 * number).reshape(-1, 2)
    order[1::2] = order[1::2, ::-1]
    samples = np.exp(levels[:, None] + random.normal(0, WITHIN, (2 * number, PASSES)))
    base, new = samples[order[:, 0]], samples[order[:, 1]] * (1 + slowdown)
    rounds = list(range(number))
    return Sides(base.tolist(), new.tolist(), (rounds, rounds))


def pooled_welch(base, new):
    """Every sample counts as if it were independent."""
    if ttest_ind(np.ravel(base), np.ravel(new), equal_var=False).pvalue >= 0.05:
        return "same"
    return "slower" if np.mean(new) > np.mean(base) else "faster"


def threshold(base, new, limit=0.07):
    ratio = np.median(new) / np.median(base)
    return "slower" if ratio > 1 + limit else "faster" if ratio < 1 - limit else "same"


def minima(base, new):
    ratio = np.min(new) / np.min(base)
    return "slower" if ratio > 1 + DELTA else "faster" if ratio < 1 - DELTA else "same"


def nvbench(base, new):
    """nvbench_compare: the same if the means differ by no more than the smaller noise."""
    noise = min(np.std(side, ddof=1) / np.mean(side) for side in (np.ravel(base), np.ravel(new)))
    change = np.mean(new) / np.mean(base) - 1
    return "same" if abs(change) <= noise else "slower" if change > 0 else "faster"


OTHERS = {
    "Welch's t, samples pooled": pooled_welch,
    "7% threshold": threshold,
    "minima": minima,
    "nvbench": nvbench,
}


def judged(sides, delta=DELTA):
    """Verdicts of every rule on what the sequential one saw until it decided, or 64 launches."""
    fixed = judge({"it": sides.first(8)}, delta)["it"].verdict
    found = judge_sequentially({"it": sides}, delta)["it"]
    seen = sides.first(found.launches)
    return {
        "dabench, 8 launches": fixed,
        "dabench, --decide": found.verdict,
        **{name: rule(seen.base, seen.new) for name, rule in OTHERS.items()},
    }, found.launches


@pytest.mark.quick
def test_false_verdicts_on_simulated_launches(compare):
    random = np.random.default_rng(0)
    times = 400 if compare.measuring else 3
    for world in WORLDS:
        found = [judged(launches(random, world, LOOKS[-1]))[0] for _ in range(times)]
        print(f"\nA/A, {world.__name__}, {times} times:")
        for rule in found[0]:
            slower, faster = (sum(each[rule] == says for each in found) for says in DIFFERENT)
            print(f"  {rule:28} faster {faster / times:6.1%}, slower {slower / times:6.1%}")
            if rule.startswith("dabench"):
                compare.check(
                    f"false verdicts of {rule}, {world.__name__}", (slower + faster) / times,
                    at_most=0.05,
                )  # fmt: skip
    # The margin leaves too few false verdicts to count their signs: without it.
    signs = [
        judge({"it": launches(random, log_normal, 8)}, 0.0)["it"].verdict for _ in range(10 * times)
    ]
    false = [each for each in signs if each in DIFFERENT]
    if compare.measuring:
        share = false.count("faster") / len(false)
        compare.check("share of faster among false verdicts", share, at_least=0.4, at_most=0.6)
        compare.check("false verdicts without a margin", len(false) / len(signs), at_most=0.06)
    compare.benchmark.pedantic(lambda: None, rounds=1, iterations=1)


NETWORK = '''
import os, random, time
from torch import nn


class Spins(nn.Module):
    """Takes 50 ms, and in each process some per cent more or less: as launches scatter."""

    def __init__(self, slower):
        super().__init__()
        level = random.Random(os.urandom(8)).gauss(0, {scatter})
        self.seconds = 0.050 * 2.718281828 ** level * (1 + slower)

    def forward(self, x):
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        return x


def build(slower=0.0):
    return Spins(slower)
'''


def test_two_runs_of_a_thousand_cases(compare, tmp_path, monkeypatch):
    """Beside the import of pandas, which whoever reads tables pays anyway."""
    monkeypatch.chdir(tmp_path)
    for name, factor in (("a", 1.0), ("b", 1.1)):
        cases = [make_case(batch=number) for number in range(1, 1001 if compare.measuring else 3)]
        plan = [PlannedCase(case=case, settings=Settings.of()).to_dict() for case in cases]
        record = write_record(tmp_path / name, plan=plan)
        rows, samples = [], []
        for number, case in enumerate(case for case in cases for _ in range(3)):
            seconds = factor * (1 + 0.01 * (number % 3))
            launch = make_launch(case, [seconds] * 20, launch=number, round=number % 3)
            rows.append(list(launch_row(launch).values()))
            samples += sample_rows(launch)
        record.run.append(LAUNCHES, LAUNCH_COLUMNS, rows)
        record.run.append(SAMPLES, SAMPLE_COLUMNS, samples)
    ours, pandas = compare.medians(
        lambda: subprocess.run([sys.executable, "-m", "dabench", "compare", "a", "b", "--json"],
                               check=False, capture_output=True),
        lambda: subprocess.run([sys.executable, "-c", "import pandas"], check=True),
        rounds=5,
    )  # fmt: skip
    compare.check("comparing 1,000 cases over importing pandas", ours / pandas, at_most=6.0)
    compare.check("seconds of comparing 1,000 cases beyond importing pandas", ours - pandas)


def test_a_slowdown_of_five_percent_is_found_within_two_minutes(compare, tmp_path):
    (tmp_path / "spins.py").write_text(NETWORK.replace("{scatter}", str(SCATTER)))
    words = ("compare", "--model", "spins.py:build", "--size", "64x64", "--decide", "--json")
    launch_s = []
    for slower in (0.05, 0.0) if compare.measuring else ():
        run = tmp_path / f"run-{slower}"
        vs = (
            f"--model-arg slower={slower} --batch 2"
            if not slower
            else f"--model-arg slower={slower}"
        )
        done = shell(*words, "--vs", vs, "--out", run, cwd=tmp_path)
        (row,) = json.loads(done.stdout)["verdicts"]
        print(f"\nreal launches, {slower:.0%} slower: {row}", file=sys.stderr)
        assert row["verdict"] != "faster"
        lines = (run / "launches.csv").read_text().splitlines()[1:]
        launch_s += [float(line.split(",")[6]) for line in lines if line]
    within = int(120 / (2 * fmean(launch_s or [1.0])))
    compare.check("launches of each side within two minutes", within)
    random = np.random.default_rng(1)
    times = 400 if compare.measuring else 3
    number = max(look for look in LOOKS if look <= within)
    found = [judged(launches(random, log_normal, number, 0.05)) for _ in range(times)]
    for rule in found[0][0]:
        share = sum(each[rule] == "slower" for each, _ in found) / times
        compare.check(f"5% found by {rule}", share, at_least=0.9 if "decide" in rule else None)
    compare.check("launches until it was found", float(np.median([each for _, each in found])))
    compare.benchmark.pedantic(lambda: None, rounds=1, iterations=1)
