"""Roofs by hand: analytic layers of known intensity, and the bandwidth of their size."""

import json

import pytest

from dabench.profiling.roofline import Ceilings, format_roof, roof_of


def ceilings(**changes):
    known = {
        "device": "cpu", "device_name": "Test CPU", "dtype": "fp32", "threads": 1,
        "kernels": {"matmul 1024": 90e9, "conv": 100e9},
        "streams": ((1 << 20, 80e9, "read"), (1 << 24, 20e9, "copy"), (1 << 28, 10e9, "copy")),
        "launch_s": 1e-6, "measured": "2026-01-02T03:04:05+00:00", "versions": {"torch": "2"},
    }  # fmt: skip
    return Ceilings(**{**known, **changes})


def test_the_best_kernel_is_the_roof():
    assert ceilings().flops_per_s == 100e9
    assert ceilings().best_kernel == "conv"


@pytest.mark.parametrize(
    ("moved", "rate"),
    # Between two sizes a straight line on logarithmic scales: halfway is the geometric mean.
    [
        (1, 80e9),
        (1 << 20, 80e9),
        (1 << 22, 40e9),
        (1 << 24, 20e9),
        (1 << 26, 200e18**0.5),
        (1 << 28, 10e9),
        (1 << 40, 10e9),
    ],
)
def test_bandwidth_is_that_of_as_many_bytes(moved, rate):
    assert ceilings().bytes_per_s(moved) == pytest.approx(rate)


def test_a_larger_stream_that_was_faster_lifts_smaller_ones():
    noisy = ceilings(streams=((1 << 20, 5e9, "copy"), (1 << 24, 20e9, "in place")))
    assert noisy.bytes_per_s(10) == 20e9
    assert noisy.bytes_per_s(1 << 22) == 20e9


def test_floors_by_kind_of_pass_and_layer():
    floors = {"convolution": 9e-6, "grouped convolution": 50e-6, "ReLU": 3e-6}
    known = ceilings(floors={"eval forward": floors})
    assert known.floor_s("eval forward", "Conv2d", "convolution", 1) == 9e-6
    assert known.floor_s("eval forward", "Conv2dSame", "convolution", 1) == 9e-6
    assert known.floor_s("eval forward", "DiagonalwiseConv2d", "grouped convolution", 2) == 50e-6
    assert known.floor_s("eval forward", "ReLU", "", 1) == 3e-6
    # Unknown kinds cost the cheapest known per operator; unknown passes the bare operator.
    assert known.floor_s("eval forward", "Odd", "", 4) == pytest.approx(12e-6)
    assert known.floor_s("train backward", "Conv2d", "", 2) == pytest.approx(2e-6)


def test_records_from_before_there_were_other_streams_are_read():
    document = json.loads(json.dumps(ceilings().to_dict()))
    del document["streams"], document["floors"]
    document["copies"] = [[1024, 5e9], [2048, 4e9]]
    read = Ceilings.of(document)
    assert read.streams == ((1024, 5e9, "copy"), (2048, 4e9, "copy"))
    assert read.floors == {}


@pytest.mark.parametrize(
    ("fraction", "shown"), [(None, "-"), (0.5, "50%"), (1.04, "104%"), (1.06, "106% !")]
)
def test_what_is_beyond_the_roof_is_marked(fraction, shown):
    assert format_roof(fraction) == shown


MATMUL = {"flops": 2 * 1024**3, "moved_bytes": 12 * 1024**2, "launch_s": 1e-6}  # 171 FLOP/byte
COPY = {"flops": 0, "moved_bytes": 1 << 28, "launch_s": 1e-6}
TINY = {"flops": 10, "moved_bytes": 80, "launch_s": 3e-6}


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [
        (MATMUL, 0.03, "compute"),  # 21.5 ms at the roof
        (MATMUL, 0.2, "slow kernel"),
        (COPY, 0.03, "memory"),  # 26.8 ms at the roof
        (COPY, 0.1, "slow kernel"),
        (TINY, 5e-6, "launch"),
        (TINY, 7e-6, "slow kernel"),
    ],
)
def test_analytic_layers_land_in_their_class(work, seconds, bound):
    assert roof_of(ceilings(), **work).bound(seconds) == bound


def test_the_roof_is_the_larger_of_both():
    roof = roof_of(ceilings(), flops=int(1e9), moved_bytes=1 << 28, launch_s=2e-6)
    assert roof.compute_s == pytest.approx(0.01)
    assert roof.memory_s == pytest.approx((1 << 28) / 10e9)
    assert roof.seconds == roof.memory_s
    assert roof.fraction(2 * roof.seconds) == pytest.approx(0.5)
    assert roof.launch_s == pytest.approx(2e-6)


def test_ceilings_survive_json():
    assert Ceilings.of(json.loads(json.dumps(ceilings().to_dict()))) == ceilings()
