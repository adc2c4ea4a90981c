"""Accuracy per way to run a trained network."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from command import dabench
from datasets import write_gta5
from fakes import make_case
from trained import CONFIG, new_state, write_run

from dabench.base.errors import UsageError
from dabench.cli.ways import Shown
from dabench.data.domain import open_domain
from dabench.data.labels import CITYSCAPES
from dabench.data.prepare import prepare
from dabench.device.registry import open_device
from dabench.findings.certainty import Scored as Pixels
from dabench.findings.certainty import read_scored
from dabench.findings.ways import COLUMNS, kept, ways_kept
from dabench.network import checkpoint
from dabench.network.workload import Workload
from dabench.records.counts import read_counts
from dabench.records.folder import RunFolder, read_run
from dabench.records.scores import ScoreRecord, read_score_frames, read_scores
from dabench.records.timings import read_plan
from dabench.report.write import write_report
from dabench.run.scoring import Data, Scored, resume_scores
from dabench.run.worker import against_random
from dabench.scoring.metrics import official_scores
from dabench.training.evaluate import confusion_on
from dabench.training.predict import load_trained

FRAMES = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    state = new_state(CITYSCAPES.names)
    return write_run(tmp_path_factory.mktemp("suite") / "augment-seed0", state, "weights.pt")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "gta5"
    write_gta5(root, frames=FRAMES + 2, height=40, width=72)
    return Data("gta5", open_domain("gta5", root), "train")


@pytest.fixture(scope="module")
def scored(run, data, tmp_path_factory):
    """Plain, another layout, folded batch norm, and one that cannot be had."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shown = dabench(
        "eval", str(run), "--data", "gta5", "--gta5-root", str(data.domain.root),
        "--split", "train", "--dtype", "fp32", "--memory-format", "nhwc", "--fuse", "off,on",
        "--runtime", "eager,cuda-graph", "--batch", "3", "--times", "--out", str(folder),
        cwd=folder.parent,
    )  # fmt: skip
    plan = read_plan(folder, read_run(folder))
    return folder, [planned.case for planned in plan], read_scores(folder), shown


def test_ways_are_scored_and_what_cannot_be_had_says_why(scored, data):
    folder, cases, rows, shown = scored
    assert shown.returncode == 0, shown.stderr
    assert [row.status for row in rows] == ["ok", "ok", "unsupported", "ok", "unsupported"]
    assert "cuda-graph runs on cuda, not on cpu" in rows[2].reason
    assert (rows[0].frames, rows[0].difference) == (FRAMES, None)
    assert 0 < rows[3].difference < 1e-3
    for row in rows:
        assert (row.real is None) == (row.status != "ok")
        assert row.real is None or row.real.low < row.real.estimate < row.real.high
    document = read_run(folder)
    assert document["data"]["digest"] == prepare(data.domain.frames("train"), (32, 64)).digest
    assert document["before"].endswith(", normalised")
    assert document["networks"].keys() == {cases[0].model}
    words = " ".join(shown.stdout.split())
    assert "eager fp32 nchw" in words
    assert "fused fp32 nhwc" in words
    assert "keeps 99.9%" in words
    assert "real / random" in words
    assert "scoring fused, fp32, nhwc, batch 3" in shown.stderr


