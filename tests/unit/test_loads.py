"""Streams, passes back to back, and their tails, under a fake clock on a fake device."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fakes import AsyncDevice, FakeClock, FakeWork, make_case, make_launch
from records import write_medians, write_record

from dabench.base.errors import OverloadError, UsageError
from dabench.cli.loads import NAMES
from dabench.findings.loads import knees, tails_of
from dabench.plan.cases import PlannedCase, expand
from dabench.plan.settings import Grid, Settings
from dabench.records.measurements import summarise
from dabench.report.write import write_report
from dabench.timing.engine import StopRule
from dabench.timing.loads import (
    ALONE,
    BLOCK_S,
    measure_stream,
    measure_throughput,
    wait_until,
)
from dabench.timing.samples import Sample
from dabench.timing.tails import PERCENTILES, needed_passes, percentile, share_within

ASK = AsyncDevice.ASK_S


def rule(**changes):
    return StopRule(
        **{"warmup": 3, "repeat": None, "target_ci": None, "max_time_s": None, **changes}
    )


def device(timed=True):
    return AsyncDevice(FakeClock(), timed=timed)


def stream(on, times, *, warm=3, rate=10.0, **changes):
    """Frames that take the given times, after warm-up passes like the first."""
    work = FakeWork(on, [*times[:1] * warm, *times])

    def wait(due):
        on.clock.log.append("wait")
        on.clock.now = max(on.clock.now, due)

    return measure_stream(work, on, on.clock, rule(**changes), rate, wait=wait)


def seconds(samples):
    return [sample.wall_s for sample in samples]


def test_a_frame_is_timed_from_its_arrival():
    """One frame takes 250 ms at a period of 100: those behind it have waited."""
    found = stream(device(), [0.05, 0.25, 0.05, 0.05, 0.04], repeat=5)
    assert seconds(found.samples) == pytest.approx([0.05, 0.25, 0.2, 0.15, 0.09], abs=1e-3)
    assert seconds(found.alone) == pytest.approx([0.05, 0.25, 0.05, 0.05, 0.04], abs=1e-3)
    assert (found.stop, found.queue, len(found.warmup)) == ("repeat", 0, 3)


def test_who_waits_for_the_last_frame_does_not_see_the_queue():
    """What the engine's own loop finds on the same work: omission, which a stream must not have."""
    found = stream(device(), [0.05, 0.25, *[0.05] * 3], repeat=5)
    assert max(seconds(found.samples)[2:]) > 3 * max(seconds(found.alone)[2:])


def test_frames_that_are_not_done_at_the_end_are_counted():
    found = stream(device(), [0.05, 0.05, 0.05, 0.35], repeat=4)
    assert found.queue == 1
    found = stream(device(), [0.05, 0.25, 0.25, 0.25], repeat=4)
    assert found.queue == 2
    assert stream(device(), [0.05] * 4, repeat=4).queue == 0


def test_a_stream_is_synchronised_and_starts_no_frame_before_it_arrives():
    on = device()
    stream(on, [0.05, 0.05], repeat=2)
    frames = " ".join(on.clock.log[on.clock.log.index("wait") :])
    assert frames == "wait clock run sync clock wait clock run sync clock clock"


def test_a_rate_that_cannot_be_held_is_refused_before_the_first_frame():
    on = device()
    with pytest.raises(
        OverloadError, match=r"--rate: 10 .* takes 200 ms, the period is 100 ms; at"
    ):
        stream(on, [0.2] * 9, repeat=5)
    assert "wait" not in on.clock.log


def test_a_slow_start_is_no_reason_to_refuse():
    found = stream(device(), [0.3, 0.2, 0.05, 0.04], warm=0, repeat=1)
    assert len(found.samples) == 1


def test_a_queue_that_grows_ends_with_the_time():
    times = [0.05, *[0.2] * 100]
    found = stream(device(), times, repeat=50, max_time_s=4.0)
    assert found.stop == "gave up"
    assert len(found.samples) < 25
    assert found.queue == pytest.approx(len(found.samples), abs=3)


def test_without_a_number_the_time_says_how_many_frames_there_are():
    found = stream(device(), [0.01] * 9, rate=10.0, max_time_s=2.03 + 1e-3)
    assert len(found.samples) == 20
    assert found.spent_s == pytest.approx(1.94, abs=0.01)
    assert found.stop == "time"


def test_waiting_ends_when_the_clock_says_so():
    from dabench.timing.clock import host_clock

    due = host_clock() + 0.004
    wait_until(due)
    assert host_clock() >= due
    wait_until(due)


