"""Runs that are kept: lists, labels, what may go, what comes from elsewhere."""

import json
import shutil
import tarfile
from datetime import UTC, datetime

import pytest
from fakes import make_case
from records import ENVIRONMENT, write_medians

from dabench.base.errors import ResultsError, UsageError
from dabench.device.machine import machine_key
from dabench.findings.history import histories
from dabench.records.catalog import (
    catalogue,
    label,
    prunable,
    read_entry,
    read_labels,
    remove_run,
    run_folders,
)
from dabench.records.folder import RunFolder
from dabench.records.merging import PROVENANCE, merge

CASE = make_case()
QUIET = (1.0, 1.004, 0.996)


def write(folder, level=1.0, day=1, **details):
    """A run of one case on a day of January; without a writer when this returns."""
    created = f"2026-01-{day:02d}T00:00:00+00:00"
    medians = {CASE: [level * each for each in QUIET]}
    return write_medians(folder, medians, created=created, **details)


def test_the_oldest_run_comes_first_and_what_is_damaged_is_told(tmp_path):
    write(tmp_path / "a", day=2)
    write(tmp_path / "deep" / "b", day=1)
    write(tmp_path / "a" / "within", day=3)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    entries, unreadable = catalogue([tmp_path])
    assert [entry.path.name for entry in entries] == ["b", "a"]
    assert [path.name for path, _ in unreadable] == ["bad"]
    assert "line 1: not JSON" in unreadable[0][1]
    write(tmp_path / ".merge-x" / "half", day=4)
    names = [path.name for path in run_folders(tmp_path, nested=True)]
    assert sorted(names) == ["a", "b", "bad", "within"]
    with pytest.raises(UsageError, match="none is not a folder"):
        catalogue([tmp_path / "none"])


def test_a_machine_is_itself_whatever_its_load_clock_and_software():
    changes = {
        "load_1min": 9.0, "memory_available_bytes": 1, "governor": "powersave", "torch": "3.0",
        "python": "3.13", "os": "Linux 7", "commit": "else", "cpu_mhz": 800.0,
    }  # fmt: skip
    assert machine_key({**ENVIRONMENT, **changes}) == machine_key(ENVIRONMENT)
    assert machine_key(ENVIRONMENT).startswith("test-cpu-")
    for other in ({"cpu": "Else"}, {"logical_cores": 8}, {"gpus": ["NVIDIA H100"]}):
        assert machine_key({**ENVIRONMENT, **other}) != machine_key(ENVIRONMENT)


def test_labels_lie_beside_the_records(tmp_path):
    run = write(tmp_path / "a")
    records = {path.name: path.read_bytes() for path in run.iterdir()}
    label(run, add=["release", "v1-2"], note="fans cleaned")
    label(run, add=["release"], remove=["v1-2"], note="again")
    labels = read_labels(run)
    assert labels.tags == ("release",)
    assert [note.text for note in labels.notes] == ["fans cleaned", "again"]
    assert {name: (run / name).read_bytes() for name in records} == records
    assert read_entry(run).labels == labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add": ["two words"]}, "tag: 'two words' is not allowed"),
        ({"add": [""]}, "tag: '' is not allowed"),
        ({"remove": ["none"]}, "--remove: 'none' is not allowed; .* has no tags"),
    ],
)
def test_a_tag_that_is_none_is_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        label(write(tmp_path / "a"), **change)


def test_damaged_labels_are_named(tmp_path):
    run = write(tmp_path / "a")
    (run / "labels.json").write_text("[]")
    with pytest.raises(ResultsError, match=r"labels\.json"):
        read_labels(run)


def test_what_is_tagged_stays(tmp_path):
    for day in (1, 2, 3, 4):
        write(tmp_path / f"day{day}", day=day)
    label(tmp_path / "day1", add=["release"])
    write(tmp_path / "day2" / "within")
    label(tmp_path / "day2" / "within", add=["release"])
    entries, _ = catalogue([tmp_path])

    def names(before=None, keep=None):
        chosen, tagged = prunable(entries, before=before, keep=keep)
        return [e.path.name for e in chosen], [e.path.name for e in tagged]

    assert names(before=datetime(2026, 1, 3, 12, tzinfo=UTC)) == (["day3"], ["day1", "day2"])
    assert names(keep=1) == (["day3"], ["day1", "day2"])
    assert names(keep=0) == (["day3", "day4"], ["day1", "day2"])
    assert names(before=datetime(2025, 1, 1, tzinfo=UTC)) == ([], [])
    assert names(keep=9) == ([], [])


