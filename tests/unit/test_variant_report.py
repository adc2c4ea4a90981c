"""Compilers and runtimes in reports: what is compared, what the sentence says, old records."""

from pathlib import Path

import pytest
from fakes import make_case, make_launch
from records import write_record

from dabench.findings.precisions import bought
from dabench.findings.tables import load, variants
from dabench.records.measurements import summarise
from dabench.records.timings import MEASUREMENTS
from dabench.report import write_report
from dabench.report.text import Latex, Markdown

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("undrawn")


def write_variants(folder, seconds, launched=6):
    """A run with one network in several ways: {(runtime, layout, fuse): seconds}."""
    writer = write_record(folder)
    rows, number = [], 0
    for (runtime, layout, fuse), base in seconds.items():
        case = make_case(model="disc", runtime=runtime, memory_format=layout, fuse=fuse)
        facts = {"device_name": "Test CPU", "threads": 2, "precision": "as is", "loss": None}
        if runtime != "eager":
            facts |= {"compile_s": 4.0, "difference": 2e-6}
        launches = []
        for _ in range(launched):
            times = [base * (1 + 0.001 * i) for i in range(3)]
            launches.append(make_launch(case, times, launch=number, device=facts))
            writer.launch(launches[-1])
            number += 1
        rows += summarise(case, launches, {}, None)
    writer.measurements(rows, number)
    return folder


def write_precisions(folder, seconds, **changes):
    """A run with one network in several precisions: {(runtime, dtype): seconds}."""
    writer = write_record(folder)
    rows = []
    for number, ((runtime, dtype), base) in enumerate(seconds.items()):
        case = make_case(model="disc", runtime=runtime, dtype=dtype, **changes)
        facts = {"device_name": "Test CPU", "threads": 2, "precision": "as is", "loss": None}
        times = [[base * (1 + 0.001 * i + 0.002 * n) for i in range(3)] for n in range(4)]
        launches = [
            make_launch(case, each, launch=4 * number + n, device=facts)
            for n, each in enumerate(times)
        ]
        for each in launches:
            writer.launch(each)
        rows += summarise(case, launches, {}, None)
    writer.measurements(rows, 4 * len(seconds))
    return folder


def test_what_a_precision_buys_is_against_the_fastest_in_fp32(tmp_path):
    seconds = {
        ("eager", "fp32"): 2.0, ("onnxruntime", "fp32"): 1.0, ("openvino", "bf16"): 0.8,
        ("eager", "bf16"): 3.0, ("openvino", "int8"): 0.25,
    }  # fmt: skip
    folder = write_precisions(tmp_path / "run", seconds)
    int8, bf16 = bought(load([folder]))
    assert [(each.row["dtype"], each.row["variant"]) for each in (int8, bf16)] == [
        ("int8", "openvino"), ("bf16", "openvino"),
    ]  # fmt: skip
    assert {each.base["variant"] for each in (int8, bf16)} == {"onnxruntime"}
    assert int8.found["ratio"] == pytest.approx(0.25)
    assert int8.found["ratio_low"] <= 0.25 <= int8.found["ratio_high"]
    text = write_report([folder], folder=tmp_path, name="buys")[0].read_text(encoding="utf-8")
    (line,) = (each for each in text.splitlines() if "| int8 | openvino, 25" in each)
    assert "| onnxruntime, 1" in line
    assert "| 0.25 (" in line
    assert "| 4 |" in line


def test_one_way_each_is_enough_to_say_it(tmp_path):
    folder = write_precisions(tmp_path / "run", {("eager", "fp32"): 2.0, ("eager", "bf16"): 1.0})
    text = write_report([folder], folder=tmp_path, name="buys")[0].read_text(encoding="utf-8")
    assert "What a precision buys" in text


