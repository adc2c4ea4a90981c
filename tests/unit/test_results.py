"""Records on disk: what comes back, after whatever happened."""

import json

import pandas as pd
import pytest
from fakes import make_case, make_launch

import dabench
from dabench.base.errors import ResultsError, UsageError
from dabench.findings.tables import load, measurement_frame
from dabench.records import timings as results
from dabench.records.measurements import summarise
from dabench.records.timings import RunWriter, next_launch, read_launches, read_run
from dabench.report import write_report

CASE = make_case()
ENVIRONMENT = {"cpu": "Test CPU", "logical_cores": 2}
RUN = {"run_id": "r1", "created": "2026-01-02T03:04:05+00:00", "command": "c",
       "environment": ENVIRONMENT, "plan": [],
       "rules": {"warmup": "w", "flags": "f", "interval": "i"}}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "r1"


@pytest.fixture
def written(folder):
    """A run of three launches; returns the records and the rows made of them."""
    writer = RunWriter.create(folder, RUN)
    launches = [make_launch(CASE, [0.1 + i / 7, 0.2, 1 / 3], launch=i) for i in range(3)]
    for launch in launches:
        writer.launch(launch)
    rows = summarise(CASE, launches, {"forward": (3, 4)}, None)
    writer.measurements(rows)
    return launches, rows


def test_launches_come_back_as_they_were(folder, written):
    assert read_launches(folder) == written[0]


def test_rows_come_back_as_the_same_frame(folder, written):
    loaded = dabench.load_results(folder)
    back = loaded.measurements.drop(columns=["run_id", "machine"])
    pd.testing.assert_frame_equal(back, measurement_frame(written[1]))
    assert len(loaded.samples) == 3 * 4
    assert set(loaded.samples["kind"]) == {"warmup", "sample"}
    assert loaded.samples["wall_s"].tolist()[1] == written[0][0].phases[0].samples.samples[0].wall_s


def test_rows_with_gaps_come_back_too(folder):
    writer = RunWriter.create(folder, RUN)
    bad = make_launch(CASE, [], status="oom", reason='said "no", twice', phases=())
    writer.launch(bad)
    rows = summarise(CASE, [bad], {}, None)
    writer.measurements(rows)
    assert read_launches(folder) == [bad]
    back = load([folder]).measurements.drop(columns=["run_id", "machine"])
    pd.testing.assert_frame_equal(back, measurement_frame(rows))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_tail_loses_at_most_its_launch(folder, written, cut):
    for name in (results.SAMPLES, results.LAUNCHES):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-cut])
    assert read_launches(folder) == written[0][:2]
    assert set(load([folder]).samples["launch"]) == {0, 1}


def test_samples_without_their_launch_are_not_read(folder, written):
    path = folder / results.LAUNCHES
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert read_launches(folder) == written[0][:2]
    assert set(load([folder]).samples["launch"]) == {0, 1}
    # Their number is not given again: the rows would mix.
    assert next_launch(folder) == 3


def test_resuming_appends_behind_a_torn_line(folder, written):
    path = folder / results.SAMPLES
    path.write_bytes(path.read_bytes() + b"3,dw-disc/cpu,forwa")
    writer = RunWriter.resume(folder)
    more = make_launch(CASE, [7.0], launch=next_launch(folder))
    writer.launch(more)
    assert read_launches(folder) == [*written[0], more]


def test_damage_in_the_middle_names_file_and_line(folder, written):
    path = folder / results.SAMPLES
    lines = path.read_text().splitlines(keepends=True)
    sound = lines[4]
    lines[4] = sound.replace("sample,2,", "sample,")
    path.write_text("".join(lines))
    for read in (read_launches, lambda f: load([f])):
        with pytest.raises(ResultsError, match=r"samples\.csv line 5: 6 fields, expected 7"):
            read(folder)
    lines[4] = sound.replace("0.3333333333333333", "fast")
    path.write_text("".join(lines))
    for read in (read_launches, lambda f: load([f])):
        with pytest.raises(ResultsError, match=r"samples\.csv line 5: .*fast"):
            read(folder)


def test_foreign_files_name_their_first_line(folder, written):
    (folder / results.SAMPLES).write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match=r"samples\.csv line 1: expected the columns launch"):
        read_launches(folder)
    with pytest.raises(ResultsError, match=r"samples\.csv line 1: expected the columns launch"):
        load([folder])


def test_a_launch_row_that_is_not_ours_names_its_line(folder, written):
    path = folder / results.LAUNCHES
    path.write_text(path.read_text().replace('"{""device_name""', '"{""device_name', 1))
    with pytest.raises(ResultsError, match=r"launches\.csv line 2"):
        read_launches(folder)


@pytest.mark.parametrize("schema", [results.SCHEMA + 1, "x"])
def test_a_newer_schema_is_refused(folder, written, schema):
    run = json.loads((folder / results.RUN).read_text())
    (folder / results.RUN).write_text(json.dumps({**run, "schema": schema}))
    with pytest.raises(UsageError, match=f"schema {schema}.*upgrade"):
        read_run(folder)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[]", "no schema"), ('{"schema": 1}', "no run_id")]
)
def test_a_run_that_is_none_is_refused(folder, text, message):
    folder.mkdir()
    (folder / results.RUN).write_text(text)
    with pytest.raises(ResultsError, match=rf"run\.json line 1: .*{message}"):
        read_run(folder)
    with pytest.raises(UsageError, match="holds no run"):
        read_run(folder / "none")
    with pytest.raises(UsageError, match="holds no run"):
        read_run(folder / results.RUN)


def test_a_run_is_never_overwritten(folder, written):
    with pytest.raises(UsageError, match=r"--out.*holds a run already"):
        RunWriter.create(folder, RUN)
    assert read_launches(folder) == written[0]


def test_one_writer_at_a_time(folder, written):
    writer = RunWriter.resume(folder)
    with pytest.raises(UsageError, match="is being written by another dabench"):
        RunWriter.resume(folder)
    del writer
    assert RunWriter.resume(folder).folder == folder


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out: cannot write .*is not a folder"):
        RunWriter.create(tmp_path / "file" / "run", RUN)


def test_a_run_killed_before_its_first_launch_is_an_empty_one(folder):
    RunWriter.create(folder, RUN)
    loaded = load([folder])
    assert len(loaded.measurements) == len(loaded.samples) == len(loaded.launches) == 0
    write_report([folder], folder=folder.parent / "reports", name="empty")
    assert "Test CPU" in (folder.parent / "reports" / "empty.md").read_text()


def test_a_number_that_is_none_in_the_summary_names_the_file(folder, written):
    path = folder / results.MEASUREMENTS
    path.write_text(path.read_text().replace(",9,3,", ",nine,3,", 1))
    with pytest.raises(ResultsError, match=r"measurements\.csv: not what dabench writes"):
        load([folder])


def test_a_run_that_died_while_it_was_made_is_made_anew(folder):
    RunWriter.create(folder, RUN)
    (folder / results.RUN).unlink()
    RunWriter.create(folder, RUN).launch(make_launch(CASE, [1.0]))
    assert len(read_launches(folder)) == 1


def test_a_full_disk_keeps_what_was_there(folder, written, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "fsync", full)
    writer = RunWriter(folder)
    with pytest.raises(ResultsError, match="No space left on device; what was measured before"):
        writer.launch(make_launch(CASE, [1.0], launch=9))
    with pytest.raises(ResultsError, match="No space left"):
        writer.measurements(written[1])
    assert read_launches(folder)[:3] == written[0]
    assert len(load([folder]).measurements) == 1
