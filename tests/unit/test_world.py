"""Processes that train together: two real ones, and what each is told."""

import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import ranks
import torch
import torch.distributed as dist
import typer
from fakes import FakeClock
from processes import free_port
from torch import nn

from dabench.base.errors import DiedError, UsageError
from dabench.base.started import FOLDER, Started
from dabench.cli.processes import ProcessError, command_of, cut_off, processes_asked, said_once
from dabench.data.loader import SeededBatches
from dabench.training import world
from dabench.training.config import TrainConfig
from dabench.training.learners import segmenter_of
from dabench.training.methods.build import parts_of
from dabench.training.norms import FrozenNorm, norms_of, set_norms
from dabench.training.step import Trainer
from dabench.training.stopwatch import Stopwatch
from dabench.training.world import ALONE, World, agreed
from dabench_models import build


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    told = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, ranks.__file__, folder],
            env={**os.environ, **told, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [err for _, err in ended]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("norm", ["sync", "frozen"])
def test_two_processes_with_half_the_batch_reach_the_weights_of_one(both, norm):
    for found in both:
        assert set(found[norm]) == {"segmenter", "discriminator"}
        assert max(found[norm].values()) < 1e-5


def test_without_averages_they_drift_apart(both):
    assert all(min(found["apart"].values()) > 1e-5 for found in both)


def test_hard_pixels_are_those_of_the_whole_batch(both):
    assert all(found["ohem"] < 1e-12 for found in both)


def test_each_evaluates_its_share_and_all_have_the_whole(both):
    assert all(found["evaluated"] for found in both)


def test_what_the_first_does_for_all(both):
    assert [found["shared"] for found in both] == [{"rank": 0}] * 2
    assert [found["refused"] for found in both] == ["no such folder", "process 0 could not go on"]
    assert [found["bytes"] for found in both] == [0, 0]


def test_numbers_and_statistics_are_means_and_the_clock_is_the_firsts(both):
    assert [found["means"] for found in both] == [{"a": 0.5, "b": 3.0}] * 2
    assert [found["buffer"] for found in both] == [0.5, 0.5]
    assert both[0]["clock"] == both[1]["clock"]


def test_one_process_does_it_all():
    values = torch.ones(3)
    assert ALONE.first
    assert ALONE.total(values) is ALONE.mean(values) is ALONE.gathered(values)[0] is values
    assert (ALONE.threads, ALONE.device("cuda"), ALONE.part(7)) == (0, "cuda", slice(0, 7))


def test_shares_are_whole_and_in_order():
    parts = [World(rank, 3).part(7) for rank in range(3)]
    assert [list(range(7))[part] for part in parts] == [[0, 1], [2, 3], [4, 5, 6]]
    assert World(5, 8, local_rank=1, local_size=4).device("cuda") == "cuda:1"
    assert World(5, 8, local_rank=1, local_size=4).device("cpu") == "cpu"


def test_on_gpus_batch_norm_is_synchronised_by_torch():
    network = build("stdc1-bisenet", num_classes=3)
    before = list(network.parameters())
    names = list(network.state_dict())
    changed = set_norms(network, "sync", torch.device("cuda"), World(0, 2))
    assert {type(norm) for norm in norms_of(changed)} == {nn.SyncBatchNorm}
    assert all(a is b for a, b in zip(before, changed.parameters(), strict=True))
    assert list(changed.state_dict()) == names


def test_frozen_statistics_stay_and_normalise():
    norm = nn.Sequential(nn.BatchNorm2d(2))
    norm[0].running_mean.fill_(3.0)
    set_norms(norm, "frozen", torch.device("cpu"), ALONE)
    assert type(norm[0]) is FrozenNorm
    found = norm.train()(torch.full((2, 2, 1, 1), 5.0))
    assert found.flatten().tolist() == pytest.approx([2.0 / math.sqrt(1 + 1e-5)] * 4)
    assert norm[0].running_mean.tolist() == [3.0, 3.0]
    assert norm[0].num_batches_tracked == 0


def config(**changes):
    return TrainConfig(**{"pair": "", "method": "adversarial", "steps": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 4, "processes": 3}, "--batch: '4' is not allowed; it must be a multiple of 3"),
        ({"batch": 2, "processes": 2}, "at least 4 for 2 processes"),
        ({"processes": 0}, "--nproc: '0' is not allowed"),
        ({"batch": 4, "processes": 2, "device": "cuda:1"}, "--device: 'cuda:1' is not allowed"),
        ({"batch": 4, "processes": 2, "device": "mps"}, "several processes take auto, cpu or cuda"),
        ({"batch_norm": "none"}, "--batch-norm: 'none' is not allowed; choices: local, sync"),
        ({"batch_norm": "frozen", "method": "adabn"}, "'adabn' is about statistics that change"),
    ],
)
def test_what_cannot_be_shared_is_one_line(changes, words):
    with pytest.raises(UsageError, match=words):
        config(**changes)


def test_what_can_be_shared():
    assert config(batch=2, processes=2, batch_norm="sync").processes == 2
    assert config(batch=2, processes=2, batch_norm="frozen").processes == 2


TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "head", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip


