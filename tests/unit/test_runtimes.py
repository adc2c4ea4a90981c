"""When two ways of running a network agree: over all outputs, whatever their offset."""

import logging
import math
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from fakes import FakeClock, make_case

from dabench.device.registry import open_device
from dabench.network.runtimes import DisagreementError, difference_of, prepare
from dabench.network.tensors import outputs, tensors
from dabench.network.workload import Workload, _unsettle_norms


def test_the_distance_by_hand():
    expected = torch.tensor([1.0, 3.0])  # varies by sqrt(2) around 2
    assert difference_of([expected + 0.5], [expected], 1e-3) == pytest.approx(0.5)
    assert difference_of([expected], [expected], 1e-3) == 0


def test_an_offset_hides_nothing():
    noise, other = torch.randn(2, 1000)
    found = difference_of([2000 + noise], [2000 + other], 1e-3)
    # Far beyond what fp32 is allowed.
    assert found > 1e-2


def test_rounding_of_an_offset_is_no_difference():
    exact = 1000 + torch.randn(1000, dtype=torch.float64)
    assert difference_of([exact.float()], [exact], 1e-3) < 1e-3
    assert difference_of([exact.bfloat16()], [exact], 0.1) < 0.1


def test_every_output_counts():
    a, b = torch.randn(2, 10)
    assert difference_of([a, b + 1], [a, b], 1e-3) > 0.5
    for found in ([a], [a, b[:5]], []):
        with pytest.raises(DisagreementError, match="where the plain network puts out"):
            difference_of(found, [a, b], 1e-3)


def test_constants_zeros_and_what_is_no_number():
    zeros, ones = torch.zeros(5), torch.ones(5)
    assert difference_of([zeros], [zeros], 1e-3) == 0
    assert difference_of([ones], [ones * (1 + 1e-8)], 1e-3) < 1e-3
    assert difference_of([ones], [zeros], 1e-3) == math.inf
    assert difference_of([ones * math.nan], [ones], 1e-3) == math.inf


@pytest.fixture
def compiling(tmp_path, monkeypatch):
    """Compiles a network, named by its case's folder, with a trial; the compiler takes 5 s."""
    clock = FakeClock()

    def compiled(network, mode):
        clock.now += 5
        return network

    def run(name, trial):
        module = None if trial is None else SimpleNamespace(pick_vec_isa=lambda: trial(clock))
        monkeypatch.setitem(sys.modules, "torch._inductor.cpu_vec_isa", module)
        load = Workload(make_case(compile="default"), device := open_device("cpu"), 0)
        return prepare(load, device, tmp_path / name, clock)

    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("dabench.network.runtimes._COMPILERS", ())
    return run


def test_the_trial_of_a_compiler_is_no_compiling_and_is_taken_over(compiling, tmp_path):
    """For each cache torch's compiler tries anew for which instructions the machine builds."""
    files = ("ab/cab.so", "ab/cab.so.load_ok", "cd/ccd.so", "cd/ccd.cpp", "locks/cab.lock")

    def trial(clock):
        cache = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert cache == tmp_path / "first" / "inductor"
        # It would say that there is no GPU.
        assert not logging.getLogger("torch.utils.cpp_extension").isEnabledFor(logging.WARNING)
        for name in files:
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            (cache / name).write_text(name)
        clock.now += 16

    def again(clock):
        cache = tmp_path / "second" / "inductor"
        found = {str(path.relative_to(cache)) for path in cache.glob("*/*")}
        # What was not found to load may be half a file.
        assert found == {"ab/cab.so", "ab/cab.so.load_ok"}
        assert (cache / "ab" / "cab.so").read_text() == "ab/cab.so"

    first, second = compiling("first", trial), compiling("second", again)
    assert (first["compile_s"], first["tried_s"]) == (5, 16)
    assert (second["compile_s"], second["tried_s"]) == (5, 0)


def refused(clock):
    raise RuntimeError("No working C++ compiler found")


@pytest.mark.parametrize("trial", [None, refused])
@pytest.mark.parametrize("cache", ["{}/cache", "/dev/null/cache"])
def test_a_trial_that_fails_is_the_compilers_own_matter(
    compiling, tmp_path, monkeypatch, trial, cache
):
    monkeypatch.setenv("DABENCH_CACHE", cache.format(tmp_path))
    assert compiling("case", trial)["compile_s"] == 5


def test_where_there_is_no_home_nothing_is_taken_over(compiling, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("dabench.network.runtimes.cache_folder", nowhere)
    assert compiling("case", lambda clock: None)["compile_s"] == 5


def test_single_numbers_and_complex_ones():
    one = torch.tensor([[3.0]])
    assert difference_of([one * 1.01], [one], 1e-3) == pytest.approx(0.01)
    wave = torch.tensor([1 + 2j, 3 + 4j])
    assert difference_of([wave.conj()], [wave], 1e-3) > 1
    assert difference_of([wave], [wave], 1e-3) == 0


class Deep(torch.nn.Module):
    """A hundred residual branches that start at zero, as timm makes them."""

    def __init__(self):
        super().__init__()
        convolutions = [torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(100)]
        self.convolutions = torch.nn.ModuleList(convolutions)
        self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(8) for _ in range(100)])
        for norm in self.norms:
            torch.nn.init.zeros_(norm.weight)
        self.norms[0].register_parameter("bias", None)

    def forward(self, x):
        for conv, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + norm(conv(x))
        return x


def test_activations_of_deep_networks_keep_their_size():
    network, x = Deep().eval(), torch.randn(1, 8, 8, 8)
    _unsettle_norms(network)
    with torch.no_grad():
        assert network(x).abs().max() < 10 * x.abs().max()


def test_batch_norms_have_statistics_that_folding_must_get_right():
    load = Workload(make_case(model="stdc1-bisenet", channels=3, fuse="on"), open_device("cpu"), 0)
    plain = Workload(make_case(model="stdc1-bisenet", channels=3), open_device("cpu"), 0)
    stats = [m for m in plain.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.running_mean.std() > 0.05 and m.weight.std() > 0.05 for m in stats)
    # The same network and input as the plain case of the same seed.
    with torch.inference_mode():
        expected = outputs(plain.forward())
    assert difference_of(expected, load.reference[0], 1e-3) == 0


def test_a_wrong_fold_is_a_failure(tmp_path):
    """As torch.fx makes one of a convolution that is used twice."""
    device = open_device("cpu")
    load = Workload(make_case(model="stdc1-bisenet", channels=3, fuse="on"), device, 0)
    with torch.no_grad():
        first = next(m for m in load.model.modules() if isinstance(m, torch.nn.Conv2d))
        first.bias.add_(0.5)
    with pytest.raises(DisagreementError, match="differs from the plain network in fp32 by"):
        prepare(load, device, tmp_path, lambda: 0.0)


def test_what_has_no_batch_norm_is_not_called_fused():
    with pytest.raises(NotImplementedError, match="nothing to fold"):
        Workload(make_case(model="dw-disc", fuse="on"), open_device("cpu"), 0)


class Pair(NamedTuple):
    x: object
    y: object


@dataclass
class Output:
    loss: object
    logits: torch.Tensor


def test_tensors_in_all_that_networks_put_out():
    a, b, c = torch.zeros(3, 1)
    pair = Pair(a, None)
    nested = [pair, OrderedDict(out=b, aux=Output(None, c)), 3, "text"]
    assert [id(t) for t in tensors(nested)] == [id(a), id(b), id(c)]
    with pytest.raises(TypeError, match="put out no tensor but a int"):
        outputs(3)
