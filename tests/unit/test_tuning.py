"""What would quiet a machine: read from a fake file system; what is done is undone."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command import dabench

from dabench.device import tuning
from dabench.device.tuning import PINNED, advise, busy_programs, pinned, whole_cores
from dabench.run import quieting
from dabench.run.quieting import Noise, beyond_chance, noise_of

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")


@pytest.fixture
def machine(tmp_path):
    """Four hardware threads on two cores, under a governor that follows the load, boosting."""
    cpu = tmp_path / "sys/devices/system/cpu"
    for thread, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = cpu / f"cpu{thread}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    (cpu / "cpu0" / "cpufreq").mkdir()
    (cpu / "cpu0" / "cpufreq" / "scaling_governor").write_text("powersave\n")
    (cpu / "cpufreq").mkdir()
    (cpu / "cpufreq" / "boost").write_text("1\n")
    return tmp_path


def test_one_thread_of_each_core(machine):
    assert whole_cores(machine, [0, 1, 2, 3]) == [0, 1]
    assert whole_cores(machine, [2, 3]) == [2, 3]
    assert whole_cores(machine, [0, 2]) == [0]
    assert whole_cores(machine / "nowhere", [0, 1]) == [0, 1]


def test_what_only_root_may_do_is_asked_for(machine):
    advice = {
        each.what: each for each in advise(["NVIDIA H100"], machine, lambda: [("make", 7, 0.5)])
    }
    assert advice["governor"].how == "sudo cpupower frequency-set -g performance"
    assert advice["boost"].how == "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
    assert "nvidia-smi -i 0 --lock-gpu-clocks" in advice["GPU clocks"].how
    assert advice["other programs"].found == "make (7) uses 50% of a core"
    assert [each.what for each in advice.values() if each.ours] in ([], ["pinning"])


def test_what_is_well_asks_for_nothing(machine):
    cpu = machine / "sys/devices/system/cpu"
    (cpu / "cpu0" / "cpufreq" / "scaling_governor").write_text("performance\n")
    (cpu / "cpufreq" / "boost").write_text("0\n")
    found = advise([], machine, list)
    assert [each.how for each in found if not each.ours] == ["", "", ""]
    assert [each.found for each in advise([], machine / "nowhere", list)][1].startswith(
        "the system"
    )
    (cpu / "intel_pstate").mkdir()
    (cpu / "cpufreq" / "boost").unlink()
    (cpu / "intel_pstate" / "no_turbo").write_text("0\n")
    assert "no_turbo" in next(
        each.how for each in advise([], machine, list) if each.what == "boost"
    )


@linux
def test_threads_are_kept_in_place_and_let_go_again():
    before, variables = os.sched_getaffinity(0), {name: os.environ.get(name) for name in PINNED}
    first = min(before)
    with pinned([first]):
        assert os.sched_getaffinity(0) == {first}
        assert {name: os.environ.get(name) for name in PINNED} == dict(PINNED)
    assert os.sched_getaffinity(0) == before
    assert {name: os.environ.get(name) for name in PINNED} == variables


def test_another_program_is_named_and_ones_own_are_not():
    spin = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(spin) as child:
        try:
            assert child.pid not in [pid for _, pid, _ in busy_programs(0.3)]
        finally:
            child.kill()


def test_noise_is_told_apart_between_and_within_processes():
    random = np.random.default_rng(0)
    luck = random.normal(0, 0.05, 500)
    launches = np.exp(luck[:, None] + random.normal(0, 0.01, (500, 30)))
    found = noise_of(launches.tolist())
    assert found.between == pytest.approx(0.05, rel=0.1)
    assert found.within == pytest.approx(2 * 1.645 * 0.01, rel=0.1)


def test_two_scatters_differ_by_chance_no_more_than_that():
    random = np.random.default_rng(0)
    one, two = (random.normal(0, 1, (4000, 8)).std(axis=1, ddof=1) for _ in range(2))
    limit = beyond_chance(8)
    assert np.mean((one / two > limit) | (two / one > limit)) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("after", "says"),
    [(0.01, "quieter in place: begin commands with"), (0.05, "within chance"), (0.3, "noisier in")],
)
def test_the_noise_before_and_after_decides(monkeypatch, after, says):
    pair = Noise(8, 0.05, 0.02, 0.003), Noise(8, after, 0.02, 0.003)
    monkeypatch.setattr(quieting, "noise_before_and_after", lambda cores: pair)
    monkeypatch.setattr(tuning, "busy_programs", list)
    shown = dabench("env", "--tune").stdout
    assert says in shown
    document = json.loads(dabench("env", "--tune", "--json").stdout)
    assert document["after"]["between"] == after
    assert {each["what"] for each in document["advice"]} >= {"pinning", "governor", "boost"}