def test_throughput_queues_many_passes_and_synchronises_once():
    on = device()
    work = FakeWork(on, [0.05])
    found = measure_throughput(work, on, on.clock, rule(repeat=3))
    passes = (work.runs - 3 - ALONE) // 3
    assert passes * 0.05 == pytest.approx(BLOCK_S, abs=0.051)
    assert seconds(found.samples) == pytest.approx([0.05] * 3, rel=1e-3)
    assert [sample.device_s for sample in found.samples] == pytest.approx([0.05] * 3, rel=1e-3)
    assert len(found.alone) == ALONE
    block = ["sync", "start", "clock", *["run"] * passes, "stop", "sync", "clock"]
    log = " ".join(on.clock.log)
    assert log.count(" ".join(block)) == 3


def test_passes_that_overlap_are_faster_than_one_by_one():
    """A device that needs 10 ms to wake up: latency has it in each pass, throughput once."""
    on = device()

    class Sleepy(FakeWork):
        def run(self):
            if on.busy_until <= on.clock.now:
                on.launch(0.01, "wake")
            super().run()

    found = measure_throughput(Sleepy(on, [0.005]), on, on.clock, rule(repeat=5))
    assert seconds(found.alone) == pytest.approx([0.015] * ALONE, rel=0.01)
    assert max(seconds(found.samples)) < 0.006


@pytest.mark.parametrize(
    ("changes", "stop"),
    [
        ({"repeat": 4}, "repeat"),
        ({"target_ci": 0.5}, "converged"),
        ({"max_time_s": 3.0}, "gave up"),
    ],
)
def test_throughput_ends_as_it_was_told(changes, stop):
    on = device(timed=False)
    found = measure_throughput(FakeWork(on, [0.05]), on, on.clock, rule(**changes))
    assert found.stop == stop
    assert found.samples
    assert found.samples[0].device_s is None


def test_a_pass_longer_than_the_limit_costs_little_more_than_it():
    on = device()
    work = FakeWork(on, [10.0])
    measure_throughput(work, on, on.clock, rule(warmup=1, max_time_s=5.0))
    assert work.runs == 1 + 1 + 2


def test_only_streams_have_a_rate_and_only_whole_passes_are_streamed():
    def cases(**axes):
        grid = Grid(models=("dw-disc",), devices=("cpu",), **axes)
        return expand(grid, Settings())

    streamed = cases(protocols=("stream", "steady"), rates=(30.0, 60.0), modes=("eval", "train"))
    ids = [planned.case.case_id for planned in streamed]
    assert sum(name.endswith("/stream/30hz") for name in ids) == 2
    assert sum(name.endswith("/steady") for name in ids) == 2
    phases = {(p.case.protocol, p.case.mode): p.case.phases for p in streamed}
    assert phases["stream", "train"] == ("total",)
    assert phases["stream", "eval"] == ("forward",)
    assert len(phases["steady", "train"]) == 4
    for axes, message in (
        ({"protocols": ("stream",)}, "--protocol: a stream needs a --rate"),
        ({"rates": (30.0,)}, "--rate: '30' is not allowed; only --protocol stream has one"),
        ({"protocols": ("stream",), "rates": (0.0,)}, "--rate: '0.0' is not allowed"),
        ({"concurrencies": (0,)}, "--concurrency: '0' is not allowed"),
    ):
        with pytest.raises(UsageError, match=message):
            cases(**axes)
    (together,) = cases(protocols=("paper",), concurrencies=(2,))
    assert "one process runs alone" in together.impossible


def test_a_streams_row_counts_overruns_and_frames_on_time():
    case = make_case(protocol="stream", rate=10.0)
    launch = make_launch(case, [0.05, 0.25, 0.2, 0.15, 0.1])
    samples = launch.phases[0].samples
    samples.alone = [Sample(each, None) for each in (0.05, 0.25, 0.05, 0.05, 0.05)]
    (row,) = summarise(case, [launch], {"forward": (10, 10)}, None)
    assert (row.overruns, row.on_time, row.alone_s) == (1, 0.4, 0.05)
    assert row.images_per_s is None
    assert row.flops_per_s is None


def test_throughput_stands_beside_the_inverse_of_latency():
    case = make_case(protocol="throughput", batch=4)
    launch = make_launch(case, [0.1, 0.1, 0.1])
    launch.phases[0].samples.alone = [Sample(0.2, None)]
    (row,) = summarise(case, [launch], {"forward": (10, 10)}, None)
    assert row.images_per_s == pytest.approx(4 / 0.1)
    assert row.latency_images_per_s == pytest.approx(4 / 0.2)