def test_a_process_reads_what_it_is_told():
    assert Started.of({}) == Started.of({"RANK": "1", "LOCAL_RANK": "1"}) == Started()
    started = Started.of(TORCHRUN)
    assert replace(started, job=None) == Started(rank=5, size=8, local_rank=1, local_size=4)
    # Whoever started it, not what torchrun calls the job: that may be the same tomorrow.
    assert str(os.getppid()) in started.job.split()
    assert Started.of({**TORCHRUN, FOLDER: "here"}).folder == Path("here")
    with pytest.raises(UsageError, match="WORLD_SIZE: 'x' is not a number"):
        Started.of({**TORCHRUN, "WORLD_SIZE": "x"})
    with pytest.raises(UsageError, match="LOCAL_RANK is missing in the environment"):
        Started.of({name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"})


def test_the_command_says_how_it_began(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "train", "gta2city"])
    assert command_of(Started()) == "dabench train gta2city"
    of_torchrun = "torchrun --nnodes 2 --nproc-per-node 4 -m dabench train gta2city"
    assert command_of(Started.of(TORCHRUN)) == of_torchrun
    assert command_of(Started.of({**TORCHRUN, FOLDER: "x"})) == "dabench train gta2city"


def test_torchrun_says_how_many():
    started = Started.of(TORCHRUN)
    assert [processes_asked(None, started), processes_asked(8, started)] == [8, 8]
    assert [processes_asked(None, Started()), processes_asked(3, Started())] == [1, 3]
    with pytest.raises(UsageError, match="--nproc: '2' is not allowed; torchrun has started 8"):
        processes_asked(2, started)


def test_after_a_restart_the_run_is_found_and_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Started.of(TORCHRUN)
    assert cut_off(None, here) is None
    own = command_of(here)
    runs = (("a", here.job, own), ("b", "other", own), ("c", None, own), ("e", here.job, "x"))
    for name, job, command in runs:
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        document = {"schema": 5, "kind": "suite", "run_id": name, "created": "",
                    "command": command, "environment": {}, "runs": {}, "job": job}  # fmt: skip
        (folder / "run.json").write_text(json.dumps(document))
    (tmp_path / "results" / "d").mkdir()
    assert cut_off(None, here) == "results/a"
    assert cut_off(None, Started()) is None
    # Somebody else's run that lies where this one was to go.
    assert cut_off(tmp_path / "results" / "b", here) is None
    assert cut_off(tmp_path / "results" / "a", here) == str(tmp_path / "results" / "a")
    assert cut_off(tmp_path / "results" / "d", here) is None


def test_processes_agree_whatever_others_left_in_the_store():
    store = dist.HashStore()
    for other in (1, 2):
        store.set(f"dabench/hello/{other}", "of one that has ended")
    store.set("dabench/hello/answer/of one that has ended", "old")
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(agreed, store, 0, 3)
        time.sleep(0.1)
        assert not first.done()
        others = [threads.submit(agreed, store, rank, 3) for rank in (1, 2)]
        words = {each.result(30) for each in (first, *others)}
    assert len(words) == 1
    assert "old" not in words


def said(started, error):
    """What a process on its way out raises of an error."""
    try:
        with said_once(started):
            raise error
    except (UsageError, ProcessError, typer.Exit) as raised:
        return raised


def test_one_on_each_machine_says_what_all_know():
    error, own = UsageError("x"), ProcessError("process 5: x")
    first, other = Started(rank=4, size=8), Started(rank=5, size=8, local_rank=1)
    assert said(Started(), error) is said(first, error) is error
    silent = said(other, error)
    assert isinstance(silent, typer.Exit)
    assert silent.exit_code == 2
    assert said(other, own) is own


def test_processes_that_never_come_are_named(monkeypatch):
    monkeypatch.setattr(world, "JOINING", timedelta(seconds=2))
    monkeypatch.setattr(world, "host_clock", iter(range(9)).__next__)
    with pytest.raises(DiedError, match="never came: 1, 2"):
        agreed(dist.HashStore(), 0, 3)


def test_parts_of_batches_are_disjoint_and_whole():
    whole = list(SeededBatches(10, 4, 7, 0, 4))
    parts = [list(SeededBatches(10, 4, 7, 0, 4, World(rank, 2).part(4))) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    assert {len(part) for each in parts for part in each} == {2}


def test_halves_at_once_share_frozen_statistics():
    """A double of the network would normalise by statistics that nothing was loaded into."""
    entropies = []
    for threads in (1, 2):
        settings = config(
            method="minent", batch=2, batch_norm="frozen", height=32, width=32,
            segmenter_dtype="fp32", disc_dtype="fp32",
        )  # fmt: skip
        cpu = torch.device("cpu")
        segmenter = segmenter_of(settings, 3, cpu)
        trainer = Trainer(
            segmenter, parts_of(settings, 3, cpu), passes_target=True, ohem=False, detail=False,
            watch=Stopwatch(FakeClock()), threads=threads,
        )  # fmt: skip
        for norm in norms_of(segmenter.network):
            norm.running_var.fill_(4.0)
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2, 3, 32, 32), generator=random, dtype=torch.uint8)
        labels = torch.randint(0, 3, (2, 32, 32), generator=random)
        entropies.append(trainer.step(images, labels, images.flip(0)).entropy.item())
    assert entropies[0] == pytest.approx(entropies[1], rel=1e-4)
