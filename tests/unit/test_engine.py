"""The timing engine on a fake clock and a fake asynchronous device."""

import gc

import pytest
from fakes import AsyncDevice, FakeClock, FakeWork

from dabench.timing.engine import (
    MAX_SAMPLES,
    MAX_WARMUP,
    MIN_SAMPLES,
    StopRule,
    measure,
    measure_once,
    take_sample,
)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def device(clock):
    return AsyncDevice(clock)


def rule(**changes):
    return StopRule(
        **{"warmup": 1, "repeat": None, "target_ci": None, "max_time_s": None, **changes}
    )


def seconds(samples):
    return [round(sample.wall_s, 9) for sample in samples]


def test_the_device_is_idle_before_the_start_and_before_the_end(device, clock):
    work = FakeWork(device, [0.5], prepare_s=2.0)
    sample = take_sample(work, device, device.timer(), clock)
    order = ["prepare", "sync", "start", "clock", "run", "stop", "sync", "clock"]
    assert clock.log == order
    assert sample.wall_s == pytest.approx(0.5)
    assert sample.device_s == pytest.approx(0.5)
    assert work.released == 1


def test_a_naive_clock_is_wrong_where_the_engine_is_right(device, clock):
    """The paper's way: two readings of the host clock around the call."""
    work = FakeWork(device, [0.5])
    start = clock()
    work.run()
    naive = clock() - start
    assert naive < 0.001
    device.synchronize()
    assert take_sample(work, device, None, clock).wall_s == pytest.approx(0.5)


class DeviceThatForgets(AsyncDevice):
    """Synchronises only at its n-th call: a missing one must show."""

    def __init__(self, clock, obeys):
        super().__init__(clock)
        self.obeys = obeys
        self.calls = 0

    def synchronize(self):
        if self.calls % 2 == self.obeys:
            super().synchronize()
        self.calls += 1


@pytest.mark.parametrize(("obeys", "wrong"), [(1, "start"), (0, "end")])
def test_a_missing_synchronisation_is_caught(clock, obeys, wrong):
    device = DeviceThatForgets(clock, obeys)
    sample = take_sample(FakeWork(device, [0.5], prepare_s=2.0), device, None, clock)
    # Without the first, the sample holds the preparation; without the last, nothing.
    assert sample.wall_s == pytest.approx(2.5 if wrong == "start" else 0.0, abs=1e-3)


def test_repeat_takes_exactly_that_many_and_keeps_warmup_apart(device, clock):
    work = FakeWork(device, [1.9, 0.2, 1.0, 1.0, 2.0])
    result = measure(work, device, clock, rule(repeat=4))
    assert seconds(result.warmup) == [1.9, 0.2]
    assert seconds(result.samples) == [1.0, 1.0, 2.0, 2.0]
    assert result.stop == "repeat"


def test_warmup_goes_on_until_three_passes_agree(device, clock):
    work = FakeWork(device, [0.05, 0.04, 0.03, 0.02, 0.0100, 0.0101, 0.0102])
    result = measure(work, device, clock, rule(repeat=1, max_time_s=100))
    assert seconds(result.warmup) == [0.05, 0.04, 0.03, 0.02, 0.0100, 0.0101, 0.0102]
    assert result.steady


def test_warmup_that_never_settles_ends_and_says_so(device, clock):
    work = FakeWork(device, [1e-3, 2e-3] * 200)
    result = measure(work, device, clock, rule(repeat=1, max_time_s=1000))
    assert len(result.warmup) == MAX_WARMUP
    assert not result.steady


def test_warmup_takes_a_quarter_of_the_time_at_most(device, clock):
    work = FakeWork(device, [1.0, 2.0] * 50)
    result = measure(work, device, clock, rule(max_time_s=16, target_ci=0.01))
    *before, last = seconds(result.warmup)
    assert sum(before) <= 4.0 < sum(before) + last
    assert not result.steady


def test_the_fewest_warmup_passes_are_kept(device, clock):
    result = measure(FakeWork(device, [0.001]), device, clock, rule(warmup=7, repeat=1))
    assert len(result.warmup) == 7


def test_sampling_stops_when_the_interval_is_narrow_enough(device, clock):
    result = measure(FakeWork(device, [0.01]), device, clock, rule(target_ci=0.01))
    assert len(result.samples) == MIN_SAMPLES
    assert result.stop == "converged"


def test_more_samples_than_the_usual_cap_are_taken_when_asked_for(device, clock):
    result = measure(FakeWork(device, [1e-4]), device, clock, rule(repeat=MAX_SAMPLES + 5))
    assert (len(result.samples), result.stop) == (MAX_SAMPLES + 5, "repeat")


def test_memory_is_watched_from_the_end_of_warmup(device, clock):
    work = FakeWork(device, [0.01])
    passes = []
    measure(work, device, clock, rule(repeat=4), lambda: passes.append(work.runs))
    assert passes == [3]


def test_giving_up_is_not_converging(device, clock):
    work = FakeWork(device, [0.1, 0.3] * 500)
    result = measure(work, device, clock, rule(target_ci=0.001, max_time_s=10))
    assert result.stop == "gave up"
    assert clock.now == pytest.approx(10, abs=0.5)


def test_a_pass_longer_than_the_limit_gives_one_sample(device, clock):
    work = FakeWork(device, [5.0])
    result = measure(work, device, clock, rule(target_ci=0.5, max_time_s=1))
    assert (seconds(result.samples), result.warmup, work.runs) == ([5.0], [], 1)
    assert (result.stop, result.steady) == ("gave up", False)
    assert result.spent_s == pytest.approx(5.0)


@pytest.mark.parametrize("pass_s", [0.1, 0.9, 3.0, 7.0])
def test_no_pass_begins_that_would_not_fit(device, clock, pass_s):
    limit = 10.0
    stops = rule(warmup=2, target_ci=1e-9, max_time_s=limit)
    result = measure(FakeWork(device, [pass_s, 1.01 * pass_s] * 100), device, clock, stops)
    assert result.stop == "gave up"
    assert len(result.samples) >= 1
    # The fewest warm-up passes and one sample may overrun; nothing else.
    assert clock.now <= max(limit, 3.1 * pass_s) + 0.1


def test_repeat_gives_up_at_the_time_limit(device, clock):
    result = measure(FakeWork(device, [1.0]), device, clock, rule(repeat=100, max_time_s=10))
    assert result.stop == "gave up"
    assert len(result.samples) < 12


def test_the_paper_reads_the_clock_before_the_work_is_done(device, clock):
    result = measure_once(FakeWork(device, [0.5]), device, clock, passes=50)
    (sample,) = result.samples
    assert result.warmup == []
    assert sample.wall_s == pytest.approx(50 * AsyncDevice.ASK_S)
    assert sample.device_s == pytest.approx(25.0)


def test_the_paper_on_a_synchronous_device_has_no_device_time(clock):
    device = AsyncDevice(clock, timed=False)
    (sample,) = measure_once(FakeWork(device, [0.5]), device, clock, passes=1).samples
    assert sample.device_s is None


def test_garbage_collection_is_off_while_timing_and_back_afterwards(device, clock):
    states = []

    class Watching(FakeWork):
        def run(self):
            states.append(gc.isenabled())
            super().run()

    assert gc.isenabled()
    measure(Watching(device, [0.1]), device, clock, rule(repeat=2))
    assert states
    assert not any(states)
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure(_Failing(device, [0.1]), device, clock, rule(repeat=2))
    assert gc.isenabled()


class _Failing(FakeWork):
    def run(self):
        raise ZeroDivisionError
