"""Reports from fixed records, word for word.

After a wanted change: ``DABENCH_UPDATE_GOLDEN=1 pytest tests/golden`` and read the diff.
"""

import os
from pathlib import Path

import pytest
from records import write_run
from suites import write_suite

from dabench.report import write_report

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    return [write_run(root), write_run(root, "20260203-040506-other", cpu="Other CPU")]


def compare(path, golden):
    text = path.read_text(encoding="utf-8")
    if os.environ.get("DABENCH_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("output_format", "suffix"), [("markdown", "md"), ("latex", "tex")])
def test_the_document_is_as_agreed(runs, tmp_path, output_format, suffix):
    document, table = write_report(
        runs, folder=tmp_path, name="golden", output_format=output_format
    )
    compare(document, HERE / f"golden.{suffix}")
    compare(table, HERE / "golden.csv")


def test_pictures_are_pictures_and_are_named_in_the_document(runs, tmp_path):
    document, _ = write_report(runs, folder=tmp_path, name="golden")
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4  # two machines, two families
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"]({picture.name})" in document.read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_what_latex_reads_as_commands_is_escaped(runs, tmp_path):
    document, _ = write_report(runs, folder=tmp_path, name="golden", output_format="latex")
    body = document.read_text(encoding="utf-8")
    assert r"95\% interval" in body
    assert body.count(r"\toprule") == body.count(r"\bottomrule") == body.count(r"\midrule") > 3
    assert "`" not in body


def test_training_is_reported_as_agreed(tmp_path):
    suite = write_suite(tmp_path / "results", unfinished="target-seed2")
    document, table = write_report([suite], folder=tmp_path / "reports", name="training")
    compare(document, HERE / "training.md")
    compare(table, HERE / "training.csv")
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("!["):
            picture = tmp_path / "reports" / line.rpartition("(")[2].rstrip(")")
            assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
def test_published_accuracies_stand_beside_real_data_only(tmp_path):
    real = write_suite(tmp_path / "results", "real", synthetic=False, seeds=(0,))
    drawn = write_suite(tmp_path / "results", "drawn", seeds=(0,))
    for suite, expected in ((real, True), (drawn, False)):
        document, _ = write_report([suite], folder=tmp_path, name=suite.name)
        text = document.read_text(encoding="utf-8")
        assert ("73.1 / 32.7" in text) == expected
        assert ("Synthetic data" in text) != expected


@pytest.mark.usefixtures("undrawn")
def test_timing_and_training_share_a_report(runs, tmp_path):
    suite = write_suite(tmp_path / "results", seeds=(0,))
    written = write_report([*runs, suite], folder=tmp_path, name="both")
    assert [path.name for path in written] == ["both.md", "both-training.csv", "both.csv"]
    text = written[0].read_text(encoding="utf-8")
    assert "## Accuracy: synthetic gta5" in text
    assert "CPU and TPU table" in text