def together(case, *members, launches=3):
    """Launches of processes that ran at once, each with its own times."""
    found = []
    for number in range(launches):
        launch = make_launch(case, [each for member in members for each in member], launch=number)
        launch.phases[0].samples.members = tuple(map(len, members))
        found.append(launch)
    return found


def test_processes_that_share_unevenly_add_up():
    """In the same second one process does 100 passes and the other 33."""
    case = make_case(batch=1, concurrency=2)
    (row,) = summarise(case, together(case, [0.01] * 99, [0.03] * 33), {"forward": (10, 10)}, None)
    assert row.images_per_s == pytest.approx(1 / 0.01 + 1 / 0.03)
    assert row.flops_per_s == pytest.approx(20 * (1 / 0.01 + 1 / 0.03))
    assert row.n == 3 * 132
    assert "drift" not in row.flags


def test_each_process_at_once_has_a_tail_of_its_own(tmp_path):
    case = make_case(batch=1, concurrency=2)
    plan = [PlannedCase(case=case, settings=Settings()).to_dict()]
    writer = write_record(tmp_path / "a", plan=plan)
    for launch in together(case, [1.0] * 6, [2.0] * 6):
        writer.launch(launch)
    (tail,) = tails_of(tmp_path / "a", ["p50"], 1.5)
    assert tail.percentiles[0].launches == 6
    assert tail.percentiles[0].passes == 6
    assert tail.within.estimate == 0.5


def rows_of(*rates, spread=0.01):
    """Rows of 1, 2, 4, ... processes that together reach these images per second."""
    found = []
    for index, rate in enumerate(rates):
        case = make_case(batch=1, concurrency=2**index)
        median, launches = case.concurrency / rate, []
        for factor in (1 - spread, 1.0, 1 + spread):
            launches += together(case, *[[median * factor] * 3] * case.concurrency, launches=1)
        found += summarise(case, launches, {}, None)
    return found


def test_the_knee_is_where_throughput_stops_growing():
    (knee,) = knees(rows_of(100.0, 190.0, 185.0, 150.0, spread=0.002))
    assert (knee.at_once, knee.beyond, knee.decided) == (2, 4, True)
    assert knee.images_per_s == pytest.approx(190)
    assert knee.gain == pytest.approx(185 / 190)
    assert knee.slowdown == pytest.approx((4 / 185) / (2 / 190))
    (knee,) = knees(rows_of(100.0, 190.0))
    assert (knee.at_once, knee.beyond, knee.decided) == (2, None, True)


def test_a_knee_that_scatter_hides_is_undecided():
    (knee,) = knees(rows_of(100.0, 190.0, spread=0.3))
    assert (knee.at_once, knee.decided) == (1, False)
    assert knees(rows_of(100.0)) == []


def test_percentiles_are_those_that_the_command_line_names():
    assert tuple(PERCENTILES) == NAMES


@pytest.mark.parametrize(
    ("name", "needed"), [("p50", 6), ("p90", 36), ("p95", 72), ("p99", 368), ("p99.9", 3688)]
)
def test_a_percentile_of_too_few_passes_is_refused_by_name(name, needed):
    assert needed_passes(PERCENTILES[name]) == needed
    times = list(np.linspace(1.0, 2.0, needed))
    assert percentile(name, [times]).seconds is not None
    refused = percentile(name, [times, times[:-1]])
    assert refused.seconds is None
    assert refused.refusal == f"{name} needs {needed} passes in each launch, there are {needed - 1}"


def test_order_statistics_within_one_launch_are_exact():
    found = percentile("p50", [list(range(1, 21))]).seconds
    assert (found.low, found.estimate, found.high) == (6, 10.5, 15)


def test_percentiles_hold_the_true_one():
    random = np.random.default_rng(0)
    true = math.exp(0.02 * 2.3263)
    for launches, least in ((1, 0.94), (3, 0.93), (6, 0.95), (12, 0.93)):
        hits = 0
        for _ in range(200):
            luck = random.normal(0, 0.08, launches) if launches > 1 else np.zeros(1)
            times = np.exp(luck[:, None] + random.normal(0, 0.02, (launches, 400)))
            found = percentile("p99", times.tolist()).seconds
            assert found.low <= found.estimate <= found.high
            hits += found.low <= true <= found.high
        assert hits >= least * 200


