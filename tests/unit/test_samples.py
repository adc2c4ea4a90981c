"""Samples as columns: read in either way, looked at later, the same as a list."""

import numpy as np
import pytest
from fakes import make_case, make_launch
from large import write_large
from records import write_record

from dabench.base.errors import ResultsError
from dabench.findings.tables import load
from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings
from dabench.records import folder as folders
from dabench.records import samples as stored
from dabench.records.folder import read_run
from dabench.records.samples import Later, read_samples
from dabench.records.summary import read_stored, summarised
from dabench.records.timings import (
    LAUNCHES,
    MEASUREMENTS,
    SAMPLES,
    SUMMARY,
    TimingRecord,
    next_launch,
    read_launches,
    read_measurements,
    read_plan,
)
from dabench.timing.samples import Sample, StoredSamples, wall_seconds

CASES = make_case(), make_case(model="disc", device="cuda")


@pytest.fixture
def run(tmp_path):
    """Two cases of two launches, one of them with a device's own times."""
    record = write_record(
        tmp_path / "run",
        plan=[PlannedCase(case=each, settings=Settings.of()).to_dict() for each in CASES],
    )
    for launch in range(4):
        case = CASES[launch % 2]
        made = make_launch(case, [1.0 + launch, 2.0, 0.1 + 0.2], launch=launch)
        if case.device == "cuda":
            for sample in range(3):
                made.phases[0].samples.samples[sample] = Sample(0.5, 10.0 + sample)
        record.launch(made)
    record.run.close()
    return tmp_path / "run"


@pytest.fixture
def large(monkeypatch):
    """Every file counts as large."""
    monkeypatch.setattr(stored, "LARGE", 0)


def test_either_reader_gives_the_same(run, monkeypatch):
    small = read_samples(run / SAMPLES)
    monkeypatch.setattr(stored, "LARGE", 0)
    fast = read_samples(run / SAMPLES)
    assert small.phases == fast.phases
    for name in ("launch", "phase", "kind", "index", "wall_s", "device_s"):
        np.testing.assert_array_equal(getattr(small, name), getattr(fast, name))
    launches = read_launches(run)
    monkeypatch.undo()
    assert read_launches(run) == launches


def test_damage_names_its_line_however_it_is_read(run, large):
    path = run / SAMPLES
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace("sample,", "sample,x")
    path.write_text("".join(lines))
    with pytest.raises(ResultsError, match=r"samples\.csv line 5: not what dabench writes"):
        read_launches(run)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match=r"samples\.csv line 1: expected the columns launch"):
        read_launches(run)


def test_a_torn_line_is_passed_over(run, large):
    whole = read_launches(run)
    with (run / SAMPLES).open("a") as file:
        file.write("9,disc/cpu,forwa")
    assert read_launches(run) == whole
    assert next_launch(run) == 4


def test_what_is_looked_at_later_is_the_same(run, large):
    assert read_launches(run, later=True) == read_launches(run)
    unread = read_launches(run, later=True)
    (run / SAMPLES).write_text("damaged\n")
    assert [each.launch for each in unread] == [0, 1, 2, 3]
    with pytest.raises(ResultsError, match=r"samples\.csv line 1: expected the columns"):
        wall_seconds(unread[0].phases[0].samples.samples)


def test_samples_that_are_missing_are_said_when_somebody_looks(run, large):
    later = Later(run / SAMPLES).of(7, "forward")
    with pytest.raises(ResultsError, match=r"samples\.csv: launch 7 has no samples of forward"):
        len(later.samples)


def test_stored_samples_are_a_list_to_whoever_changes_them():
    found = StoredSamples(lambda: (np.array([1.0, 2.0, 3.0]), np.array([np.nan, 0.5, np.nan])))
    listed = [Sample(1.0, None), Sample(2.0, 0.5), Sample(3.0, None)]
    assert found == listed
    assert (found[1], found[-1], len(found)) == (listed[1], listed[-1], 3)
    assert found[:2] == listed[:2]
    assert list(found) == listed
    assert wall_seconds(found) == wall_seconds(listed) == [1.0, 2.0, 3.0]
    found.append(Sample(4.0, None))
    del found[0]
    found[0] = Sample(9.0, None)
    assert found == [Sample(9.0, None), Sample(3.0, None), Sample(4.0, None)]
    assert wall_seconds(found) == [9.0, 3.0, 4.0]
    assert found[1:] == [Sample(3.0, None), Sample(4.0, None)]
    with pytest.raises(TypeError):
        hash(found)