def test_a_run_that_is_being_written_is_not_deleted(tmp_path):
    run = write(tmp_path / "a")
    with RunFolder.open(run), pytest.raises(UsageError, match="being written"):
        remove_run(run)
    assert (run / "run.json").exists()
    remove_run(run)
    assert not run.exists()


def test_runs_of_another_machine_are_brought_in_once(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "laptop" / name)
    label(tmp_path / "laptop" / "a", add=["release"])
    bundle = tmp_path / "laptop.tar.gz"
    with tarfile.open(bundle, "w:gz") as archive:
        archive.add(tmp_path / "laptop", arcname="results")
    here = tmp_path / "here"
    assert merge([bundle], here).new == ["a", "b"]
    assert read_labels(here / "a").tags == ("release",)
    (entry,) = json.loads((here / "a" / PROVENANCE).read_text())
    assert (entry["bundle"], len(entry["sha256"])) == ("laptop.tar.gz", 64)
    label(here / "a", add=["seen"])
    again = merge([bundle, tmp_path / "laptop", tmp_path / "laptop" / "a"], here)
    assert (again.new, again.known) == ([], ["a", "b"])
    assert read_labels(here / "a").tags == ("release", "seen")
    there = tmp_path / "there"
    assert merge([here], there).new == ["a", "b"]
    assert [e["bundle"] for e in json.loads((there / "a" / PROVENANCE).read_text())] == [
        "laptop.tar.gz",
        "here",
    ]


@pytest.mark.parametrize("kind", ["zip", "tar", "xztar"])
def test_archives_of_all_kinds_are_read(tmp_path, kind):
    write(tmp_path / "laptop" / "a")
    bundle = shutil.make_archive(str(tmp_path / "bundle"), kind, tmp_path / "laptop")
    assert merge([tmp_path / bundle], tmp_path / "here").new == ["a"]


