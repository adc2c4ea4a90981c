"""Records of every schema there has been are read: the committed runs are the golden copies."""

from pathlib import Path

import pytest

from dabench.findings.profiles import load_profiles
from dabench.findings.tables import load, ratios
from dabench.findings.trainings import load_training
from dabench.records.folder import read_run
from dabench.records.profiles import read_profiled
from dabench.records.summary import summarised
from dabench.records.timings import read_launches

RESULTS = Path(__file__).parents[2] / "results"
TIMINGS = {1: "20261123-152106-paper-cpu", 2: "20261125-runtimes"}
PROFILES = {
    1: "20261124-riddle",
    2: "20261125-profile-train",
    6: "20261128-riddle-xeon",
    7: "20261128-memory-layers",
}
SUITE = RESULTS / "20261123-camvid-day2dusk-reproduce" / "day2dusk"


@pytest.mark.parametrize(("schema", "name"), TIMINGS.items())
def test_timings(schema, name):
    folder = RESULTS / name
    run = read_run(folder)
    assert (run["schema"], run["kind"]) == (schema, "timing")
    loaded = load([folder])
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    assert len(good) >= 12
    launches = read_launches(folder)
    assert {launch.round for launch in launches} == {None}
    assert len(loaded.launches) == len(launches)
    # What their summary says follows from their samples.
    again = {(r.case_id, r.phase): r.median_s for r in summarised(folder, run) if r.median_s}
    for case_id, phase, median_s in good[["case_id", "phase", "median_s"]].itertuples(index=False):
        assert again[case_id, phase] == pytest.approx(median_s)


def test_timings_with_rounds():
    """Schema 3: before streams, throughputs and several processes at once."""
    folder = RESULTS / "20261126-paper-gpu"
    run = read_run(folder)
    assert run["schema"] == 3
    loaded = load([folder])
    assert set(loaded.measurements["concurrency"]) == {1}
    assert set(loaded.measurements["rate"]) == {0.0}
    assert loaded.measurements["alone_s"].isna().all()
    assert None not in {launch.round for launch in read_launches(folder)}
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    again = {r.case_id: r.median_s for r in summarised(folder, run) if r.median_s}
    for case_id, median_s in good[["case_id", "median_s"]].itertuples(index=False):
        assert again[case_id] == pytest.approx(median_s)


def test_timings_before_int8():
    """Schema 4: nothing was calibrated, no layer left out of it."""
    folder = RESULTS / "20261127-choose" / "times"
    run = read_run(folder)
    assert run["schema"] == 4
    loaded = load([folder])
    assert set(loaded.measurements["calibration"]) == {"none"}
    assert set(loaded.measurements["keep_float"]) == {"none"}
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    again = {r.case_id: r.median_s for r in summarised(folder, run) if r.median_s}
    for case_id, median_s in good[["case_id", "median_s"]].itertuples(index=False):
        assert again[case_id] == pytest.approx(median_s)


def test_timings_before_memory_was_kept():
    """Schema 5: freed memory went back to the system, and nobody asked what that takes."""
    folder = RESULTS / "20261127-hub-torchvision"
    run = read_run(folder)
    assert run["schema"] == 5
    loaded = load([folder])
    assert set(loaded.measurements["allocator"]) == {"default"}
    assert loaded.measurements["system_share"].isna().all()
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    again = {r.case_id: r.median_s for r in summarised(folder, run) if r.median_s}
    for case_id, median_s in good[["case_id", "median_s"]].itertuples(index=False):
        assert again[case_id] == pytest.approx(median_s)


def test_ratios_of_old_runs_follow_todays_rule():
    table = ratios(load([RESULTS / TIMINGS[1]]), ("disc", "dw-disc"))
    steady = table[(table["protocol"] == "steady") & (table["mode"] == "eval")]
    (row,) = steady.to_dict("records")
    assert row["ratio"] == pytest.approx(1.68, abs=0.005)
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((1.62, 1.79), abs=0.005)
    assert row["verdict"] == "slower"


@pytest.mark.parametrize(("schema", "name"), PROFILES.items())
def test_profiles(schema, name):
    loaded = load_profiles([RESULTS / name])
    assert loaded.runs[0]["schema"] == schema
    assert len(loaded.layers) > len(loaded.models) > 0
    assert all(ceilings.flops_per_s > 0 for _, ceilings in loaded.ceilings)


def test_profiles_without_floors_of_their_own():
    """Schema 6 and before: they were the ceilings', and freed memory went back to the system."""
    _, by_case = read_profiled(RESULTS / PROFILES[6])
    assert by_case
    assert not any(launch.floors for launches in by_case.values() for launch in launches)
    read = load_profiles([RESULTS / PROFILES[6]])
    assert set(read.models["allocator"]) == set(read.layers["allocator"]) == {"default"}


def test_trainings():
    loaded = load_training([SUITE])
    assert loaded.suites[0]["schema"] == 1
    assert loaded.runs["miou"].notna().all()
    assert len(loaded.epochs) > len(loaded.runs)
