"""What only a GPU can show; skipped, with the reason, where there is none."""

import json

import pytest
import torch
from fakes import make_case

import dabench
from dabench.run.launcher import Launcher
from dabench.timing.clock import host_clock
from dabench.timing.engine import StopRule, measure, measure_once, take_sample

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU"),
]


@pytest.fixture
def device():
    from dabench.device.cuda import CudaDevice

    made = CudaDevice()
    made.configure(dtype="fp32", threads=0, autotune=True)
    return made


class Products:
    """Matrix products that keep a GPU busy for a while."""

    def __init__(self, count=20, size=4096):
        self.x = torch.randn(size, size, device="cuda")
        self.count = count

    def prepare(self):
        self.run()

    def run(self):
        for _ in range(self.count):
            self.y = self.x @ self.x

    def release(self):
        self.y = None


def test_wall_and_device_time_agree_where_the_gpu_is_busy(device):
    rule = StopRule(warmup=3, repeat=10, target_ci=None, max_time_s=None)
    for sample in measure(Products(), device, host_clock, rule).samples:
        assert sample.device_s == pytest.approx(sample.wall_s, rel=0.2)


def test_a_sample_holds_its_own_work_only(device):
    work = Products()
    take_sample(work, device, device.timer(), host_clock)
    prepared = take_sample(work, device, device.timer(), host_clock)
    work.prepare = lambda: None
    alone = take_sample(work, device, device.timer(), host_clock)
    assert prepared.device_s == pytest.approx(alone.device_s, rel=0.3)


def test_the_papers_clock_stops_before_the_work_is_done(device):
    work = Products()
    take_sample(work, device, None, host_clock)
    (sample,) = measure_once(work, device, host_clock, passes=20).samples
    assert sample.wall_s < 0.5 * sample.device_s


def test_peak_memory_is_the_devices(device):
    device.reset_peak()
    before = device.peak_bytes()
    held = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    assert device.peak_bytes() - before >= held.numel()


def test_the_canonical_call():
    result = dabench.time("dw-disc", device="cuda", batch=32, repeat=5)
    assert result.status == "ok"
    assert result.device_median_s <= result.median_s
    assert result.peak_bytes > 32 * 19 * 1024 * 512 * 4


def test_every_setting_runs():
    result = dabench.time(
        ["disc", "stdc1-bisenet"], device="cuda", batch=2, size="64x64",
        dtype=["fp32", "tf32", "bf16", "fp16"], memory_format=["nchw", "nhwc"],
        mode=["train", "eval"], repeat=2, launches=1,
    )  # fmt: skip
    assert [(row.case_id, row.reason) for row in result if row.status != "ok"] == []
    assert len(result) == 2 * 4 * 2 * (4 + 1)  # four phases in train mode, one in eval


def test_out_of_memory_is_a_row():
    result = dabench.time("disc", device="cuda", batch=10**6, repeat=1, launches=1)
    assert result.status == "oom"


def test_settings_are_stated_and_the_server_never_touches_the_gpu():
    case = make_case(device="cuda", dtype="tf32")
    rule = {"warmup": 1, "repeat": 1, "target_ci": None, "max_time_s": None}
    request = {"kind": "time", "case": case.to_dict(), "seed": 0, "rule": rule}
    with Launcher() as launcher:
        for _ in range(2):  # a context made before the fork would break the second
            messages = []
            assert launcher.run(request, messages.append, timeout_s=300)["kind"] == "done"
    stated = json.loads(json.dumps(messages[0]["device"]))
    assert stated["tf32"] is True
    assert stated["cudnn_benchmark"] is True


@pytest.mark.parametrize("runtime", ["cuda-graph", "onnxruntime", "tensorrt"])
def test_other_ways_to_run_a_network_agree_on_a_gpu(runtime):
    """Runtimes that this GPU's packages lack are rows that say so."""
    (row,) = dabench.time(
        "stdc1-bisenet", device="cuda", size="128x128", runtime=runtime, repeat=3, launches=1
    )
    if row.status == "unsupported":
        pytest.skip(row.reason)
    assert (row.status, row.reason) == ("ok", "")
    assert row.difference < 1e-3
    assert row.compile_s > 0


def test_what_was_compiled_or_counted_leaves_the_next_launch_its_gpu():
    """One server starts them all; a fork of a process that asked for GPUs cannot use them."""
    for compiled in ("default", "off"):
        (row,) = dabench.time(
            "dw-disc", device="cuda", size="64x64", compile=compiled, repeat=2, launches=2
        )
        assert (row.status, row.reason) == ("ok", "")


def test_input_on_the_host_takes_longer_than_the_forward_alone():
    by_input = {
        row.input: row
        for row in dabench.time(
            "dw-disc", device="cuda", batch=16, input=["device", "host"], repeat=10, launches=1
        )
    }
    assert by_input["host"].median_s > by_input["device"].median_s


def test_energy_is_measured_or_its_absence_explained():
    (row,) = dabench.time("disc", device="cuda", batch=32, repeat=200, launches=1)
    if row.joules_per_image is None:
        assert row.energy.startswith("n/a: ")
    else:
        assert row.joules_per_image > 0
        assert row.energy == "NVML"


def test_streams_throughput_and_several_processes_share_a_gpu():
    rows = dabench.time(
        "dw-disc", device="cuda", size="256x256", protocol=["stream", "throughput", "steady"],
        rate=60, concurrency=[1, 2], repeat=30, launches=1,
    )  # fmt: skip
    good = {(row.protocol, row.concurrency): row for row in rows if row.status == "ok"}
    assert len(good) == 5
    assert {row.status for row in rows} == {"ok", "unsupported"}
    stream = good["stream", 1]
    assert stream.n == 30
    assert stream.median_s >= stream.alone_s * 0.9
    assert stream.on_time > 0
    queued = good["throughput", 1]
    # Passes that are queued hide the host's part of each.
    assert queued.images_per_s > 0.9 * queued.latency_images_per_s
    assert good["steady", 2].n == 60


def test_a_callable_is_waited_for(tmp_path):
    from dabench.plan.settings import Settings
    from dabench.run.callables import time_callable

    work = Products()
    settings = Settings.of(repeat=5, launches=1)
    (row,) = time_callable(
        work.run, "products", device="cuda", batch=1, settings=settings, folder=tmp_path / "run",
        command="test", relaunch=lambda rule: [],
    ).outcome.measurements  # fmt: skip
    assert row.status == "ok"
    assert row.median_s == pytest.approx(row.device_median_s, rel=0.2)