def test_what_contradicts_a_run_is_refused_whole(tmp_path):
    write(tmp_path / "here" / "b")
    write(tmp_path / "laptop" / "a")
    write(tmp_path / "laptop" / "b", level=2.0)
    with pytest.raises(UsageError, match=r"run b contradicts .*samples\.csv differs; nothing was"):
        merge([tmp_path / "laptop"], tmp_path / "here")
    assert not (tmp_path / "here" / "a").exists()
    write(tmp_path / "server" / "a", level=3.0)
    with pytest.raises(UsageError, match="run a contradicts"):
        merge([tmp_path / "laptop", tmp_path / "server"], tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_bundles_that_are_none_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.tar.gz").write_bytes(b"\x1f\x8b\x08no")
    (tmp_path / "torn.zip").write_bytes(b"no")
    for name, message in {
        "empty": "holds no run",
        "none": "neither a folder nor an archive",
        "torn.tar.gz": "cannot be unpacked",
        "torn.zip": "cannot be unpacked",
    }.items():
        with pytest.raises(UsageError, match=message):
            merge([tmp_path / name], tmp_path / "here")
    damaged = write(tmp_path / "laptop" / "a")
    (damaged / "samples.csv").write_text("no\n1\n")
    with pytest.raises(ResultsError, match=r"samples\.csv line 1"):
        merge([tmp_path / "laptop"], tmp_path / "here")


def test_an_archive_cannot_write_beside_its_folder(tmp_path):
    write(tmp_path / "a")
    bundle = tmp_path / "evil.tar"
    with tarfile.open(bundle, "w") as archive:
        archive.add(tmp_path / "a", arcname="../../outside")
    with pytest.raises(UsageError, match="cannot be unpacked"):
        merge([bundle], tmp_path / "here")


def test_a_history_is_of_one_case_on_one_machine(tmp_path):
    for day in range(1, 15):
        software = {**ENVIRONMENT, "torch": "2.15.0" if day < 9 else "2.16.0"}
        level = 1.0 if day < 9 else 1.1
        write(tmp_path / f"day{day}", level=level * (1 + 0.002 * (day % 3)), day=day,
              environment=software)  # fmt: skip
    write(tmp_path / "else", level=9.0, day=20, environment={**ENVIRONMENT, "cpu": "Other"})
    (mine, other), unreadable = histories([tmp_path])
    assert unreadable == []
    assert (len(mine.points), len(other.points)) == (14, 1)
    assert mine.machine.startswith("test-cpu")
    (step,) = mine.steps
    assert step.created.startswith("2026-01-09")
    assert step.step.ratio == pytest.approx(1.1, rel=0.01)
    assert step.changed == 'torch "2.15.0" and "2.16.0"'
    assert [p.changed for p in mine.points if p is not step] == [""] * 13
    assert step.to_dict()["commit"] == "abc"
    assert histories([tmp_path], delta=0.2)[0][0].steps == []
    assert histories([tmp_path], case="dw-disc/cpu")[0][0].points == mine.points
    assert histories([tmp_path], case="dw*b2")[0][0].points == mine.points
    with pytest.raises(UsageError, match="--case: 'nothing' was never measured; there are: dw-"):
        histories([tmp_path], case="nothing")


def test_the_commit_is_the_networks_own_where_it_has_one(tmp_path):
    case = make_case(model="nets.py:build")
    networks = {"nets.py:build": {"sha256": "0", "commit": "1234"}}
    write_medians(tmp_path / "a", {case: QUIET}, networks=networks)
    write_medians(tmp_path / "b", {case: QUIET}, repository={"commit": "5678"})
    ((history,), _) = histories([tmp_path])
    assert sorted(point.commit for point in history.points) == ["1234", "5678"]


def test_folders_without_timings_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no timings below"):
        histories([tmp_path])


def test_a_damaged_run_hides_no_history_and_a_copy_counts_once(tmp_path):
    write(tmp_path / "a", day=1)
    merge([tmp_path / "a"], tmp_path / "copies")
    write(tmp_path / "b", day=2)
    (write(tmp_path / "c", day=3) / "launches.csv").write_text("no\n1\n")
    (history,), unreadable = histories([tmp_path])
    assert len(history.points) == 2
    assert [path.name for path, _ in unreadable] == ["c"]


def test_what_is_no_record_is_not_deleted(tmp_path):
    run = write(tmp_path / "project")
    (run / "src").mkdir()
    (run / "src" / "code.py").write_text("")
    with pytest.raises(UsageError, match=r"holds more than a run: .*code\.py"):
        remove_run(run)
    shutil.rmtree(run / "src")
    write(run / "other")
    with pytest.raises(UsageError, match="holds more than a run"):
        remove_run(run)
    assert (run / "other" / "run.json").exists()


def test_an_archive_that_is_cut_off_is_refused(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "laptop" / name)
    whole = shutil.make_archive(str(tmp_path / "whole"), "tar", tmp_path / "laptop")
    with tarfile.open(whole) as archive:
        member = archive.getmembers()[-3]
    content = (tmp_path / whole).read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: member.offset])
    header = bytearray(content)
    header[member.offset : member.offset + 512] = b"x" * 512
    (tmp_path / "header.tar").write_bytes(header)
    for kind in ("gztar", "xztar", "zip"):
        made = shutil.make_archive(str(tmp_path / "flipped"), kind, tmp_path / "laptop")
        flipped = bytearray((tmp_path / made).read_bytes())
        for place in range(len(flipped) // 3, len(flipped) // 3 + 60):
            flipped[place] ^= 0xFF
        (tmp_path / made).write_bytes(flipped)
    bundles = ["cut.tar", "header.tar", "flipped.tar.gz", "flipped.tar.xz", "flipped.zip"]
    for bundle in bundles:
        with pytest.raises(UsageError, match="cannot be unpacked"):
            merge([tmp_path / bundle], tmp_path / "here")
    assert not (tmp_path / "here").exists()
    assert merge([tmp_path / whole], tmp_path / "here").new == ["a", "b", "c"]


def test_half_a_run_is_not_taken_for_whole(tmp_path):
    run = write(tmp_path / "a")
    lines = (run / "launches.csv").read_text().splitlines(keepends=True)
    (run / "summary.json").write_text('{"launches": 3}')
    (run / "launches.csv").write_text("".join(lines[:2]))
    with pytest.raises(ResultsError, match="is not whole: 1 of 3 launches are there"):
        merge([run], tmp_path / "here")


def test_a_run_keeps_its_name_and_gets_its_machines_where_that_is_taken(tmp_path):
    write(tmp_path / "demo")
    with tarfile.open(tmp_path / "bundle.tar", "w") as archive:
        archive.add(tmp_path / "demo", arcname=".")
    assert merge([tmp_path / "bundle.tar"], tmp_path / "here").new == ["demo"]
    write(tmp_path / "else" / "demo", level=2.0, environment={**ENVIRONMENT, "cpu": "Other"})
    (name,) = merge([tmp_path / "else"], tmp_path / "here").new
    assert name.startswith("demo-other-")
    (tmp_path / "demo" / "notes.md").write_text("mine")
    assert merge([tmp_path / "demo", tmp_path / "else"], tmp_path / "here").new == []
