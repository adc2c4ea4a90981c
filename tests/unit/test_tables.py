"""Tables: published figures beside measured ones, ratios, machines apart."""

from dataclasses import replace

import pandas as pd
import pytest
from records import write_run

from dabench.base.errors import UsageError
from dabench.findings.tables import find_runs, load, paper_timing, published, ratios
from dabench.report.sections import paper_table
from dabench.report.text import Markdown


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    return load([write_run(root), write_run(root, "20260203-040506-other", cpu="Other CPU")])


def test_published_figures_name_their_source():
    table = published()
    assert table["source"].notna().all()
    assert table["value"].notna().all()
    timing = table[table["protocol"] == "paper"]
    assert len(timing) == 24
    t4 = timing[(timing["machine"] == "T4") & (timing["model"] == "disc")]
    assert t4.set_index("mode")["value"].to_dict() == {"train": 2.25, "eval": 4.75}


def test_published_accuracy_keeps_both_of_the_papers_versions():
    table = published()
    miou = table[
        (table["quantity"] == "mIoU") & table["method"].fillna("").str.startswith("target: City")
    ]
    assert dict(zip(miou["table"], miou["value"], strict=True)) == {
        "Table I": 57.8,
        "Table II": 58.6,
        "repository README": 57.8,
    }


def test_machines_stand_side_by_side_and_are_never_averaged(loaded):
    timing = paper_timing(loaded.measurements, "cpu")
    ours = timing[timing["source"] == "measured"]
    assert set(ours["machine"]) == {"Test CPU, 4 cores", "Other CPU, 4 cores"}
    assert (ours.groupby(["machine", "mode", "model"]).size() == 1).all()
    disc = ours[(ours["model"] == "disc") & (ours["mode"] == "eval")]
    assert disc["seconds"].tolist() == pytest.approx([2.02, 2.02])


def test_runs_of_one_machine_are_columns_of_their_own(loaded):
    same = loaded.measurements.assign(machine="M")
    ours = paper_timing(same, "cpu").query("source == 'measured'")
    names = ("20260102-030405-test", "20260203-040506-other")
    assert set(ours["machine"]) == {f"M, run_id {name}" for name in names}


def test_a_clock_that_did_not_wait_stands_beside_when_the_work_was_done(loaded):
    # As read on an H200: by the clock the lighter network is slower, by the work it is faster.
    seconds = {"disc": (0.156, 1.55), "dw-disc": (0.282, 0.717)}
    gpu = loaded.measurements.query("protocol == 'paper' and run_id.str.contains('test')")
    gpu = gpu[gpu["model"].isin(seconds) & (gpu["mode"] == "eval")].assign(
        device="cuda", machine="GPU", batch=32, passes=50
    )
    for column, index in (("median_s", 0), ("device_median_s", 1)):
        gpu[column] = gpu["model"].map(lambda model, index=index: seconds[model][index])
    foreign = gpu[gpu["model"] == "disc"].assign(model="mine.py:Net")
    again = gpu[gpu["model"] == "disc"].assign(run_id="another", median_s=0.2)
    gpu = pd.concat([gpu, foreign, again], ignore_index=True)
    out = Markdown()
    paper_table(out, replace(loaded, measurements=gpu), "cuda")
    first = "GPU, run_id 20260102-030405-test"
    assert f"| {first} | eval | disc | 156 ms | 1.55 s |" in out.text()
    assert "| GPU | eval | dw-disc | 282 ms | 717 ms |" in out.text()
    assert f"| {first} | eval | disc / dw-disc | 0.553 | 2.16 |" in out.text()
    assert "| GPU | eval | mine.py:Net | 156 ms | 1.55 s |" in out.text()
    assert "| GPU, run_id another | eval | disc | 200 ms | 1.55 s |" in out.text()
    assert out.text().count("disc / dw-disc") == 1


def test_a_gpu_has_a_column_with_tf32_and_one_without(loaded):
    gpu = loaded.measurements.query("protocol == 'paper' and run_id.str.contains('test')").assign(
        device="cuda", machine="Test GPU", batch=32, passes=50
    )
    both = pd.concat([gpu, gpu.assign(dtype="tf32")], ignore_index=True)
    ours = paper_timing(both, "cuda").query("source == 'measured'")
    assert set(ours["machine"]) == {"Test GPU", "Test GPU, tf32"}
    assert set(paper_timing(both, "cpu")["source"]) == {"published"}


def test_runs_of_one_name_are_kept_apart(tmp_path):
    """Two machines may have written to folders of the same name."""
    pair = [write_run(tmp_path / m, "run", cpu=m) for m in ("A", "B")]
    both = load([*pair, pair[0]])
    assert [run["run_id"] for run in both.runs] == ["run", "run (2)"]
    assert set(ratios(both, ("disc", "dw-disc"))["launches"]) == {3}
    assert len(ratios(both, ("disc", "dw-disc"))) == 2 * 4


def test_settings_that_share_a_cell_are_columns_of_their_own(loaded):
    one = loaded.measurements.query("run_id.str.contains('test')")
    both = pd.concat([one, one.assign(threads=1)], ignore_index=True)
    ours = paper_timing(both, "cpu").query("source == 'measured'")
    assert set(ours["machine"]) == {f"Test CPU, 4 cores, threads {n}" for n in (1, 2)}


def test_no_gpu_column_without_a_gpu(loaded):
    timing = paper_timing(loaded.measurements, "cuda")
    assert set(timing["source"]) == {"published"}
    assert set(timing["machine"]) == {"RTX 4070", "T4", "T4 + RAM"}


def test_only_the_papers_shape_and_protocol_stand_beside_it(loaded):
    changed = loaded.measurements.assign(batch=4)
    assert set(paper_timing(changed, "cpu")["source"]) == {"published"}
    changed = loaded.measurements.assign(protocol="steady")
    assert set(paper_timing(changed, "cpu")["source"]) == {"published"}


def test_ratios_are_within_a_run_and_setting(loaded):
    table = ratios(loaded, ("disc", "dw-disc", "diag-disc"))
    assert len(table) == 2 * 2 * 2 * 3  # runs, protocols, modes, pairs
    pair = table[(table["numerator"] == "disc") & (table["denominator"] == "dw-disc")]
    assert pair["ratio"].tolist() == pytest.approx([2.0] * 8)
    assert (pair["ratio_low"] <= 2 + 1e-9).all()
    assert (pair["ratio_high"] >= 2 - 1e-9).all()
    assert set(pair["verdict"]) == {"slower"}


def test_failed_cases_stay_in_the_table(loaded):
    bad = loaded.measurements[loaded.measurements["status"] != "ok"]
    assert set(bad["model"]) == {"stdc1-bisenet"}
    assert set(bad["mode"]) == {"train"}


def test_no_runs_is_said_with_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"no runs under .*dabench sweep paper-cpu"):
        find_runs(tmp_path)


def test_names_of_others_are_no_html_in_markdown():
    out = Markdown()
    name = "net(tag='<img src=x>')"
    out.heading(name)
    out.paragraph(f"`{name}` and {name}")
    out.bullets(["`net('`<b>')", "``a ` <i>``"])
    out.table(pd.DataFrame({"model": [f"{name}|"]}), name)
    shown = "net(tag='&lt;img src=x>')"
    assert out.text() == (
        f"## {shown}\n\n`{name}` and {shown}\n\n- `net('`&lt;b>')\n- ``a ` <i>``\n\n"
        f"| model |\n| :-- |\n| {shown}\\| |\n\n*{shown}*\n"
    )
