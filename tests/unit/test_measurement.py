"""Launches to measurements: numbers, reasons to stop, flags."""

from statistics import fmean, median

import pytest
from fakes import make_case, make_launch

from dabench.records.measurements import COLUMNS, summarise
from dabench.timing.samples import Sample

CASE = make_case()


def one(launches, *, target_ci=None, macs=None, case=CASE):
    (row,) = summarise(case, launches, macs or {}, target_ci)
    return row


def test_the_numbers_are_those_of_the_samples():
    launches = [
        make_launch(CASE, t, launch=i) for i, t in enumerate([[1, 2, 3], [2, 3, 4], [3, 4, 5]])
    ]
    row = one(launches, macs={"forward": (10, 30)})
    pooled = [1, 2, 3, 2, 3, 4, 3, 4, 5]
    assert (row.n, row.launches, row.warmup_n) == (9, 3, 3)
    assert row.median_s == 3
    assert row.ci_low_s < 3 < row.ci_high_s
    assert row.mean_s == fmean(pooled)
    assert (row.min_s, row.max_s) == (1, 5)
    assert row.images_per_s == pytest.approx(2 / 3)
    assert (row.macs, row.flops, row.executed_flops) == (10, 20, 60)
    assert row.flops_per_s == pytest.approx(20)
    assert row.peak_bytes == 1 << 20
    assert row.ci_scope == "over launches"
    assert set(row.to_dict()) == set(COLUMNS)


def test_the_median_is_that_of_the_launches_medians():
    launches = [make_launch(CASE, t) for t in ([1.0] * 100, [2.0], [3.0])]
    assert one(launches).median_s == median([1.0, 2.0, 3.0])


def test_one_launch_speaks_of_itself_only():
    assert one([make_launch(CASE, [1, 2, 3])]).ci_scope == "within one launch"


def test_stop_reasons():
    steady = [make_launch(CASE, [1.0, 1.0], stop="converged") for _ in range(3)]
    assert one(steady, target_ci=0.05).stop == "converged"
    # Each launch was sure of itself, and they disagree.
    apart = [make_launch(CASE, [t, t], stop="converged") for t in (1.0, 1.5, 2.0)]
    assert one(apart, target_ci=0.05).stop == "gave up"
    # A single pass that was longer than the limit agrees with itself.
    assert one([make_launch(CASE, [1.0], stop="gave up")], target_ci=0.05).stop == "gave up"
    fixed = [make_launch(CASE, [1.0, 9.0], stop="repeat") for _ in range(3)]
    assert one(fixed).stop == "repeat"


def test_rows_of_a_failed_case_say_why():
    case = make_case(mode="train", phases=("forward", "backward"))
    bad = make_launch(case, [], status="oom", reason="RuntimeError: out of memory", phases=())
    rows = summarise(case, [bad], {}, None)
    assert [row.phase for row in rows] == ["forward", "backward"]
    assert {(row.status, row.reason, row.median_s) for row in rows} == {
        ("oom", "RuntimeError: out of memory", None)
    }


def test_phases_measured_before_a_failure_keep_their_numbers():
    case = make_case(mode="train", phases=("forward", "backward"))
    reason = "RuntimeError: out of memory"
    bad = make_launch(case, [1.0, 2.0, 3.0], status="oom", reason=reason)
    forward, backward = summarise(case, [bad], {}, None)
    assert (forward.status, forward.median_s, forward.launches) == ("ok", 2.0, 1)
    assert f"1 of 1 launches failed: {reason}" in forward.flags
    assert (backward.status, backward.reason) == ("oom", reason)


def test_an_optimiser_has_no_images_per_second():
    case = make_case(mode="train", phases=("optimizer",))
    (row,) = summarise(case, [make_launch(case, [1.0], phase="optimizer")], {}, None)
    assert row.images_per_s is None


def test_a_launch_lost_on_the_way_is_flagged():
    bad = make_launch(CASE, [], status="crashed", reason="killed", phases=())
    row = one([make_launch(CASE, [1.0]), make_launch(CASE, [1.0]), bad])
    assert (row.status, row.launches) == ("ok", 2)
    assert "1 of 3 launches failed: killed" in row.flags


@pytest.mark.parametrize(
    ("launches", "flag"),
    [
        ([make_launch(CASE, [1 + 0.01 * i for i in range(30)])] * 3, "drift +"),
        ([make_launch(CASE, [1.0, 1.0, 1.0, 2.0, 2.0])] * 3, "spread"),
        ([make_launch(CASE, [t]) for t in (1.0, 1.0, 1.2)], "launches differ 20%"),
        ([make_launch(CASE, [1.0], other_cores=0.5)], "busy (0.5 cores)"),
        ([make_launch(CASE, [1.0], throttled=True)], "throttled"),
        ([make_launch(CASE, [1.0], cpu_s=2.0, system_s=s) for s in (0.0, 0.9, 1.5)], "system 40%"),
    ],
)
def test_flags(launches, flag):
    assert flag in one(launches).flags


def test_nothing_is_flagged_without_cause():
    quiet = {"throttled": False, "cpu_s": 4.0, "system_s": 0.2}
    row = one([make_launch(CASE, [1.0, 1.01, 0.99], **quiet)] * 3)
    assert (row.flags, row.system_share) == ("", pytest.approx(0.05))


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"device": "cuda:0"}, 0.5),
        ({"runtime": "onnxruntime"}, 0.5),
        ({"protocol": "paper"}, 0.5),
        ({"mode": "own"}, 0.5),
        ({"protocol": "stream", "rate": 30.0}, None),
    ],
)
def test_the_systems_share_is_flagged_where_memory_could_be_kept(changes, share):
    case = make_case(**changes)
    launch = make_launch(case, [1.0, 1.0, 1.0], cpu_s=2.0, system_s=1.0)
    row = one([launch], case=case)
    assert row.system_share == share
    assert "system" not in row.flags


def test_little_processor_time_is_not_divided():
    row = one([make_launch(CASE, [0.1] * 3, cpu_s=0.3, system_s=0.2)] * 3)
    assert row.system_share is None
    assert one([make_launch(CASE, [0.1] * 3, cpu_s=0.3, system_s=0.0)] * 4).system_share == 0.0


def test_no_rate_follows_from_a_clock_that_did_not_wait():
    case = make_case(protocol="paper", batch=32)
    launch = make_launch(case, [0.5], passes=50)
    launch.phases[0].samples.samples[0] = Sample(0.5, 10.0)
    row = one([launch], macs={"forward": (100, 100)}, case=case)
    assert (row.median_s, row.device_median_s) == (0.5, 10.0)
    assert row.images_per_s == pytest.approx(32 * 50 / 10)
    assert row.flops_per_s == pytest.approx(2 * 100 * 50 / 10)


def test_one_sample_has_no_interval():
    row = one([make_launch(CASE, [1.0])])
    assert (row.ci_low_s, row.ci_high_s, row.std_s) == (None, None, None)


def test_totals_of_the_paper_are_told_per_image():
    case = make_case(protocol="paper", batch=32)
    row = one([make_launch(case, [2.0], passes=50)], macs={"forward": (100, 100)}, case=case)
    assert row.images_per_s == pytest.approx(32 * 50 / 2)
    assert row.flops_per_s == pytest.approx(2 * 100 * 50 / 2)
