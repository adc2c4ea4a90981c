"""On a real XLA device: its CPU client will do. `make test-xla` makes what this needs."""

import json
import os
import subprocess
import sys
import time
from statistics import median

import pytest
import torch
from fakes import make_case

from dabench.network.workload import Workload
from dabench.timing.clock import host_clock
from dabench.timing.engine import StopRule, measure

pytest.importorskip("torch_xla", reason="torch_xla is not installed; make test-xla installs it")

from dabench.device.registry import available_devices, open_device


@pytest.fixture(scope="module")
def device():
    return open_device("xla")


RULE = StopRule(warmup=2, repeat=3, target_ci=None, max_time_s=None)
ROUNDS = 7


def until_on_the_host(load):
    """Seconds of passes until their output lies on the host: what nobody can doubt."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        with torch.no_grad():
            load.call(load.x).cpu()
        times.append(time.perf_counter() - begin)
    return times


def timed(model, device, size=256):
    """Medians of both, in turns: the machine's speed drifts."""
    case = make_case(model=model, device="xla", batch=1, height=size, width=size)
    load = Workload(case, device, seed=0)
    work = load.work("forward")
    until_on_the_host(load)
    waited, fetched = [], []
    for _ in range(ROUNDS):
        waited += [sample.wall_s for sample in measure(work, device, host_clock, RULE).samples]
        fetched += until_on_the_host(load)
    return median(waited), median(fetched)


@pytest.mark.parametrize("model", ["disc", "dw-disc"])
def test_device_time_is_that_until_the_output_is_on_the_host(device, model):
    """Of two networks whose work differs by 14 times."""
    waited, fetched = timed(model, device)
    assert waited == pytest.approx(fetched, rel=0.2)


def test_more_work_takes_longer(device):
    # 16 times the work, and both well above what a pass costs at least.
    assert timed("disc", device, 512)[0] > 3 * timed("disc", device, 128)[0]


def test_the_step_mark_alone_does_not_wait(device):
    """Why `synchronize` does more than `torch_xla.sync(wait=True)`."""
    import torch_xla

    case = make_case(model="disc", device="xla", batch=1, height=256, width=256)
    load = Workload(case, device, seed=0)
    waits = {"mark": lambda: torch_xla.sync(wait=True), "device": device.synchronize}
    times = {}
    for name, wait in waits.items():
        taken = []
        for _ in range(7):
            device.synchronize()
            begin = time.perf_counter()
            with torch.no_grad():
                output = load.call(load.x)
            wait()
            taken.append(time.perf_counter() - begin)
            del output
        times[name] = median(taken[2:])
    assert times["mark"] < 0.7 * times["device"]


def test_training_passes_run(device):
    case = make_case(device="xla", mode="train", phases=("total",))
    samples = measure(Workload(case, device, 0).work("total"), device, host_clock, RULE).samples
    assert all(sample.wall_s > 0 for sample in samples)


def test_the_cpu_client_is_known_and_never_taken_over_the_cpu(device):
    if device.client != "CPU":
        pytest.skip(f"this client is {device.client}")
    assert available_devices()[0] == "cpu"
    assert available_devices()[-1] == "xla"
    assert device.native_dtypes() == ("fp32",)
    assert device.describe()["device_name"] == "XLA CPU"


def test_dabench_time_on_xla(tmp_path):
    command = [
        sys.executable, "-m", "dabench", "time", "--model", "dw-disc", "--device", "xla,cpu",
        "--size", "64x64", "--repeat", "3", "--launches", "1", "--json", "--out",
        str(tmp_path / "r"),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert shown.returncode == 0, shown.stderr
    rows = {row["device"]: row for row in json.loads(shown.stdout)["measurements"]}
    assert {name: row["status"] for name, row in rows.items()} == {"xla": "ok", "cpu": "ok"}
    assert rows["xla"]["device_name"] == "XLA CPU"
