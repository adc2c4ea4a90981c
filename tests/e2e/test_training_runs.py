"""Training in real processes: drawn and real images, killed, resumed, reproduced."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import command
import psutil
import pytest
import torch
from datasets import camvid_root
from processes import free_port
from slim import EVERYWHERE

from dabench.data.standin import write_standin
from dabench.network import checkpoint
from dabench.records.folder import read_run
from dabench.records.trainings import read_epochs, read_result

pytestmark = pytest.mark.usefixtures("slim")

SMALL = "--size 32x64 --batch 2 --limit 6 --dtype fp32"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the stand-in drawn small, and a cache of its own."""
    folder = tmp_path_factory.mktemp("home")
    write_standin(folder / "drawn", scale=0.03)
    return folder


def roots(home):
    drawn = home / "drawn"
    return {
        **EVERYWHERE,
        "DABENCH_CACHE": home / "cache",
        "DABENCH_GTA5_ROOT": drawn / "gta5",
        "DABENCH_CITYSCAPES_ROOT": drawn / "cityscapes",
    }


def start(arguments, home, **changes):
    return command.start(*arguments.split(), cwd=home, **{**roots(home), **changes})


def dabench(arguments, home, how=command.dabench, **changes):
    shown = how(*arguments.split(), cwd=home, **{**roots(home), **changes})
    assert shown.returncode == 0, shown.stderr
    return shown.stdout, shown.stderr


def weights_of(run):
    return checkpoint.load(run / "weights.pt")["segmenter"]["network"]


def test_kill_9_and_resume_end_with_the_weights_of_a_run_never_killed(home):
    # On a GPU, where sums are taken in any order, no two runs end with the same bits. With two
    # threads source and target pass side by side.
    arguments = f"train gta2city --disc dw-disc --steps 12 --device cpu --threads 2 {SMALL}"
    dabench(f"{arguments} --out whole", home)
    process = start(f"{arguments} --out killed", home)
    run = home / "killed" / "adversarial-dw-disc-seed0"
    deadline = time.monotonic() + 200
    while len(read_epochs(run)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert read_result(run) is None
    out, err = dabench("train --resume killed", home, command.shell)
    assert "SYNTHETIC stand-in for gta2city" in err
    assert "synthetic gta5 -> synthetic cityscapes" in out
    ours, theirs = weights_of(run), weights_of(home / "whole" / run.name)
    # Every process had the thin networks.
    assert theirs["cp.backbone.features.1.conv.weight"].shape[0] == 8
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [row.loss for row in read_epochs(run)] == [
        row.loss for row in read_epochs(home / "whole" / run.name)
    ]


def test_what_was_trained_is_scored_predicts_and_is_reported(home):
    out, _ = dabench(
        f"train gta2city --method target --seeds 0,1 --steps 4 {SMALL} --json --out trained", home
    )
    runs = json.loads(out)["runs"]
    assert set(runs) == {"target-seed0", "target-seed1"}
    shown, _ = dabench("eval trained/target-seed0 --data cityscapes --json", home)
    assert json.loads(shown)["data"] == "synthetic cityscapes"
    image = next((home / "drawn").glob("cityscapes/leftImg8bit/test/*/*.png"))
    dabench(f"predict trained/target-seed0 {image} --out seen", home)
    assert (home / "seen" / f"{image.stem}_pred.png").exists()
    dabench("report trained --name trained", home)
    report = (home / "reports" / "trained.md").read_text()
    assert "**Synthetic data.**" in report
    assert re.search(r"\| target \| II, in-domain \| \d+\.\d ± \d+\.\d \|", report)


def test_reproduce_runs_every_experiment_and_goes_on_where_it_stopped(home):
    arguments = "reproduce --steps 2 --no-timing --quiet --out all --name all"
    process = start(arguments, home)
    deadline = time.monotonic() + 200
    first = home / "all" / "synthetic-gta2city" / "source-only-seed0"
    while read_result(first) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    # The report is the one that was asked for when it was begun.
    dabench("reproduce --resume all --quiet", home)
    report = (home / "reports" / "all.md").read_text()
    for label in ("source-only", "adabn", "control disc", "adversarial diag-disc", "target"):
        assert f"| {label} |" in report
    assert "## Accuracy: synthetic gta5 -> synthetic gta5" in report
    assert "Does the adversary help with adversarial dw-disc?" in report


def test_real_images_by_day_and_at_dusk(home):
    root = camvid_root()
    arguments = "--steps 3 --size 64x96 --batch 2 --limit 6 --dtype fp32"
    dabench(
        f"train gta2city --method source-only,adversarial {arguments} --out camvid",
        home,
        DABENCH_GTA5_ROOT="",
        DABENCH_CITYSCAPES_ROOT="",
        DABENCH_CAMVID_ROOT=str(root),
    )
    data = json.loads((home / "camvid" / "run.json").read_text())["data"]
    assert (data["title"], data["synthetic"]) == ("camvid:day -> camvid:dusk", False)
    assert read_result(home / "camvid" / "source-only-seed0")["status"] == "ok"
    assert read_result(home / "camvid" / "adversarial-disc-seed0")["status"] == "ok"


def test_a_killed_process_of_two_is_started_again_and_ends_with_the_same_weights(home):
    arguments = (
        f"train gta2city --disc dw-disc --steps 12 --device cpu {SMALL} --batch 4 --threads 1 "
        "--batch-norm frozen"
    )
    scratch = home / "scratch"
    scratch.mkdir()
    out, err = dabench(
        f"{arguments} --nproc 2 --out undisturbed", home, command.shell, TMPDIR=scratch
    )
    assert not any(scratch.glob("torchelastic_*"))
    assert out.count("adversarial-dw-disc-seed0") == err.count("SYNTHETIC") == 1
    port = f"--master-port {free_port()}"
    words = f"--nproc-per-node 2 --max-restarts 1 {port} -m dabench {arguments}"
    torchrun = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words.split()],
        cwd=home, env=command.environment(roots(home)), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    runs = Path(home, "results")
    while not any(len(read_epochs(run)) >= 2 for run in runs.glob("*/adversarial-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (run,) = runs.glob("*/adversarial-*")
    before = read_epochs(run)[:1]
    killed, second = psutil.Process(torchrun.pid).children()
    assert {each.environ()["RANK"] for each in (killed, second)} == {"0", "1"}
    (killed if killed.environ()["RANK"] == "1" else second).kill()
    torchrun.communicate(timeout=command.LIMIT_S)
    assert torchrun.returncode == 0
    # Found again without --out.
    (suite,) = runs.iterdir()
    assert read_run(suite)["command"].startswith("torchrun --nproc-per-node 2 -m dabench train")
    run = home / "undisturbed" / "adversarial-dw-disc-seed0"
    ours, theirs = weights_of(suite / run.name), weights_of(run)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_epochs(suite / run.name)[-1].step == read_epochs(run)[-1].step == 12
    assert read_epochs(run)[-1].exchange_s > 0
    # It went on from a checkpoint: a run begun anew would take other times.
    assert read_epochs(suite / run.name)[:1] == before
    dabench(f"{arguments} --out alone", home)
    alone = weights_of(home / "alone" / run.name)
    furthest = max((alone[name] - theirs[name]).abs().max().item() for name in theirs)
    assert 0 < furthest < 1e-5
    # Begun by torchrun, continued by whichever.
    again, _ = dabench(f"train --resume {suite}", home, command.shell)
    assert again.count("adversarial-dw-disc-seed0") == 1
