"""Runs that are kept, as it is typed: lists, labels, pruning, merging, history, other formats."""

import json
import shutil

import pytest
from command import dabench
from fakes import make_case
from records import ENVIRONMENT, write_medians

CASE = make_case()
QUIET = (1.0, 1.004, 0.996)


@pytest.fixture
def runs(tmp_path):
    for day in range(1, 13):
        level = 1.0 if day < 9 else 1.1
        write_medians(
            tmp_path / "results" / f"day{day:02d}",
            {CASE: [level * each for each in QUIET]},
            created=f"2026-01-{day:02d}T00:00:00+00:00",
        )
    return tmp_path


def test_runs_are_listed_shown_and_labelled(runs):
    done = dabench("tag", "results/day01", "release", "v1", cwd=runs)
    assert (done.returncode, done.stdout) == (0, "results/day01: release, v1\n")
    assert dabench("note", "results/day01", "fans cleaned", cwd=runs).returncode == 0
    listed = dabench("ls", "--tag", "release", cwd=runs).stdout
    assert "results/day01" in listed
    assert "day02" not in listed
    assert "fans cleaned" in listed
    shown = dabench("show", "results/day01", cwd=runs).stdout
    for words in ("Test CPU, 4 cores", "test-cpu-", "release, v1", "fans cleaned", "1.01 s"):
        assert words in shown
    document = json.loads(dabench("show", "results/day01", "--json", cwd=runs).stdout)
    assert document["tags"] == ["release", "v1"]
    assert document["measurements"][0]["median_s"] == 1.0
    assert dabench("tag", "results/day01", "v1", "--remove", cwd=runs).stdout.endswith("release\n")
    everything = json.loads(dabench("ls", "--json", cwd=runs).stdout)
    assert [run["run"] for run in everything["runs"]][:2] == ["results/day01", "results/day02"]
    assert json.loads(dabench("ls", "--kind", "train", "--json", cwd=runs).stdout)["runs"] == []


def test_a_damaged_run_is_told_and_hides_no_other(runs):
    (runs / "results" / "day02" / "run.json").write_text("{")
    done = dabench("ls", cwd=runs)
    assert "day03" in done.stdout
    assert "day02 cannot be read" in done.stderr
    document = json.loads(dabench("ls", "--json", cwd=runs).stdout)
    assert list(document["unreadable"]) == ["results/day02"]


def test_pruning_asks_and_keeps_what_is_tagged(runs):
    dabench("tag", "results/day01", "release", cwd=runs)
    asked = dabench("prune", "--keep", "2", cwd=runs)
    assert asked.returncode == 2
    assert "without a terminal say --yes" in asked.stderr
    assert len(list((runs / "results").iterdir())) == 12
    done = dabench("prune", "--keep", "2", "--yes", cwd=runs)
    assert "kept, since it is tagged: results/day01" in done.stdout
    left = sorted(path.name for path in (runs / "results").iterdir())
    assert left == ["day01", "day11", "day12"]
    done = dabench("prune", "--older-than", "12h", "--yes", cwd=runs)
    assert sorted(path.name for path in (runs / "results").iterdir()) == ["day01"]
    assert "Nothing to delete" in dabench("prune", "--keep", "0", "--yes", cwd=runs).stdout


def test_a_history_shows_its_steps(runs):
    done = dabench("history", "--case", "dw-disc", cwd=runs)
    assert "slower, x 1.100" in done.stdout
    assert done.stdout.count("2026-01-") == 12
    document = json.loads(dabench("history", "--json", cwd=runs).stdout)
    (history,) = document["histories"]
    assert [point["created"][:10] for point in history["points"] if point["step"]] == ["2026-01-09"]
    for cpu in ("B", "C", "D"):
        write_medians(
            runs / "results" / cpu, {CASE: QUIET}, environment={**ENVIRONMENT, "cpu": cpu}
        )
    summary = dabench("history", cwd=runs).stdout
    assert "slower, x 1.100 on 2026-01-09" in summary
    assert dabench("history", "--delta", "20%", cwd=runs).stdout.count("slower") == 0


def test_runs_go_out_and_come_in(runs):
    done = dabench("export", "results/day01", "--format", "json", cwd=runs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "day01.json\n", "")
    assert dabench("import", "day01.json", "--into", "in", cwd=runs).stdout == "in/day01\n"
    lossy = dabench("export", "results/day01", "--format", "csv", "--out", "a.csv", cwd=runs)
    assert "dabench: csv leaves out operation counts, tags and notes" in lossy.stderr
    bundle = shutil.make_archive(str(runs / "bundle"), "gztar", runs / "in")
    merged = dabench("merge", bundle, "--into", "all", cwd=runs)
    assert merged.stdout == "all/day01\n1 new, 0 known already\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ls", "none"), "none is not a folder"),
        (("ls", "--kind", "x"), "--kind: 'x' is not allowed; choices: timing"),
        (("show", "none"), "none holds no run"),
        (("tag", "none", "a"), "none holds no run"),
        (("tag", "results/day01", "a b"), "tag: 'a b' is not allowed"),
        (("note", "none", "a"), "none holds no run"),
        (("prune",), "prune needs --older-than or --keep"),
        (("prune", "--keep", "x"), "--keep: 'x' is not allowed"),
        (("prune", "--older-than", "x"), "--older-than: 'x' is not allowed"),
        (("merge", "none"), "none is neither a folder nor an archive"),
        (("history", "none"), "none is not a folder"),
        (("history", "--case", "zzz"), "--case: 'zzz' was never measured"),
        (("history", "--delta", "x"), "--delta: 'x' is not allowed"),
        (("export", "results/day01", "--format", "x"), "--format: 'x' is not allowed"),
        (("export", "none", "--format", "csv"), "none holds no run"),
        (("import", "none"), "none is not a file"),
    ],
)
def test_bad_input_is_one_line(runs, words, message):
    done = dabench(*words, cwd=runs)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dabench: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
