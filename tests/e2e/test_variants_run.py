"""Fused, compiled and exported networks in real workers: equal to the plain one, or a row."""

import platform
from importlib.util import find_spec

import pytest

import dabench

LIMIT_FP32 = 1e-3

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu())

class Unsteady(Net):
    # Its output is another at every call: no two ways of running it agree.
    def forward(self, x):
        return super().forward(x) + torch.randn(x.shape[-1])

class Twice(Net):
    def forward(self, x):
        y = super().forward(x)
        return {"out": y, "aux": [y * 2, None]}

class Shared(nn.Module):
    # torch.fx folds each batch norm into the one convolution they share.
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))

class Wide(nn.Module):
    # Maps of 64 MiB, of which glibc gives every one back.
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 1)

    def forward(self, x):
        return ((self.conv(x) + 1).relu() * 2).mean((2, 3))

class Branching(Net):
    def forward(self, x):
        return super().forward(x) if x.sum() > 1e9 else super().forward(-x)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return path


def measure(model, **options):
    small = {"device": "cpu", "repeat": 2, "launches": 1}
    return dabench.time(model, **{**small, **options})


def test_fused_networks_agree_and_host_input_is_another_pass(nets):
    rows = measure(
        [f"{nets}:Net", "stdc1-bisenet"], size="64x64", fuse=[False, True], input=["device", "host"]
    )
    assert {row.status for row in rows} == {"ok"}
    assert len(rows) == 8
    for row in rows:
        if row.fuse == "on":
            assert 0 <= row.difference < LIMIT_FP32
            assert row.compile_s is None
        else:
            assert row.difference is None


def test_bf16_is_folded_before_it_is_cast(nets):
    (row,) = measure(f"{nets}:Net", size="64x64", fuse=True, dtype="bf16")
    assert row.status == "ok"
    assert 1e-4 < row.difference < 0.02


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_that_is_kept_is_not_handed_out_anew(nets, monkeypatch):
    # What takes a second here may take a tenth elsewhere.
    monkeypatch.setattr("dabench.records.measurements.FEWEST_CPU_S", 0.1)
    rows = measure(
        f"{nets}:Wide", size="1024x1024", allocator=["default", "keep"], threads=1, repeat=100,
        max_time="3s",
    )  # fmt: skip
    given_back, kept = rows
    assert [row.status for row in rows] == ["ok", "ok"]
    # Nothing of the network is another.
    assert (kept.difference, kept.compile_s) == (None, None)
    assert kept.system_share < given_back.system_share / 2
    assert "system" in given_back.flags
    assert "system" not in kept.flags


@pytest.fixture(scope="module")
def exported(nets):
    """Of one run, since each runtime takes the same export."""
    return measure(
        ["stdc1-bisenet", "diag-disc", f"{nets}:Net", f"{nets}:Unsteady", f"{nets}:Twice"],
        size="64x64",
        runtime=[name for name in ("onnxruntime", "openvino") if find_spec(name)],
        launches=2,
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_networks_agree(request, runtime):
    pytest.importorskip(runtime)
    rows = [row for row in request.getfixturevalue("exported") if row.runtime == runtime]
    *good, bad, twice = rows
    for row in good:
        assert (row.status, row.reason) == ("ok", "")
        assert row.difference < LIMIT_FP32
        assert row.compile_s > 0
        assert (row.launches, row.n) == (2, 4)
        assert row.peak_bytes is None
    assert bad.status == "error"
    assert "the plain network differs from itself by" in bad.reason
    # Both outputs are compared, from a network that wraps them.
    assert (twice.status, twice.reason) == ("ok", "")


def test_a_convolution_used_twice_is_folded_wrongly_and_found_out(nets):
    (row,) = measure(f"{nets}:Shared", size="16x16", fuse=True)
    assert row.status == "error"
    assert "differs from the plain network in fp32 by" in row.reason
    assert "allowed in fp32 is 0.001" in row.reason


def test_what_a_compiler_cannot_take_is_a_row(nets):
    (row,) = measure(f"{nets}:Branching", size="64x64", fuse=True)
    assert row.status == "error"
    assert "control flow" in row.reason


@pytest.mark.slow
def test_torch_compile_is_timed_apart_and_agrees(nets):
    rows = measure(f"{nets}:Net", size="64x64", compile="default", mode=["eval", "train"], batch=2)
    by_phase = {(row.mode, row.phase): row for row in rows}
    assert {row.status for row in rows} == {"ok"}
    evaluated = by_phase["eval", "forward"]
    assert evaluated.difference < LIMIT_FP32
    # Had a sample held the compiling, it would be as long.
    assert all(row.max_s < row.compile_s for row in rows)
    assert by_phase["train", "backward"].difference is None
