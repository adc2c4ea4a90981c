"""Runs in other tools' formats and back: what is lost is what was said to be."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from fakes import make_case
from records import ENVIRONMENT, write_medians, write_run

from dabench.base.errors import DabenchError, ResultsError, UsageError
from dabench.cli import exchanging
from dabench.exchange.registry import FORMATS, IMPORTS, export_runs, import_file
from dabench.findings.compare import compare_runs
from dabench.findings.tables import load
from dabench.records.catalog import label, read_labels
from dabench.records.folder import read_run
from dabench.records.merging import PROVENANCE

SAMPLED = ("samples.csv", "launches.csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs"))
    label(folder, add=["release"], note="quiet night")
    return folder


def there_and_back(run, name, tmp_path):
    file = tmp_path / f"out{'.csv' if name == 'csv' else '.x'}"
    left_out = export_runs([run], name, file)
    (made,) = import_file(file, name, tmp_path / "back")
    return made, left_out


@pytest.mark.parametrize("name", ["json", "pytest-benchmark"])
def test_a_whole_round_trip_loses_nothing(run, name, tmp_path):
    made, _ = there_and_back(run, name, tmp_path)
    for file in (*SAMPLED, "measurements.csv", "counts.json", "labels.json"):
        kept = (run / file).read_bytes()
        if file == "measurements.csv":
            continue  # the run's own is made of other counts, to be seen in golden files
        assert (made / file).read_bytes() == kept, file
    assert read_run(made) == read_run(run)
    (entry,) = json.loads((made / PROVENANCE).read_text())
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("name", ["csv", pytest.param("parquet", marks=pytest.mark.extras)])
def test_a_table_holds_every_sample_and_names_the_rest(run, name, tmp_path):
    made, left_out = there_and_back(run, name, tmp_path)
    for file in SAMPLED:
        assert (made / file).read_bytes() == (run / file).read_bytes()
    assert "operation counts, tags and notes" in left_out
    assert read_labels(made).tags == ()
    document, before = read_run(made), read_run(run)
    assert document["created"] == before["created"]
    assert document["environment"]["cpu"] == "Test CPU"
    possible = [each for each in before["plan"] if each["impossible"] is None]
    assert document["plan"] == possible


@pytest.mark.parametrize("since", [("allocator",), ("calibration", "keep_float", "allocator")])
def test_a_table_of_an_earlier_version_is_read(run, tmp_path, since):
    table = tmp_path / "out.csv"
    export_runs([run], "csv", table)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    names = [name for name in rows[0] if name not in since]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    (made,) = import_file(table, "csv", tmp_path / "back")
    possible = [each for each in read_run(run)["plan"] if each["impossible"] is None]
    assert read_run(made)["plan"] == possible


def test_nvbench_holds_samples_of_32_bits_launch_by_launch(tmp_path):
    case = make_case()
    medians = (1.01, 1.02, 1.03)
    run = write_medians(tmp_path / "a", {case: medians})
    made, left_out = there_and_back(run, "nvbench", tmp_path)
    assert any("32 bits" in line for line in left_out)
    samples = load([made]).samples
    expected = [float(np.float32(each)) for each in medians for _ in range(3)]
    assert list(samples[samples["kind"] == "sample"]["wall_s"]) == expected
    assert [each.verdict for each in compare_runs(run, made)] == ["undecided"]


def test_nvbench_is_written_as_nvbench_writes_it(tmp_path):
    run = write_medians(tmp_path / "a", {make_case(): (1.0, 2.0)})
    out = tmp_path / "nv.json"
    export_runs([run], "nvbench", out)
    document = json.loads(out.read_text())
    assert document["meta"]["version"]["json"]["string"] == "1.0.0"
    (benchmark,) = document["benchmarks"]
    (state,) = benchmark["states"]
    names = {axis["name"] for axis in benchmark["axes"]}
    assert {value["name"] for value in state["axis_values"]} <= names
    values = {
        each["tag"]: {v["name"]: (v["type"], v["value"]) for v in each["data"]}
        for each in state["summaries"]
    }
    assert values["nv/cold/sample_size"]["value"] == ("int64", "6")
    assert values["nv/cold/time/gpu/mean"]["value"] == ("float64", "1.5")
    assert values["nv/cold/time/gpu/q1"]["value"] == ("float64", "1.0")
    sidecar = values["nv/json/bin:nv/cold/sample_times"]
    assert sidecar == {"filename": ("string", "nv.json-bin/0.bin"), "size": ("int64", "6")}
    stored = np.fromfile(tmp_path / "nv.json-bin" / "0.bin", dtype="<f4")
    assert stored.tolist() == [1.0] * 3 + [2.0] * 3


def nvbench(tmp_path, summaries, *, samples=(0.1, 0.2)):
    (tmp_path / "r.json-bin").mkdir()
    np.asarray(samples, dtype="<f4").tofile(tmp_path / "r.json-bin" / "0.bin")
    state = {"name": "Device=0 N=2^8", "device": 0, "axis_values": None, "summaries": summaries}
    skipped = {"name": "Device=0 N=2^9", "device": 0, "summaries": None, "is_skipped": True}
    document = {
        "meta": {}, "devices": [{"id": 0, "name": "NVIDIA H100"}],
        "benchmarks": [{"name": "copy", "axes": None, "states": [state, skipped]}],
    }  # fmt: skip
    file = tmp_path / "r.json"
    file.write_text(json.dumps(document))
    return file


def sidecar(size="2", name="r.json-bin/0.bin"):
    return [
        {
            "tag": "nv/json/bin:nv/cold/sample_times",
            "data": [
                {"name": "filename", "type": "string", "value": name},
                {"name": "size", "type": "int64", "value": size},
            ],
        }
    ]


def test_what_nvbench_measured_becomes_a_run(tmp_path):
    (made,) = import_file(nvbench(tmp_path, sidecar(), samples=(0.15, 0.15)), None, tmp_path / "in")
    (row,) = load([made]).measurements.to_dict("records")
    assert (row["model"], row["device_name"], row["n"]) == ("copy Device=0 N=2^8", "NVIDIA H100", 2)
    assert row["median_s"] == pytest.approx(0.15)
    assert row["flags"] == "measured by nvbench"


@pytest.mark.parametrize(
    ("summaries", "error", "message"),
    [
        (None, UsageError, "has no samples; nvbench keeps them: --jsonbin"),
        (sidecar(name="else.bin"), UsageError, r"else\.bin are not there"),
        (sidecar(name="../../outside.bin"), UsageError, r"outside\.bin are not there"),
        (sidecar(name=__file__), UsageError, "are not there"),
        (sidecar(size="3"), ResultsError, "holds 2 samples, not 3"),
    ],
)
def test_nvbench_without_samples_is_refused(tmp_path, summaries, error, message):
    with pytest.raises(error, match=message):
        import_file(nvbench(tmp_path, summaries), None, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def benchmark_json(tmp_path, **stats):
    entry = {"fullname": "t.py::test_a", "name": "test_a", "stats": stats}
    machine = {"cpu": {"brand_raw": "Other CPU", "count": 8}, "python_version": "3.12.1"}
    document = {
        "machine_info": machine, "commit_info": {"id": "abc"}, "benchmarks": [entry],
        "datetime": "2026-02-03T00:00:00+00:00", "version": "5.2.3",
    }  # fmt: skip
    file = tmp_path / "0001_main.json"
    file.write_text(json.dumps(document))
    return file


def test_what_pytest_benchmark_measured_becomes_a_run(tmp_path):
    file = benchmark_json(tmp_path, data=[0.1, 0.2, 0.3], median=0.2)
    (made,) = import_file(file, None, tmp_path / "in")
    assert made.name == "pytest-benchmark-0001-main"
    assert read_run(made)["created"].startswith("2026-02-03")
    (row,) = load([made]).measurements.to_dict("records")
    assert (row["model"], row["machine"], row["median_s"]) == (
        "t.py::test_a", "Other CPU, 8 cores", 0.2,
    )  # fmt: skip
    with pytest.raises(UsageError, match="is there already; nothing was imported"):
        import_file(file, None, tmp_path / "in")


def test_pytest_benchmark_without_samples_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no samples; pytest-benchmark keeps them with"):
        import_file(benchmark_json(tmp_path, median=0.2), None, tmp_path / "in")


def test_pytest_benchmark_reads_what_is_written_for_it(run, tmp_path):
    out = tmp_path / "b.json"
    export_runs([run], "pytest-benchmark", out)
    document = json.loads(out.read_text())
    entry = document["benchmarks"][0]
    needed = {"min", "max", "mean", "median", "iqr", "stddev", "outliers", "rounds", "iterations"}
    assert needed <= entry["stats"].keys()
    assert {"name", "fullname", "group"} <= entry.keys()
    assert entry["stats"]["rounds"] == len(entry["stats"]["data"]) == 3
    assert document["machine_info"]["cpu"]["count"] == 4


def test_timms_table_has_its_columns_and_units(tmp_path):
    case = make_case(batch=4, height=64, width=128)
    train = make_case(mode="train", phases=("total",))
    run = write_medians(
        tmp_path / "a", {case: (0.5, 0.5), train: (0.25, 0.25)}, changes={train: {"phase": "total"}}
    )
    out = tmp_path / "t.csv"
    left_out = export_runs([run], "timm", out)
    infer, trained = list(csv.DictReader(out.read_text().splitlines()))
    assert (infer["infer_samples_per_sec"], infer["infer_step_time"]) == ("8.0", "500.0")
    assert (infer["infer_batch_size"], infer["infer_img_size"]) == ("4", "128")
    assert infer["train_step_time"] == ""
    assert (trained["train_samples_per_sec"], trained["train_step_time"]) == ("8.0", "250.0")
    assert any("intervals" in line for line in left_out)
    with pytest.raises(UsageError, match="holds no samples"):
        import_file(out, "timm", tmp_path / "in")


def test_formats_are_known_to_the_command_line():
    assert tuple(FORMATS) == exchanging.FORMATS
    assert set(IMPORTS) == set(FORMATS) - {"timm"}


def test_files_that_are_none_are_refused(run, tmp_path):
    for name, text, message in (
        ("a.txt", "", "of no known format; name one with --format"),
        ("b.json", "{}", "of no known format"),
        ("c.json", "{", "line 1: not JSON"),
        ("d.csv", "a,b\n", "line 1: expected the columns"),
        ("e.json", '{"dabench": {"schema": 99}}', "schema 99, this dabench reads up to"),
        ("f.json", '{"dabench": {"schema": 3}}', "not what dabench writes"),
        ("g.json", '{"machine_info": {}}', "not of pytest-benchmark"),
        ("h.json", '{"devices": [], "benchmarks": [{}]}', "not of nvbench"),
        ("i.json", '{"devices": [], "benchmarks": []}', "holds no samples"),
    ):
        file = tmp_path / name
        file.write_text(text)
        with pytest.raises((UsageError, ResultsError), match=message):
            import_file(file, None, tmp_path / "in")
    empty = write_medians(tmp_path / "empty", {make_case(): ()})
    with pytest.raises(UsageError, match="empty is empty: nothing was measured"):
        export_runs([empty], "json", tmp_path / "z.json")
    whole = tmp_path / "whole.csv"
    export_runs([run], "csv", whole)
    (tmp_path / "header.csv").write_text(whole.read_text().partition("\n")[0] + "\n")
    with pytest.raises(UsageError, match="holds no samples"):
        import_file(tmp_path / "header.csv", None, tmp_path / "in")
    with pytest.raises(UsageError, match="none is not a file"):
        import_file(tmp_path / "none", None, tmp_path / "in")
    with pytest.raises(UsageError, match=r"--out: '.*d\.csv' exists already"):
        export_runs([run], "csv", tmp_path / "d.csv")
    with pytest.raises(UsageError, match="--format: 'xml' is not allowed; choices: csv, parquet"):
        export_runs([run], "xml", tmp_path / "x.xml")
    assert not (tmp_path / "in").exists()


def test_a_run_cannot_be_imported_out_of_its_folder(run, tmp_path):
    out = tmp_path / "a.json"
    export_runs([run], "json", out)
    for name in ("../evil", "..", ".hidden", "", "a\nb", "a\0b"):
        document = json.loads(out.read_text())
        document["dabench"]["runs"][0]["run"]["run_id"] = name
        out.write_text(json.dumps(document))
        with pytest.raises(ResultsError, match="is no name of a run"):
            import_file(out, None, tmp_path / "in")


def changed(document, path, value):
    *rest, last = path
    for key in rest:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run", "created"), "yesterday"),
        (("run", "environment"), []),
        (("run", "plan"), 5),
        (("samples", 0, 5), "0"),
        (("samples", 0, 5), "-1"),
        (("samples", 0, 5), "nan"),
        (("samples", 0, 5), "inf"),
        (("samples", 0, 3), "else"),
        (("launches",), [1]),
        (("launches", 0, "phases"), "{}x"),
        (("launches", 0, "case_id"), "another"),
        (("counts",), [{}]),
        (("counts",), 5),
        (("labels",), None),
    ],
)
def test_a_file_with_bad_values_is_one_line_and_leaves_nothing(run, tmp_path, path, value):
    out = tmp_path / "a.json"
    export_runs([run], "json", out)
    document = json.loads(out.read_text())
    changed(document["dabench"]["runs"][0], path, value)
    out.write_text(json.dumps(document))
    with pytest.raises(ResultsError, match=r"a\.json|in/"):
        import_file(out, None, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    "text",
    ["5", "[" * 100_000, '{"machine_info": [], "benchmarks": []}', '{"dabench": []}'],
)
def test_documents_of_another_shape_are_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DabenchError, match=r"a\.json"):
        import_file(tmp_path / "a.json", None, tmp_path / "in")


def test_samples_that_are_no_times_are_refused(tmp_path):
    for data in ([float("nan"), 1.0], [0.0], [float("inf")], [-1.0]):
        file = benchmark_json(tmp_path, data=data)
        with pytest.raises(DabenchError, match=r"0001_main\.json"):
            import_file(file, None, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_what_a_file_says_of_itself_changes_nothing_but_the_record(run, tmp_path):
    """A name of an argument of ours is no key of a document."""
    out = tmp_path / "a.json"
    export_runs([run], "json", out)
    document = json.loads(out.read_text())
    document["dabench"]["runs"][0]["run"] |= {"path": "/tmp", "again": True, "wait_s": 9}
    out.write_text(json.dumps(document))
    (made,) = import_file(out, None, tmp_path / "in")
    assert {"path", "again", "wait_s"} & read_run(made).keys() == set()


def test_two_runs_of_one_name_are_not_mixed(tmp_path):
    for place in ("s1", "s2"):
        write_medians(tmp_path / place / "demo", {make_case(): (1.0, 2.0)})
    with pytest.raises(UsageError, match="two runs are called demo"):
        export_runs([tmp_path / "s1" / "demo", tmp_path / "s2" / "demo"], "csv", tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["pytest-benchmark", "timm", "nvbench"])
def test_runs_of_two_machines_are_not_called_one(tmp_path, name):
    runs = [
        write_medians(
            tmp_path / cpu, {make_case(): (1.0, 2.0)}, environment={**ENVIRONMENT, "cpu": cpu}
        )
        for cpu in ("one", "two")
    ]
    with pytest.raises(UsageError, match="is of one machine, these runs are not"):
        export_runs(runs, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    environment = {**ENVIRONMENT, "commit": "187342901234", "torch": "2.10"}
    run = write_medians(tmp_path / "a", {make_case(): (1.0, 2.0)}, environment=environment)
    made, _ = there_and_back(run, "csv", tmp_path)
    known = read_run(made)["environment"]
    assert (known["commit"], known["torch"], known["cpu"]) == ("187342901234", "2.10", "Test CPU")


def test_parquet_says_what_it_needs(run, tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", missing)
    with pytest.raises(UsageError, match="parquet needs pyarrow: python -m pip install 'dabench"):
        export_runs([run], "parquet", tmp_path / "x.parquet")