def passes_of(random, launches, passes, between, outliers=0.0, longer=1.0, within=0.02):
    """Times of launches that scatter, with outliers; the usual time is 1."""
    luck = random.normal(0, between, (launches, 1))
    times = np.exp(luck + random.normal(0, within, (launches, passes)))
    return times * np.where(random.random((launches, passes)) < outliers, longer, 1)


@pytest.mark.parametrize(
    ("launches", "passes", "between", "outliers", "longer", "deadline"),
    [
        (1, 50, 0.0, 0.0, 1, 1.02),
        (3, 50, 0.0, 0.0, 1, 1.02),
        (8, 50, 0.0, 0.0, 1, 1.047),
        (3, 50, 0.08, 0.0, 1, 1.1),
        (8, 50, 0.08, 0.0, 1, 1.0),
        (20, 30, 0.08, 0.0, 1, 1.2),
        # A few very long passes must not hide that whole launches miss the deadline.
        (3, 300, 0.03, 0.02, 3, 1.0),
        (8, 300, 0.03, 0.05, 5, 1.03),
        (3, 300, 0.05, 0.05, 10, 1.05),
    ],
)
def test_shares_within_a_deadline_hold_the_true_one(
    launches, passes, between, outliers, longer, deadline
):
    random = np.random.default_rng(0)
    world = (between, outliers, longer)
    true = float((passes_of(random, 20_000, 10, *world) <= deadline).mean())
    hits = 0
    for _ in range(200):
        times = passes_of(random, launches, passes, *world)
        found = share_within(times.tolist(), deadline)
        assert found.low <= found.estimate <= found.high
        hits += found.low <= true <= found.high
    assert hits >= 0.93 * 200


def test_all_within_is_no_certainty():
    found = share_within([[1.0, 1.1, 0.9] * 10] * 3, 2.0)
    assert found.estimate == found.high == 1.0
    assert 0.9 < found.low < 1.0
    apart = share_within([[1.0, 1.01] * 15, [1.5, 1.51] * 15, [0.8, 0.81] * 15], 2.0)
    assert apart.low < 0.5
    assert share_within([[1.0, 2.0]], 0.5).estimate == 0.0


def test_tails_are_of_what_times_single_passes(tmp_path):
    steady, throughput = make_case(), make_case(protocol="throughput")
    run = write_medians(tmp_path / "a", {steady: (1.0, 1.1), throughput: (1.0, 1.1)})
    tail, refused = tails_of(run, ["p50", "p99"], 1.05)
    assert (tail.case_id, tail.refusal) == (steady.case_id, "")
    assert refused.refusal == "a sample of the protocol throughput is no single pass"
    document = tail.to_dict()
    assert document["within"] == 0.5
    assert [each["seconds"] for each in document["percentiles"]] == [None, None]
    assert "p50 needs 6 passes" in document["percentiles"][0]["refusal"]


def test_a_report_shows_loads_apart_from_speed(tmp_path):
    stream = make_case(protocol="stream", rate=10.0)
    plain, queued, two = make_case(), make_case(protocol="throughput"), make_case(concurrency=2)
    cases = (stream, plain, queued, two)
    plan = [PlannedCase(case=case, settings=Settings()).to_dict() for case in cases]
    writer = write_record(tmp_path / "a", plan=plan)
    launch = make_launch(stream, [0.05, 0.25, 0.2], launch=0)
    launch.phases[0].samples.alone = [Sample(each, None) for each in (0.05, 0.25, 0.05)]
    writer.launch(launch)
    writer.launch(make_launch(plain, [0.05] * 3, launch=1))
    writer.launch(make_launch(queued, [0.04] * 3, launch=2))
    (shared,) = together(two, [0.06] * 3, [0.06] * 3, launches=1)
    writer.launch(replace(shared, launch=3))
    document, table = write_report([tmp_path / "a"], folder=tmp_path / "reports", name="r")
    text = document.read_text()
    load = text[text.index("## Under load") : text.index("## Charts")]
    (row,) = [line for line in load.splitlines() if "| 33.3% |" in line]
    assert "| 10 | 200 ms |" in row
    assert "| 1 | - |" in row  # an overrun; nobody said how long the queue was
    assert "| throughput | 1 | 40 ms |" in load
    assert "| steady | 2 | 60 ms |" in load
    speed = text[text.index("## Speed and memory") : text.index("## Under load")]
    assert speed.count("| dw-disc |") == 1
    assert "concurrency" in table.read_text().partition("\n")[0]