@pytest.mark.parametrize("memory_format", ["nchw", "nhwc"])
@pytest.mark.parametrize("images", [3, 2])
def test_real_and_random_input_lie_alike_and_as_the_pass_takes_them(memory_format, images):
    """Else what changes the layout is timed with the one and not with the other."""
    case = make_case(
        model="stdc1-bisenet", channels=3, height=32, width=64, batch=3, memory_format=memory_format
    )
    device = open_device("cpu")
    load = Workload(case, device, seed=0)
    taken = []

    def call(x):
        taken.append(x)
        return x

    load.call = call
    # As images come out of their file: (N, H, W, 3).
    pixels = torch.randint(255, (images, 32, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    found = against_random(load, pixels, device, {"normalised": True, "seed": 0})
    assert found["real_low"] <= found["real_ratio"] <= found["real_high"]
    assert {x.stride() for x in taken} == {load.x.stride()}
    # Two inputs, each made once and never again within a pass.
    assert len({x.data_ptr() for x in taken}) == 2


def test_the_plain_network_scores_as_its_training_scored_it(scored, run, data):
    _, cases, rows, _ = scored
    trained = load_trained(run, "cpu")
    frames = prepare(data.domain.frames("train"), (CONFIG.height, CONFIG.width))
    layouts = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    for case, row in zip(cases[:2], rows[:2], strict=True):
        layout = layouts[case.memory_format]
        network = trained.network.to(memory_format=layout)
        matrix = confusion_on(
            network, frames, classes=19, device=torch.device("cpu"), normalised=True, batch=3
        )
        expected = official_scores(matrix.counts)
        assert row.miou == pytest.approx(expected.miou, abs=1e-9)
        assert row.accuracy == pytest.approx(expected.accuracy, abs=1e-9)


def test_frames_of_each_way_add_up_to_its_score(scored):
    folder, _, scores, _ = scored
    frames = read_score_frames(folder)
    assert frames.keys() == {0, 1, 3}
    for way, rows in frames.items():
        hit, truth = (sum(getattr(row, name) for row in rows) for name in ("hit", "truth"))
        assert hit / truth == pytest.approx(scores[way].accuracy)
    shares = ways_kept(folder, read_run(folder), scores, 0.999)
    verdicts = [share and share.verdict for share in shares]
    assert verdicts == ["plain", "kept", None, "kept", None]


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_killed_between_frames_and_row_is_reported(scored, tmp_path):
    folder, *_ = scored
    for ways in (0, 1, 3):
        here = cut(folder, tmp_path / f"cut{ways}", ways)
        document, table = write_report([here], folder=tmp_path, name="cut")
        assert len(pd.read_csv(table)) == ways
        assert "| eager | fp32 |" in document.read_text(encoding="utf-8") or not ways


@pytest.mark.usefixtures("undrawn")
def test_without_the_plain_network_nothing_is_said_of_others(scored, tmp_path, capsys):
    folder, cases, rows, _ = scored
    here = tmp_path / "run"
    shutil.copytree(folder, here)
    failed = replace(rows[0], status="oom", reason="out of memory", miou=None, accuracy=None)
    (here / "scores.csv").unlink()
    with RunFolder.open(here) as opened:
        record = ScoreRecord(opened)
        for way, (case, row) in enumerate(zip(cases, [failed, *rows[1:]], strict=True)):
            record.add(way, case, row)
    found = Scored(read_plan(here, read_run(here)), [failed, *rows[1:]], {})
    Shown(0.999, quiet=True, json=False).show(here, found)
    shown = " ".join(capsys.readouterr().out.split())
    assert "eager fp32 nchw oom" in shown
    assert "unknown" in shown
    assert "plain - -" not in shown
    Shown(0.999, quiet=True, json=True).show(here, found)
    ways = json.loads(capsys.readouterr().out)["ways"]
    assert [(way["verdict"], way["kept"]) for way in ways] == [("unknown", None)] * 5
    document, _ = write_report([here], folder=tmp_path, name="failed")
    text = document.read_text(encoding="utf-8")
    assert f"{FRAMES} frames of the train split" in text
    assert "| unknown | - |" in text


def test_what_varies_is_in_the_table(scored, capsys):
    folder, cases, rows, _ = scored
    plan = read_plan(folder, read_run(folder))
    plan[1] = replace(plan[1], case=replace(cases[1], batch=7, threads=2))
    Shown(0.999, quiet=True, json=False).show(folder, Scored(plan, rows, {}))
    shown = " ".join(capsys.readouterr().out.split())
    assert "variant dtype layout threads batch mIoU" in shown
    assert "eager fp32 nhwc 2 7 " in shown


def test_the_graph_is_counted_whatever_the_weights(scored, run, tmp_path):
    folder, *_ = scored
    (count,) = read_counts(folder)
    assert len(count["graph"]) == 16
    assert count["height"] == CONFIG.height


def test_a_report_of_ways(scored, tmp_path):
    folder, *_ = scored
    document, table = write_report([folder], folder=tmp_path, name="ways")
    text = document.read_text(encoding="utf-8")
    assert "## Accuracy per way to run: gta5" in text
    assert "| eager | fp32 | nchw |" in text
    assert "| fused | fp32 | nhwc |" in text
    assert "cuda-graph runs on cuda, not on cpu" in text
    assert "To be kept: 99.9% of the plain network's mIoU" in text
    assert "`real / random`: time of a pass on the frames over that on random input" in text
    rows = pd.read_csv(table)
    assert tuple(rows.columns) == COLUMNS
    assert list(rows["verdict"]) == ["plain", "kept", "unknown", "kept", "unknown"]
    assert set(rows["graph"]) == {read_counts(folder)[0]["graph"]}


def cut(folder, to, ways):
    """A run that was cut off after some ways, within the line of the next."""
    shutil.copytree(folder, to)
    lines = (to / "scores.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(lines[: 1 + ways]) + lines[1 + ways][:20]
    (to / "scores.csv").write_text(text, encoding="utf-8")
    return to


def untimed(rows):
    """Scores are the same again, times are not."""
    return [replace(row, real_ratio=None, real_low=None, real_high=None) for row in rows]


def test_a_run_that_was_cut_off_goes_on(scored, data, tmp_path):
    folder, _, rows, _ = scored
    told = []
    here = cut(folder, tmp_path / "cut", 3)
    (here / "counts.json").unlink()
    again = resume_scores(here, data, told=told.append)
    assert read_counts(here)[0]["graph"] == read_counts(folder)[0]["graph"]
    assert [case.fuse for case in told] == ["on"]
    assert untimed(again.rows) == untimed(rows)
    assert again.rows[:3] == rows[:3]
    assert read_scores(tmp_path / "cut") == again.rows
    assert read_score_frames(tmp_path / "cut") == read_score_frames(folder)


def test_other_frames_or_weights_do_not_go_on(scored, run, data, tmp_path):
    folder, *_ = scored
    here = cut(folder, tmp_path / "cut", 1)
    fewer = {**data.domain.splits, "train": data.domain.splits["train"][1:]}
    other = replace(data, domain=replace(data.domain, splits=fewer))
    with pytest.raises(UsageError, match="--resume: the frames are not those of the run"):
        resume_scores(here, other, told=print)
    kept_weights = (run / "weights.pt").read_bytes()
    checkpoint.write(run / "weights.pt", {**new_state(CITYSCAPES.names), "more": 1})
    with pytest.raises(UsageError, match=r"has changed since .* was begun"):
        resume_scores(here, data, told=print)
    (run / "weights.pt").write_bytes(kept_weights)


def pixels(right):
    """Frames of two classes, of whose 10,000 pixels each such a share is right."""
    hit = np.array([[share * 10_000, share * 10_000] for share in right])
    union = 20_000 - hit
    return Pixels(tuple(map(str, range(len(hit)))), hit, union)


def test_what_is_kept_lost_or_undecided():
    steady = pixels(np.full(64, 0.9))
    assert kept(steady, steady, 1.0, "official").verdict == "kept"
    assert kept(pixels(np.full(64, 0.8999)), steady, 0.999, "official").verdict == "kept"
    lost = kept(pixels(np.full(64, 0.8)), steady, 0.999, "official")
    assert lost.verdict == "lost"
    assert lost.share.estimate == pytest.approx((0.8 / 1.2) / (0.9 / 1.1))
    scattered = pixels(0.8995 + 0.01 * np.random.default_rng(0).standard_normal(64))
    assert kept(scattered, steady, 0.999, "official").verdict == "undecided"
    few = pixels(np.full(7, 0.5)), pixels(np.full(7, 0.9))
    assert kept(*few, 0.999, "official").verdict == "undecided"
    assert kept(steady, pixels(np.zeros(64)), 0.999, "official") is None


@pytest.mark.usefixtures("undrawn")
def test_scores_of_earlier_versions_are_read(scored, tmp_path):
    folder, _, rows, _ = scored
    shutil.copytree(folder, tmp_path / "run")
    table = tmp_path / "run" / "scores.csv"
    frame = pd.read_csv(table)
    since = ["real_ratio", "real_low", "real_high", "calibration", "keep_float"]
    frame.drop(columns=since).to_csv(table, index=False)
    older = read_scores(tmp_path / "run")
    assert [(row.miou, row.real) for row in older] == [(row.miou, None) for row in rows]
    document, _ = write_report([tmp_path / "run"], folder=tmp_path, name="older")
    assert "real / random" not in document.read_text(encoding="utf-8")


def test_a_training_without_frames_says_nothing(tmp_path):
    assert read_scored(tmp_path, 2) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN",), "--data: needed"),
        (("--data", "gta5"), "CHECKPOINT: needed"),
        (
            ("RUN", "--data", "gta5", "--keep", "120%"),
            "--keep: '120%' is not allowed; it takes a p",
        ),
        (("RUN", "--data", "gta5", "--dtype", "int3"), "--dtype: 'int3' is not allowed"),
        (
            ("gone", "--data", "gta5", "--dtype", "fp32"),
            "gone holds no weights of a training",
        ),
        (("RUN", "--data", "camvid", "--dtype", "fp32", "--camvid-root", "ROOT"), "camvid"),
        (("--resume", "RUN"), "holds a run of kind 'train', not eval"),
        (
            ("RUN", "--data", "gta5", "--keep", "99%"),
            "--keep: it is of ways to run a network; na",
        ),
        (("RUN", "--data", "gta5", "--times"), "--times: it is of ways to run a network; name"),
        (("RUN", "--data", "gta5", "--out", "x"), "--out: it is of ways to run a network; name"),
        (("--resume", "RUN", "--device", "cuda"), "leave out '--device'"),
        (
            ("--resume", "RUN", "--dtype", "fp32"),
            "goes on as planned; leave out '--dtype'",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, run, tmp_path):
    named = {"RUN": str(run), "ROOT": str(tmp_path)}
    shown = dabench("eval", *(named.get(each, each) for each in arguments), cwd=tmp_path)
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 1
    assert message in shown.stderr
