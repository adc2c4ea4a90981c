"""A case against itself: the floor, false verdicts, and where they are shown."""

import json

import numpy as np
import pytest
from command import dabench
from fakes import make_case, make_launch
from records import ENVIRONMENT, write_record

from dabench.base.errors import UsageError
from dabench.findings.selftest import noise_floor, read_selftest
from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings

CASE = make_case()


def write(folder, medians, **details):
    plan = [PlannedCase(case=CASE, settings=Settings.of()).to_dict()]
    writer = write_record(folder, plan=plan, **{"selftest": True, **details})
    for number, seconds in enumerate(map(float, medians)):
        writer.launch(make_launch(CASE, [seconds] * 3, launch=number, round=number))
    return folder


def scattered(n, scatter=0.03):
    return np.exp(np.random.default_rng(0).normal(0, scatter, n))


def test_a_steady_machine_has_a_low_floor_and_deceives_seldom(tmp_path):
    (found,) = read_selftest(write(tmp_path / "a", scattered(100)))
    assert (found.launches, found.per_side, found.comparisons) == (100, 8, 43)
    assert found.scatter == pytest.approx(0.03, rel=0.2)
    assert found.false_faster == found.false_slower == 0
    assert 0.3 < found.below / found.comparisons < 0.7
    # 2.1 standard errors of a difference of eight and eight, beyond the margin.
    assert found.floor == pytest.approx(0.02 + 2.1 * 0.03 / 2, rel=0.3)
    (louder,) = read_selftest(write(tmp_path / "b", scattered(100, 0.1)))
    assert louder.floor > 2 * found.floor
    assert louder.largest > found.largest


def test_a_machine_that_slows_down_favours_no_side(tmp_path):
    (found,) = read_selftest(write(tmp_path / "a", np.linspace(1.0, 2.0, 64)))
    assert found.largest < 0.01


def test_what_scatters_between_two_modes_is_seen(tmp_path):
    modes = np.random.default_rng(1).choice([1.0, 1.5], 80)
    (found,) = read_selftest(write(tmp_path / "a", modes))
    assert found.false_faster + found.false_slower <= 0.05 * found.comparisons
    assert found.floor > 0.1


def test_what_is_no_selftest_is_refused(tmp_path):
    with pytest.raises(UsageError, match="7 launches are too few; 8"):
        read_selftest(write(tmp_path / "a", scattered(7)))
    plan = [PlannedCase(case=CASE, settings=Settings.of()).to_dict()]
    write_record(tmp_path / "b", plan=plan)
    with pytest.raises(UsageError, match="not made by 'dabench selftest'"):
        read_selftest(tmp_path / "b")
    run = write(tmp_path / "c", [])
    with pytest.raises(UsageError, match="too few"):
        read_selftest(run)


def test_the_last_selftest_of_the_machine_is_shown_beside_verdicts(tmp_path):
    results = tmp_path / "results"
    write(results / "1-selftest-x", scattered(16, 0.1))
    write(results / "2-selftest-x", scattered(16))
    (results / "4-selftest-x").mkdir()
    (results / "4-selftest-x" / "run.json").write_text("{")  # damaged: passed over
    write(results / "5-selftest-x", [])  # interrupted at once
    write(results / "3-selftest-x", scattered(16), environment={**ENVIRONMENT, "cpu": "Other"})
    name, floor = noise_floor(results, ENVIRONMENT)
    assert (name, 0.02 < floor < 0.1) == ("2-selftest-x", True)
    assert noise_floor(results, {**ENVIRONMENT, "cpu": "Third"}) is None
    done = dabench("compare", "results/1-selftest-x", "results/2-selftest-x", cwd=tmp_path)
    assert f"Noise floor of this machine: {floor:.1%} (2-selftest-x)." in done.stdout
    words = ("compare", "results/1-selftest-x", "results/2-selftest-x", "--json")
    document = json.loads(dabench(*words, cwd=tmp_path).stdout)
    assert document["noise_floor"] == {"run": "2-selftest-x", "floor": floor}


def test_it_measures_and_is_kept(tmp_path):
    words = ("selftest", "--launches", 8, "--repeat", 2, "--size", "64x64", "--model", "dw-disc")
    done = dabench(*words, "--json", cwd=tmp_path)
    (found,) = json.loads(done.stdout)["selftest"]
    assert (done.returncode, found["launches"], found["per_side"]) == (0, 8, 2)
    (run,) = (tmp_path / "results").glob("*-selftest-dw-disc")
    again = dabench("selftest", "--resume", run, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["selftest"] == [found]
    few = dabench("selftest", "--launches", 7, cwd=tmp_path)
    assert (few.returncode, few.stderr.count("\n")) == (2, 1)
    assert "--launches: 7 are too few" in few.stderr
