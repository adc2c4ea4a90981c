"""Two passes of one process in turn: their order, the waits, and the ratio."""

import math

import pytest
from fakes import AsyncDevice, FakeClock

from dabench.timing.pairs import PAIRS, WARMUP, Pairs, measure_pairs


def test_passes_alternate_and_each_is_waited_for():
    clock = FakeClock()
    device = AsyncDevice(clock)
    passes = [lambda: device.launch(0.2, "one"), lambda: device.launch(0.1, "other")]
    found = measure_pairs(*passes, clock, device.synchronize, pairs=2)
    timed = ["sync", "clock", "one", "sync", "clock", "sync", "clock", "other", "sync", "clock"]
    # Nobody reads the clock at the end of what is not timed.
    untimed = ["sync", "clock", "one", "sync", "sync", "clock", "other", "sync"]
    turned = {"one": "other", "other": "one"}
    assert clock.log == [
        *untimed, *(turned.get(each, each) for each in untimed),
        *timed, *(turned.get(each, each) for each in timed),
    ]  # fmt: skip
    assert found.first == pytest.approx((0.2, 0.2), abs=1e-4)
    assert found.second == pytest.approx((0.1, 0.1), abs=1e-4)


def test_as_many_of_each():
    clock = FakeClock()
    device = AsyncDevice(clock)
    calls = []
    found = measure_pairs(
        lambda: (calls.append("one"), device.launch(0.2)), lambda: device.launch(0.1), clock,
        device.synchronize,
    )  # fmt: skip
    assert len(found.first) == len(found.second) == PAIRS
    assert len(calls) == PAIRS + WARMUP


def test_the_ratio_is_of_logarithms():
    ratio = Pairs((2.0, 8.0), (1.0, 1.0)).ratio()
    assert ratio.estimate == pytest.approx(4.0)
    # Student's t for one degree of freedom, by hand.
    half = 12.7062047 * (math.log(4) / math.sqrt(2)) / math.sqrt(2)
    assert math.log(ratio.high / ratio.estimate) == pytest.approx(half)
    assert ratio.low * ratio.high == pytest.approx(16.0)
