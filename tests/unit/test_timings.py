"""Records on disk: what comes back, after whatever happened."""

import csv
import json
import os

import pandas as pd
import pytest
from fakes import make_case, make_launch

import dabench
from dabench.base.errors import ResultsError, UsageError
from dabench.findings.tables import load, measurement_frame
from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings
from dabench.records import timings as results
from dabench.records.folder import RUN, SCHEMA, RunFolder, read_run
from dabench.records.measurements import summarise
from dabench.records.timings import TimingRecord, next_launch, read_launches
from dabench.report import write_report

CASE = make_case()
ENVIRONMENT = {"cpu": "Test CPU", "logical_cores": 2}
PLAN = [PlannedCase(case=CASE, settings=Settings.of(repeat=3)).to_dict()]


def create(folder):
    run = RunFolder.create(
        folder, "timing", command="c", environment=ENVIRONMENT, plan=PLAN,
        rules={"warmup": "w", "flags": "f", "interval": "i"},
    )  # fmt: skip
    return TimingRecord(run)


def resume(folder):
    return TimingRecord(RunFolder.open(folder, "timing"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "r1"


@pytest.fixture
def written(folder):
    """A run of three launches; returns the records and the rows made of them."""
    writer = create(folder)
    launches = [make_launch(CASE, [0.1 + i / 7, 0.2, 1 / 3], launch=i) for i in range(3)]
    for launch in launches:
        writer.launch(launch)
    rows = summarise(CASE, launches, {"forward": (3, 4)}, None)
    writer.measurements(rows, 3)
    writer.run.close()
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
    writer = create(folder)
    bad = make_launch(CASE, [], status="oom", reason='said "no", twice', phases=())
    writer.launch(bad)
    rows = summarise(CASE, [bad], {}, None)
    writer.measurements(rows, 1)
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
    writer = resume(folder)
    more = make_launch(CASE, [7.0], launch=next_launch(folder))
    writer.launch(more)
    assert read_launches(folder) == [*written[0], more]


@pytest.mark.parametrize("torn", [b"", b"launch,ca"])
def test_a_header_that_was_cut_off_is_written_again(folder, torn):
    create(folder).run.close()
    (folder / results.SAMPLES).write_bytes(torn)
    launch = make_launch(CASE, [7.0])
    resume(folder).launch(launch)
    assert read_launches(folder) == [launch]


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


@pytest.mark.parametrize("schema", [SCHEMA + 1, "x"])
def test_a_newer_schema_is_refused(folder, written, schema):
    run = json.loads((folder / RUN).read_text())
    (folder / RUN).write_text(json.dumps({**run, "schema": schema}))
    with pytest.raises(UsageError, match=f"schema {schema}.*upgrade"):
        read_run(folder)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[]", "no schema"), ('{"schema": 1}', "no run_id")]
)
def test_a_run_that_is_none_is_refused(folder, text, message):
    folder.mkdir()
    (folder / RUN).write_text(text)
    with pytest.raises(ResultsError, match=rf"run\.json line 1: .*{message}"):
        read_run(folder)
    with pytest.raises(UsageError, match="holds no run"):
        read_run(folder / "none")
    with pytest.raises(UsageError, match="holds no run"):
        read_run(folder / RUN)


DAMAGES = [
    {"kind": "weird"}, {"environment": []}, {"networks": []}, {"plan": {}}, {"plan": [1]},
    {"plan": [{}]}, {"plan": [{"case": {"model": "x"}, "settings": {}, "impossible": None}]},
    {"command": 3}, {"created": "once"}, {"created": "0001-01-01T00:00:00+14:00"},
    {"environment": {"gpus": 1.5}}, {"environment": {"gpus": [3]}}, {"environment": {"cpu": 1.5}},
    {"environment": {"memory_bytes": [None]}}, {"environment": {"threads": True}},
    {"plan": [{**PLAN[0], "case": {**PLAN[0]["case"], "concurrency": "x"}}]},
    {"plan": [{**PLAN[0], "case": {**PLAN[0]["case"], "model": 3}}]},
    {"plan": [{**PLAN[0], "settings": {**PLAN[0]["settings"], "seed": True}}]},
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_record_of_another_shape_is_one_line(folder, written, damage):
    document = json.loads((folder / RUN).read_text())
    (folder / RUN).write_text(json.dumps({**document, **damage}))
    with pytest.raises(ResultsError, match=r"run\.json line 1: not ") as error:
        load([folder])
    assert "\n" not in str(error.value)


def test_settings_nobody_knows_are_one_line(folder, written):
    document = json.loads((folder / RUN).read_text())
    for wrong in ({"speed": 1}, {"repeat": 0}):
        document["plan"][0]["settings"] |= wrong
        (folder / RUN).write_text(json.dumps(document))
        with pytest.raises(ResultsError, match=r"run\.json line 1: not what dabench writes"):
            load([folder])


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"schema": ' + "9" * 5000 + "}"], ids=["deep", "long"]
)
@pytest.mark.parametrize("file", [RUN, "counts.json"])
def test_documents_out_of_bounds_are_one_line(folder, written, file, text):
    (folder / file).write_text(text)
    with pytest.raises(ResultsError, match=f"{file}: not .*(too long|too deeply)"):
        load([folder])


# Column of launches.csv -> what nobody writes there.
LAUNCHES = [
    ("phases", "[]"), ("phases", "-1"), ("phases", '{"forward": 3}'), ("device", "[]"),
    ("device", "-1"), ("round", "x"), ("round", "inf"), ("launch", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "text"), LAUNCHES, ids=lambda each: each[:16])
def test_launches_that_nobody_writes_are_one_line(folder, written, column, text):
    path = folder / results.LAUNCHES
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    rows[0][header.index(column)] = text
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    for read in (read_launches, lambda folder: load([folder])):
        with pytest.raises(ResultsError, match=r"launches\.csv line [0-9]+: "):
            read(folder)


def test_a_cell_out_of_bounds_is_one_line(folder, written):
    path = folder / results.LAUNCHES
    path.write_text(path.read_text().replace(",ok,,", f",ok,{'x' * 200_000},", 1))
    with pytest.raises(ResultsError, match=r"launches\.csv line [0-9]+: field larger than"):
        read_launches(folder)


@pytest.mark.parametrize("seconds", ["0.0", "-1.0", "inf", "nan"])
def test_a_pass_takes_some_time(folder, written, seconds):
    path = folder / results.SAMPLES
    path.write_text(path.read_text().replace(",0.2,", f",{seconds},", 1))
    with pytest.raises(ResultsError, match=r"samples\.csv line [0-9]+: .*a pass takes some time"):
        read_launches(folder)


def test_the_table_that_lacks_samples_is_named(folder, written):
    path = folder / results.SAMPLES
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    with pytest.raises(ResultsError, match=r"samples\.csv: launch 0 has no samples of forward"):
        read_launches(folder)
    with pytest.raises(ResultsError, match=r"samples\.csv has nothing"):
        _ = load([folder]).times["r1", CASE.case_id, "forward"]


@pytest.mark.parametrize("text", ['[{"model": 1}]', '{"a": 1}', "[1]", '[{"reason": "x"}]'])
def test_counts_of_another_shape_are_one_line(folder, written, text):
    (folder / "counts.json").write_text(text)
    with pytest.raises(ResultsError, match=r"counts\.json line 1: not what dabench writes"):
        load([folder])


def test_a_summary_of_another_shape_is_made_anew(folder, written):
    (folder / results.SUMMARY).write_text("[3]")
    assert len(load([folder]).measurements) == 1


def test_a_run_is_never_overwritten(folder, written):
    with pytest.raises(UsageError, match=r"--out.*holds a run already"):
        create(folder)
    assert read_launches(folder) == written[0]


def test_one_writer_at_a_time(folder, written):
    writer = resume(folder)
    with pytest.raises(UsageError, match="is being written by another dabench"):
        resume(folder)
    del writer
    assert resume(folder).run.path == folder


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out: cannot write .*is not a folder"):
        create(tmp_path / "file" / "run")


def test_a_run_killed_before_its_first_launch_is_an_empty_one(folder):
    create(folder)
    loaded = load([folder])
    assert len(loaded.samples) == len(loaded.launches) == 0
    assert loaded.measurements["status"].tolist() == ["pending"]
    write_report([folder], folder=folder.parent / "reports", name="empty")
    assert "Test CPU" in (folder.parent / "reports" / "empty.md").read_text()


def test_a_number_that_is_none_in_the_summary_names_the_file(folder, written):
    path = folder / results.MEASUREMENTS
    path.write_text(path.read_text().replace(",9,3,", ",nine,3,", 1))
    with pytest.raises(ResultsError, match=r"measurements\.csv: not what dabench writes"):
        load([folder])


def test_a_run_that_died_while_it_was_made_is_made_anew(folder):
    create(folder)
    (folder / RUN).unlink()
    create(folder).launch(make_launch(CASE, [1.0]))
    assert len(read_launches(folder)) == 1


def test_a_full_disk_keeps_what_was_there(folder, written, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    writer = resume(folder)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="No space left on device; what was measured before"):
        writer.launch(make_launch(CASE, [1.0], launch=9))
    with pytest.raises(ResultsError, match="No space left"):
        writer.measurements(written[1], 3)
    assert read_launches(folder)[:3] == written[0]
    assert len(load([folder]).measurements) == 1


def test_a_summary_that_lags_behind_is_made_anew(folder, written):
    """After kill -9 the table may be of fewer launches than there are, or missing."""
    writer = resume(folder)
    writer.launch(make_launch(CASE, [9.0, 9.0, 9.0], launch=3))
    (row,) = load([folder]).measurements.to_dict("records")
    assert (row["launches"], row["max_s"]) == (4, 9.0)
    (folder / results.MEASUREMENTS).unlink()
    (folder / results.SUMMARY).unlink()
    assert load([folder]).measurements["launches"].tolist() == [4]


def test_a_run_of_an_older_schema_is_read_and_goes_on(folder, written):
    """Schema 2: launches knew no round, the summary was always whole."""
    old = {**json.loads((folder / RUN).read_text()), "schema": 2}
    del old["kind"]
    (folder / RUN).write_text(json.dumps(old))
    (folder / results.SUMMARY).unlink()
    lines = [line.split(",") for line in (folder / results.LAUNCHES).read_text().splitlines()]
    without = "".join(",".join([first, *rest]) + "\n" for first, _, *rest in lines)
    (folder / results.LAUNCHES).write_text(without)
    assert read_launches(folder) == written[0]
    assert len(load([folder]).measurements) == 1
    resume(folder).launch(make_launch(CASE, [1.0], launch=3, round=3))
    assert [launch.round for launch in read_launches(folder)] == [None] * 4
    assert (folder / results.LAUNCHES).read_text().startswith(without)


def test_two_runs_begun_in_one_second_get_two_folders(tmp_path):
    from dabench.records.folder import new_run_folder

    with (
        new_run_folder(None, "a:b(c)", tmp_path) as one,
        new_run_folder(None, "a:b(c)", tmp_path) as two,
    ):
        assert one != two
        create(one).run.close()
    assert [path.name for path in tmp_path.iterdir()] == [one.name]  # the empty one is gone
    assert one.name.endswith("-a-b-c")


def test_json_never_holds_what_is_no_number(folder):
    writer = create(folder)
    writer.run.write_json("x.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((folder / "x.json").read_text()) == {"a": None, "b": [None, 1.5]}
