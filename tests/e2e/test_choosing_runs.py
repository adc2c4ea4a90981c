"""A choice in real processes: killed in the middle, resumed, scored, reported."""

import json
import time
from functools import partial

import command
import pytest
from datasets import write_gta5
from trained import new_state, write_run

import dabench as api
from dabench.data.labels import CITYSCAPES
from dabench.findings.choices import choice_of
from dabench.records.choices import TIMES, scores_of


@pytest.fixture
def dabench(tmp_path):
    return partial(command.dabench, cwd=tmp_path)


def lines(path):
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_a_choice_that_was_killed_goes_on_to_the_same_end(dabench, tmp_path):
    write_run(tmp_path / "suite" / "augment-seed0", new_state(CITYSCAPES.names), "weights.pt")
    write_gta5(tmp_path / "gta5", frames=10, height=40, width=72)
    process = command.start(
        "choose", "--checkpoints", "suite/augment-seed0", "--data", "gta5", "--gta5-root", "gta5",
        "--split", "train", "--ways", "plain,nhwc+fuse,cuda-graph", "--threads", "1",
        "--deadline", "1min", "--miou", "0.1%", "--out", "run", cwd=tmp_path,
    )  # fmt: skip
    launches = tmp_path / "run" / TIMES / "launches.csv"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and len(lines(launches)) < 3:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = lines(launches)
    assert len(before) >= 3
    assert not scores_of(tmp_path / "run")
    shown = dabench("choose", "--resume", "run", "--gta5-root", "gta5", "--json")
    document = json.loads(shown.stdout)
    assert lines(launches)[: len(before)] == before
    status = {each["way"]: each["status"] for each in document["candidates"]}
    assert status == {"plain": "ok", "nhwc+fuse": "ok", "cuda-graph": "unsupported"}
    choice = choice_of(tmp_path / "run")
    assert choice.finished
    scored = [each for each in choice.candidates if each.accuracy is not None]
    # The plain way is scored whether or not it was left: others are held against it.
    assert {each.stopped for each in scored} >= {None}
    assert scored[0].accuracy.data == "gta5, train split, 8 frames"
    assert all(set(each.limits) == {"deadline", "accuracy"} for each in scored)
    assert shown.returncode == (0 if choice.chosen else 1), shown.stderr
    again = dabench("choose", "--resume", "run", "--gta5-root", "gta5", "--json")
    assert again.stdout == shown.stdout
    assert dabench("report", "run", "--name", "run", "--out", ".").returncode == 0
    assert "## Which to deploy on" in (tmp_path / "run.md").read_text()


def test_from_python_nothing_is_kept_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choice = api.choose("dw-disc", ways=["plain", "nhwc"], size="32x32", threads=1, deadline=60)
    assert choice.chosen.case.model == "dw-disc"
    assert len(choice.to_frame()) == 2
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="unexpected keyword argument 'fast'"):
        api.choose("dw-disc", fast=True)
