"""Paths of GPUs that are not here, with fakes of what they call."""

import contextlib
import sys
import types
from importlib.machinery import ModuleSpec
from typing import NamedTuple

import pytest
import torch
from fakes import make_case

from dabench.base.errors import UnsupportedError
from dabench.device import cuda
from dabench.network import runtimes
from dabench.network.workload import Workload
from dabench.plan.variants import why_impossible
from dabench.run import worker

CUDA, TENSORRT, CPU = (f"{n}ExecutionProvider" for n in ("CUDA", "Tensorrt", "CPU"))


class FakeSession:
    """Runs by the providers that can be loaded, like the real one: without a word."""

    loadable = (TENSORRT, CUDA, CPU)
    nodes = ((TENSORRT, 57), (CUDA, 3))
    refuses = None

    def __init__(self, path, options, providers, enable_fallback):
        type(self).last = self
        self.options, self.providers, self.enable_fallback = options, providers, enable_fallback
        if self.refuses:
            raise Exception(self.refuses)  # as onnxruntime's own errors

    def get_providers(self):
        named = [name for name, _ in self.providers if name in self.loadable]
        return [*named, *[CPU] * (CPU not in named)]

    def get_inputs(self):
        return [types.SimpleNamespace(name="x")]

    def get_outputs(self):
        return [types.SimpleNamespace(name="y")]

    def io_binding(self):
        return types.SimpleNamespace(bind_output=lambda *_: None, bind_input=lambda *_: None)

    def get_provider_graph_assignment_info(self):
        for name, count in self.nodes:
            yield types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: range(count))


class Options:
    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value