@pytest.mark.parametrize(
    "changes", [{"mode": "train"}, {"concurrency": 2}, {"input": "host"}, {"protocol": "paper"}]
)
def test_precisions_are_compared_for_inference_pass_by_pass(tmp_path, changes):
    seconds = {("eager", "fp32"): 2.0, ("eager", "bf16"): 1.0}
    assert bought(load([write_precisions(tmp_path / "run", seconds, **changes)])) == []


PLAIN, NHWC = ("eager", "nchw", "off"), ("eager", "nhwc", "off")
FUSED, ORT = ("eager", "nhwc", "on"), ("onnxruntime", "nchw", "off")


def test_all_ways_are_held_against_the_plain_forward(tmp_path):
    folder = write_variants(tmp_path / "run", {PLAIN: 2.0, NHWC: 1.0, FUSED: 0.8, ORT: 0.5})
    (rows,) = variants(load([folder]))
    assert [(row["variant"], row["memory_format"]) for row in rows] == [
        ("eager", "nchw"), ("eager", "nhwc"), ("fused", "nhwc"), ("onnxruntime", "nchw"),
    ]  # fmt: skip
    assert rows[0]["against"] is None
    assert [round(row["against"]["ratio"], 3) for row in rows[1:]] == [0.5, 0.4, 0.25]
    assert rows[3]["compile_s"] == 4.0


@pytest.mark.parametrize(
    ("exported", "says"),
    [
        (0.5, "it does not keep up within 10%"),
        (0.78, "it keeps up within 10%"),
        (2.0, "it keeps up within 10%"),
    ],
)
def test_the_report_says_whether_torch_keeps_up(tmp_path, exported, says):
    folder = write_variants(tmp_path / "run", {PLAIN: 2.0, FUSED: 0.8, ORT: exported})
    write_report([folder], folder=tmp_path, name="r")
    text = (tmp_path / "r.md").read_text()
    (line,) = [line for line in text.splitlines() if "torch's best is" in line]
    assert "torch's best is fused in nhwc (801 ms)" in line
    assert "the best exported one is onnxruntime" in line
    assert line.endswith(f"{says}.")
    table = [line for line in text.splitlines() if line.startswith("| disc | onnxruntime")]
    assert "| its own |" in table[0]
    assert "| 4 s |" in table[0]
    assert "| 2.0e-06 |" in table[0]


def test_one_launch_decides_nothing(tmp_path):
    folder = write_variants(tmp_path / "run", {PLAIN: 2.0, FUSED: 0.8, ORT: 0.1}, launched=1)
    write_report([folder], folder=tmp_path, name="r")
    text = (tmp_path / "r.md").read_text()
    (line,) = [line for line in text.splitlines() if "torch's best is" in line]
    assert line.endswith("one launch does not decide whether it keeps up within 10%.")
    (row,) = [line for line in text.splitlines() if line.startswith("| disc | onnxruntime")]
    assert row.count("within one launch") == 2


def test_a_network_run_in_one_way_has_no_such_section(tmp_path):
    folder = write_variants(tmp_path / "run", {PLAIN: 2.0, NHWC: 1.0})
    assert variants(load([folder])) == []
    write_report([folder], folder=tmp_path, name="r")
    assert "Compilers and runtimes" not in (tmp_path / "r.md").read_text()


def test_records_of_schema_1_are_read():
    folder = ROOT / "results" / "20261123-152106-paper-cpu"
    assert "runtime" not in (folder / MEASUREMENTS).read_text().splitlines()[0]
    measured = load([folder]).measurements
    assert set(measured["runtime"]) == {"eager"}
    assert set(measured["compile"]) == {"off"}
    assert measured["compile_s"].isna().all()
    assert set(measured["energy"]) == {""}


@pytest.mark.parametrize("writer", [Markdown, Latex])
def test_a_list_without_lines_is_nothing(writer):
    """LaTeX stops at a list without items."""
    out, empty = writer(), writer()
    out.bullets([])
    assert out.text() == empty.text()
    out.bullets(["one"])
    assert "one" in out.text()