def test_times_of_a_report_are_those_of_the_records(run, large):
    loaded = load([run])
    by_case = {key[1]: each for key, each in loaded.times.items()}
    cpu, cuda = (by_case[each.case_id] for each in CASES)
    assert [list(each) for each in cpu.seconds] == [[1.0, 2.0, 0.1 + 0.2], [3.0, 2.0, 0.1 + 0.2]]
    assert cpu.medians == [1.0, 2.0]
    # The host's clock, but under the paper's protocol.
    assert [list(each) for each in cuda.seconds] == [[0.5] * 3] * 2
    assert cuda.seconds[0][1:] == [0.5, 0.5]
    assert loaded.times is loaded.times


def test_a_run_without_samples_stands_beside_others(run, tmp_path):
    record = write_record(tmp_path / "empty")
    record.run.close()
    failed = write_record(
        tmp_path / "failed", plan=[PlannedCase(case=CASES[0], settings=Settings.of()).to_dict()]
    )
    failed.launch(make_launch(CASES[0], [], status="oom", reason="large", phases=()))
    failed.run.close()
    for folders_ in (
        [run, tmp_path / "empty"],
        [tmp_path / "empty", run],
        [run, tmp_path / "failed"],
    ):
        loaded = load(folders_)
        assert len(loaded.samples) == len(load([run]).samples)
        assert loaded.samples["kind"].dtype == "category"
        assert len(loaded.times) == 2


def test_launches_that_were_taken_away_are_in_no_row(tmp_path):
    large = write_large(tmp_path / "run", 4, launches=2, samples=3)
    path = large / LAUNCHES
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    rows = summarised(large, read_run(large))
    assert [row.launches for row in rows] == [2, 2, 2, 1]
    for said in ("{}", '{"launches": "8"}', "[]"):
        (large / SUMMARY).write_text(said)
        assert [row.launches for row in summarised(large, read_run(large))] == [2, 2, 2, 1]


def test_a_full_disk_leaves_no_half_line(run, monkeypatch):
    folder = folders.RunFolder.open(run, "timing")
    before = (run / SAMPLES).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    with pytest.raises(ResultsError, match="No space left"):
        folder.append(SAMPLES, ("launch",), [[9]])
    assert (run / SAMPLES).read_bytes() == before
    folder.close()


def test_samples_that_do_not_stand_together_are_one_launchs(run):
    path = run / SAMPLES
    header, *lines = path.read_text().splitlines(keepends=True)
    before = read_launches(run)
    path.write_text(header + "".join(lines[::2] + lines[1::2]))
    for one, other in zip(before, read_launches(run), strict=True):
        assert sorted(wall_seconds(one.phases[0].samples.samples)) == sorted(
            wall_seconds(other.phases[0].samples.samples)
        )
    assert [len(each.seconds) for each in load([run]).times.values()] == [2, 2]


def test_rows_on_disk_are_those_that_were_made(tmp_path):
    large = write_large(tmp_path / "run", 8, launches=2, samples=3)
    rows = read_measurements(large / MEASUREMENTS)
    (large / MEASUREMENTS).unlink()
    assert rows == summarised(large, read_run(large))
    assert read_measurements(large / MEASUREMENTS) == []
    assert {type(each.median_s) for each in rows} == {float}


def test_only_what_changed_is_computed_again(tmp_path):
    large = write_large(tmp_path / "run", 4, launches=2, samples=3)
    document = read_run(large)
    plan = read_plan(large, document)
    known = read_stored(large, plan)
    assert set(known.rows) == {each.case.case_id for each in plan}
    assert (known.ran, known.next_launch) == (8, 8)
    # A row that is not the records' own shows which are taken over.
    path = large / MEASUREMENTS
    path.write_text(path.read_text().replace(",ok,", ",odd,"))
    assert {row.status for row in summarised(large, document)} == {"odd"}
    record = folders.RunFolder.open(large, "timing")
    TimingRecord(record).launch(make_launch(plan[1].case, [1.0] * 3, launch=8))
    record.close()
    found = {row.case_id: row.status for row in summarised(large, document)}
    assert [found[each.case.case_id] for each in plan] == ["odd", "ok", "odd", "odd"]


def test_a_summary_of_an_earlier_schema_is_made_again(tmp_path):
    large = write_large(tmp_path / "run", 4, launches=2, samples=3)
    path = large / MEASUREMENTS
    path.write_text(
        path.read_text().replace("system_share\n", "share\n", 1).replace(",ok,", ",odd,")
    )
    assert {row.status for row in summarised(large, read_run(large))} == {"ok"}


@pytest.mark.parametrize("length", [10, 70_000])
def test_a_torn_line_of_any_length_is_cut(tmp_path, length):
    record = write_record(tmp_path / "run")
    path = tmp_path / "run" / "table.csv"
    path.write_bytes(b"a,b\n1,2\n" + b"x" * length)
    record.run.cut_torn_line("table.csv")
    assert path.read_bytes() == b"a,b\n1,2\n"
    path.write_bytes(b"x" * length)
    record.run.cut_torn_line("table.csv")
    assert path.read_bytes() == b""
