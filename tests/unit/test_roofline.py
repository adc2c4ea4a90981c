"""Roofs by hand: analytic layers of known intensity, and the bandwidth of their size."""

import json

import pytest

from dabench.roofline import Ceilings, roof_of


def ceilings(**changes):
    known = {
        "device": "cpu", "device_name": "Test CPU", "dtype": "fp32", "threads": 1,
        "kernels": {"matmul 1024": 90e9, "conv": 100e9},
        "copies": ((1 << 20, 80e9), (1 << 24, 20e9), (1 << 28, 10e9)),
        "launch_s": 1e-6, "measured": "2026-01-02T03:04:05+00:00", "versions": {"torch": "2"},
    }  # fmt: skip
    return Ceilings(**{**known, **changes})


def test_the_best_kernel_is_the_roof():
    assert ceilings().flops_per_s == 100e9
    assert ceilings().best_kernel == "conv"


@pytest.mark.parametrize(
    ("moved", "rate"),
    [(1, 80e9), (1 << 20, 80e9), ((1 << 20) + 1, 20e9), (1 << 27, 10e9), (1 << 40, 10e9)],
)
def test_bandwidth_is_that_of_copies_at_least_as_large(moved, rate):
    assert ceilings().bytes_per_s(moved) == rate


def test_a_larger_copy_that_was_faster_lifts_smaller_ones():
    noisy = ceilings(copies=((1 << 20, 5e9), (1 << 24, 20e9)))
    assert noisy.bytes_per_s(10) == 20e9


MATMUL = {"flops": 2 * 1024**3, "moved_bytes": 12 * 1024**2, "operators": 1}  # 171 FLOP/byte
COPY = {"flops": 0, "moved_bytes": 1 << 28, "operators": 1}


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [
        (MATMUL, 0.03, "compute"),  # 21.5 ms at the roof
        (MATMUL, 0.2, "slow kernel"),
        (COPY, 0.03, "memory"),  # 26.8 ms at the roof
        (COPY, 0.1, "slow kernel"),
        ({"flops": 10, "moved_bytes": 80, "operators": 3}, 5e-6, "launch"),
        ({"flops": 10, "moved_bytes": 80, "operators": 3}, 7e-6, "slow kernel"),
    ],
)
def test_analytic_layers_land_in_their_class(work, seconds, bound):
    assert roof_of(ceilings(), **work).bound(seconds) == bound


def test_the_roof_is_the_larger_of_both():
    roof = roof_of(ceilings(), flops=int(1e9), moved_bytes=1 << 28, operators=2)
    assert roof.compute_s == pytest.approx(0.01)
    assert roof.memory_s == pytest.approx((1 << 28) / 10e9)
    assert roof.seconds == roof.memory_s
    assert roof.fraction(2 * roof.seconds) == pytest.approx(0.5)
    assert roof.launch_s == pytest.approx(2e-6)


def test_ceilings_survive_json():
    assert Ceilings.of(json.loads(json.dumps(ceilings().to_dict()))) == ceilings()
