"""Which precisions are native, what is left out for it, and trials that end."""

import pytest
import torch
from torch import nn

from dabench.device.native import native_on_cpu, native_on_cuda
from dabench.plan.devices import resolve
from dabench.plan.settings import Grid
from dabench.profiling import kernels
from dabench.training.precision import LIMIT_S, faster_dtype

ZEN3, ZEN4 = {"avx2"}, {"avx2", "avx512f", "avx512_bf16"}
SAPPHIRE = ZEN4 | {"amx_tile", "amx_bf16", "avx512_fp16"}


@pytest.mark.parametrize(
    ("flags", "variables", "machine", "native"),
    [
        (ZEN3, {}, "x86_64", ("fp32",)),
        (ZEN4, {}, "x86_64", ("fp32", "bf16")),
        (SAPPHIRE, {}, "x86_64", ("fp32", "bf16", "fp16")),
        ({"avx2", "avx_ne_convert"}, {}, "x86_64", ("fp32",)),  # it converts, and no more
        ({"amx_tile", "amx_bf16"}, {}, "x86_64", ("fp32", "bf16")),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "x86_64", ("fp32",)),
        (SAPPHIRE, {"DNNL_MAX_CPU_ISA": "avx512_core"}, "x86_64", ("fp32",)),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "x86_64", ("fp32", "bf16")),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "nonsense"}, "x86_64", ("fp32", "bf16", "fp16")),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX10_1_512"}, "x86_64", ("fp32", "bf16", "fp16")),
        ({"asimd", "fphp", "asimdhp"}, {}, "aarch64", ("fp32",)),
        ({"asimd", "bf16"}, {}, "aarch64", ("fp32", "bf16")),
        (set(), {}, "arm64", ("fp32",)),
    ],
)
def test_a_processors_precisions(flags, variables, machine, native):
    assert native_on_cpu(flags, variables, machine) == native


@pytest.mark.parametrize(
    ("capability", "native"),
    [
        ((6, 1), ("fp32",)),
        ((7, 5), ("fp32", "fp16")),  # T4
        ((8, 9), ("fp32", "tf32", "bf16", "fp16")),
    ],
)
def test_a_gpus_precisions(capability, native):
    assert native_on_cuda(capability) == native


def environment(**native):
    return {"devices": list(native), "gpus": ["GPU"], "torch": "2", "native": native}


def test_what_is_optional_is_left_out_where_it_is_emulated():
    grid = Grid(models=("disc",), devices=("cpu", "cuda"), dtypes=("fp32", "bf16?"))
    grids, lines = resolve(grid, environment(cuda=["fp32", "bf16"], cpu=["fp32"]))
    assert [(g.devices, g.dtypes) for g in grids] == [
        (("cpu",), ("fp32",)), (("cuda",), ("fp32", "bf16")),
    ]  # fmt: skip
    assert lines == ["bf16 is only emulated on cpu here and left out; --dtype bf16 measures it"]


def test_what_is_asked_for_by_name_runs():
    grid = Grid(models=("disc",), devices=("cpu",), dtypes=("bf16",))
    assert resolve(grid, environment(cpu=["fp32"])) == ([grid], [])
    only = Grid(models=("disc",), devices=("cpu",), dtypes=("bf16?",))
    assert resolve(only, environment(cpu=["fp32"]))[0] == []


class Trial:
    """A device on which passes take the times it is told, by a clock of its own."""

    name = "cpu"

    def __init__(self, native=("fp32", "bf16"), *, queues_work=False, **seconds):
        self.native, self.seconds = native, seconds
        self.queues_work = queues_work
        self.now = 0.0
        self.passes = []

    def native_dtypes(self):
        return self.native

    def torch_device(self):
        return torch.device("cpu")

    def synchronize(self):
        pass

    def clock(self):
        return self.now


class Spends(nn.Module):
    def __init__(self, trial):
        super().__init__()
        self.trial, self.layer = trial, nn.Conv2d(3, 1, 1)

    def forward(self, x):
        dtype = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        self.trial.passes.append((dtype, tuple(x.shape)))
        self.trial.now += self.trial.seconds[dtype]
        return self.layer(x)


def choose(trial, shape=(4, 3, 512, 1024)):
    return faster_dtype(Spends(trial), shape, trial, "nchw", trial.clock)


def test_an_emulated_precision_is_never_tried():
    trial = Trial(native=("fp32",), fp32=0.1, bf16=10.0)
    choice = choose(trial)
    assert (choice.dtype, trial.passes) == ("fp32", [])
    assert "only emulated on cpu" in choice.why


@pytest.mark.parametrize(
    ("fp32", "bf16", "dtype", "passes"),
    [
        (0.1, 0.01, "bf16", 4),
        (0.1, 0.5, "fp32", 4),
        (0.1, 0.08, "bf16", 10),
        (0.1, 0.095, "fp32", 10),
    ],
)
def test_a_trial_ends_when_the_answer_is_clear(fp32, bf16, dtype, passes):
    trial = Trial(fp32=fp32, bf16=bf16)
    choice = choose(trial)
    assert (choice.dtype, len(trial.passes)) == (dtype, passes)
    assert {shape for _, shape in trial.passes} == {(2, 3, 128, 256)}
    assert "limit" not in choice.why


def test_a_device_that_queues_its_work_tries_the_whole_of_it():
    trial = Trial(fp32=0.1, bf16=0.01, queues_work=True)
    assert choose(trial, (3, 3, 160, 320)).dtype == "bf16"
    assert {shape for _, shape in trial.passes} == {(3, 3, 160, 320)}


def test_bf16_is_for_what_does_not_fit_in_fp32():
    def full(*_):
        raise torch.OutOfMemoryError("full")

    trial = Trial(fp32=0.1, bf16=0.1, queues_work=True)
    network = Spends(trial)
    network.layer.register_forward_hook(full)
    choice = faster_dtype(network, (3, 3, 160, 320), trial, "nchw", trial.clock)
    assert choice.dtype == "bf16"
    assert choice.why == "in fp32 3x3x160x320 does not fit in memory"


def test_a_trial_is_bounded_and_says_so():
    trial = Trial(fp32=1.0, bf16=0.9)
    choice = choose(trial)
    assert trial.now < 2 * LIMIT_S
    assert "1 pass each, ended by its limit" in choice.why


def test_ceilings_are_bounded_and_say_what_is_missing(monkeypatch):
    from dabench.device.registry import open_device

    monkeypatch.setattr(kernels, "LIMIT_S", 0.0)
    monkeypatch.setattr(kernels, "STREAM_BYTES", (1 << 16, 1 << 17))
    found = kernels.measure_kernels(open_device("cpu"), "fp32")
    assert len(found["kernels"]) == len(found["streams"]) == 1
    assert found["streams"][0][0] == 1 << 17
    assert "matmul 2048" in found["left_out"]
    assert "floors of train backward" in found["left_out"]