@pytest.fixture
def session(monkeypatch, tmp_path):
    made = type("Session", (FakeSession,), {})
    fake = types.SimpleNamespace(
        InferenceSession=made, SessionOptions=Options,
        get_available_providers=lambda: [TENSORRT, CUDA, CPU],
    )  # fmt: skip
    fake.__spec__ = ModuleSpec("onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(runtimes, "_export", lambda load, folder: tmp_path / "network.onnx")
    return made


class Gpu:
    """A device that is said to be a GPU; tensors stay where they are."""

    name, queues_work = "cuda:0", True

    def torch_device(self):
        return torch.device("cpu")

    def full_precision(self):
        return contextlib.nullcontext()

    def peak_bytes(self):
        return 1 << 20


def load_of(runtime, dtype):
    load = Workload(make_case(model="disc", device="cuda", dtype=dtype), Gpu(), 0)
    load.case = make_case(model="disc", device="cuda", dtype=dtype, runtime=runtime)
    load.device = torch.device("cuda", 1)
    return load


@pytest.mark.extras
@pytest.mark.parametrize(("dtype", "tf32"), [("fp32", 0), ("tf32", 1)])
def test_onnxruntime_uses_tf32_where_it_is_asked_for_and_nowhere_else(
    session, tmp_path, dtype, tf32
):
    made = runtimes._onnxruntime(load_of("onnxruntime", dtype), tmp_path)
    assert session.last.providers == [(CUDA, {"device_id": 1, "use_tf32": tf32})]
    assert session.last.enable_fallback == 0
    assert session.last.options.entries[runtimes.NO_CPU_FALLBACK] == "1"
    assert made.note == ""
    assert why_impossible(make_case(device="cuda", dtype=dtype, runtime="onnxruntime")) is None


def test_tensorrt_has_cuda_behind_it_and_says_what_it_took(session, tmp_path):
    made = runtimes._tensorrt(load_of("tensorrt", "fp16"), tmp_path)
    assert [name for name, _ in session.last.providers] == [TENSORRT, CUDA]
    assert session.last.providers[0][1] == {"device_id": 1, "trt_fp16_enable": True}
    assert made.note == f"{TENSORRT} runs 57 of 60 nodes; {CUDA} 3"
    session.get_provider_graph_assignment_info = property(lambda _: (None).older)
    assert "unknown" in runtimes._tensorrt(load_of("tensorrt", "fp32"), tmp_path).note


@pytest.mark.parametrize(("dtype", "override"), [("fp32", "0"), ("fp16", "0"), ("tf32", None)])
def test_tensorrts_tf32_is_switched_off_before_cuda_starts(monkeypatch, dtype, override):
    order = []
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(runtimes, "set_precision", lambda *a: order.append(a))

    def opened(name):
        order.append(name)
        raise UnsupportedError("no GPU here")

    monkeypatch.setattr("dabench.device.registry.open_device", opened)
    case = make_case(device="cuda", dtype=dtype, runtime="tensorrt")
    said = []
    worker.handle({"kind": "time", "case": case.to_dict(), "seed": 0, "rule": {}}, said.append)
    assert order == [("tensorrt", dtype), "cuda"]
    monkeypatch.undo()
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with monkeypatch.context() as patched:
        variables = {}
        patched.setattr(runtimes.os, "environ", variables)
        runtimes.set_precision("tensorrt", dtype)
        assert variables.get("NVIDIA_TF32_OVERRIDE") == override
        variables.clear()
        runtimes.set_precision("onnxruntime", dtype)
        assert variables == {}


def test_a_session_that_fell_back_is_no_measurement(session, tmp_path):
    session.loadable = (CPU,)
    with pytest.raises(UnsupportedError, match=f"runs it by {CPU}: {CUDA} could not be loaded"):
        runtimes._onnxruntime(load_of("onnxruntime", "fp32"), tmp_path)


def test_what_the_provider_refuses_is_one_clean_line(session, tmp_path):
    session.refuses = (
        "\x1b[0;31mThis session contains nodes that are assigned to the CPU\x1b[m\nat x"
    )
    with pytest.raises(UnsupportedError) as error:
        runtimes._onnxruntime(load_of("onnxruntime", "fp32"), tmp_path)
    assert str(error.value) == (
        f"onnxruntime cannot run it by {CUDA}: This session contains nodes that are assigned to "
        "the CPU"
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt", "openvino"])
def test_exported_runtimes_have_no_peak_that_torch_could_tell(runtime):
    assert load_of(runtime, "fp32").peak_bytes() is None
    assert load_of("eager", "fp32").peak_bytes() == 1 << 20


def test_a_captured_graph_has_the_bytes_of_its_pool(monkeypatch):
    graph = runtimes._CudaGraph.__new__(runtimes._CudaGraph)
    graph._graph = types.SimpleNamespace(pool=lambda: (0, 7))
    graph._model, graph._input = torch.nn.Linear(10, 10, bias=False), torch.zeros(5)
    segments = [
        {"segment_pool_id": (0, 7), "total_size": 1000},
        {"segment_pool_id": (0, 7), "total_size": 24},
        {"segment_pool_id": (0, 0), "total_size": 1 << 30},
    ]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert graph.peak_bytes() == 1024 + 4 * 105
    load = load_of("cuda-graph", "fp32")
    load.call = graph
    assert load.peak_bytes() == 1024 + 4 * 105


def test_the_plain_network_of_a_tf32_case_is_fp32(monkeypatch):
    """What a variant is compared with must not be rounded itself."""
    seen = []

    class Rounding(Gpu):
        tf32 = True

        @contextlib.contextmanager
        def full_precision(self):
            self.tf32 = False
            yield
            self.tf32 = True

    device = Rounding()
    monkeypatch.setattr(
        "dabench.network.workload._plain", lambda *_: seen.append(device.tf32) or []
    )
    Workload(make_case(model="disc", dtype="tf32", runtime="cuda-graph"), device, 0)
    assert seen == [False, False]


def test_cuda_switches_tf32_off_and_on_again(monkeypatch):
    device = cuda.CudaDevice.__new__(cuda.CudaDevice)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        with device.full_precision():
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_references_take_two_images_whatever_the_batch():
    load = (
        Workload(make_case(model="disc", batch=5, fuse="on", device="cpu"), Gpu(), 0) if 0 else None
    )
    load = load or Workload(make_case(model="stdc1", channels=3, batch=5, fuse="on"), Gpu(), 0)
    assert {len(each) for each in load.reference[0]} == {2}


def test_double_precision_is_left_to_the_host(monkeypatch):
    """Metal has none: the tensor goes to the host first."""
    order = []
    tensor = torch.ones(2)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: order.append("cpu") or t)
    monkeypatch.setattr(torch.Tensor, "double", lambda t: order.append("double") or t)
    runtimes._numbers(tensor)
    assert order == ["cpu", "double"]


class Process(NamedTuple):
    pid: int


def test_clocks_power_and_other_programs_are_in_each_launch(monkeypatch):
    class NVMLError(Exception):
        pass

    def refuses(*_):
        raise NVMLError("not supported")

    fake = types.SimpleNamespace(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2,
        nvmlDeviceGetEnforcedPowerLimit=lambda h: 70_000,
        nvmlDeviceGetComputeRunningProcesses=lambda h: [Process(1), Process(2)],
        nvmlDeviceGetClockInfo=lambda h, kind: {1: 585, 2: 5000}[kind],
        nvmlDeviceGetMaxClockInfo=refuses,
        nvmlDeviceGetPerformanceState=lambda h: 8,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(cuda.os, "getpid", lambda: 2)
    device = cuda.CudaDevice.__new__(cuda.CudaDevice)
    device._nvml_handle = lambda: "handle"
    assert device._state() == {
        "sm_clock_mhz": 585, "memory_clock_mhz": 5000, "max_sm_clock_mhz": None,
        "power_limit_w": 70.0, "performance_state": 8, "other_processes": 1,
    }  # fmt: skip
    device._nvml_handle = refuses
    assert device._state() == {}
