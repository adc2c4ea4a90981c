"""The loop on a few drawn frames: resume, records, failures, health."""

import json
import time
from dataclasses import replace
from functools import partial
from http.client import IncompleteRead
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
from fakes import FakeClock
from PIL import Image
from suites import ENVIRONMENT

from dabench.base.errors import UsageError
from dabench.data.labels import CAMVID
from dabench.data.loader import TrainingFrames
from dabench.data.roots import Places, find_places
from dabench.data.standin import write_standin
from dabench.findings.claims import waiting_share
from dabench.findings.logs import read_logs
from dabench.findings.trainings import load_training
from dabench.network import checkpoint
from dabench.plan.methods import method_of
from dabench.records.trainings import EPOCH_PARTS, read_classes, read_epochs, read_result
from dabench.training import train
from dabench.training.backbone import backbone_file
from dabench.training.config import TrainConfig
from dabench.training.predict import load_trained, predict_files, score
from dabench.training.scene import set_scene
from dabench.training.suite import (
    Planned,
    plan_suite,
    released,
    resume_suite,
    start_suite,
)
from dabench.training.tensorboard import TensorBoard
from dabench.training.train import NotFiniteError, health, resume, start

pytestmark = pytest.mark.usefixtures("slim")

DOCUMENT = {"run_id": "x", "created": "", "command": "", "environment": {}}
CONFIG = TrainConfig(
    pair="gta2city", method="adversarial", steps=6, height=32, width=64, batch=2, limit=4,
    device="cpu", segmenter_dtype="fp32", disc_dtype="fp32", eval_every=2,
)  # fmt: skip


class Silent:
    def __init__(self):
        self.notes, self.steps, self.ran = [], [], []

    def preparing(self, what, done, of):
        pass

    def step(self, step, of, epoch, result, lr):
        self.steps.append((step, epoch, lr))

    def epoch(self, row):
        pass

    def note(self, text):
        self.notes.append(text)

    def run(self, name, number, of, batch):
        self.ran.append(name)

    def done(self, name, result):
        pass


class StopError(Exception):
    """What ends a run in the middle of these tests."""


class StopAfter(Silent):
    def __init__(self, step):
        super().__init__()
        self.last = step

    def step(self, step, of, epoch, result, lr):
        if step > self.last:
            raise StopError


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DABENCH_CACHE", str(folder / "cache"))
        gta5, cityscapes = write_standin(folder / "drawn", scale=0.03)
        places = Places({"gta5": gta5, "cityscapes": cityscapes}, find_places({}).pairs)
        yield set_scene("gta2city", places)


def run(scene, folder, config=CONFIG, observer=None):
    return start(
        config, scene, folder=folder, document=DOCUMENT, split=None, observer=observer or Silent()
    )


def weights_of(folder):
    return checkpoint.load(folder / "weights.pt")["segmenter"]["network"]


@pytest.mark.parametrize(
    "method", ["adversarial", "self-training+mic+fda", "multi-level+dsbn", "advent+minent+adabn"]
)
def test_a_resumed_run_ends_with_the_same_weights(method, scene, tmp_path):
    # Source and target side by side; a teacher that is sure of all it says.
    config = replace(CONFIG, method=method, threads=2, confidence=0.0)
    whole = run(scene, tmp_path / "whole", config)
    # Two steps an epoch: the third epoch is cut off after its first step.
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", config, observer=StopAfter(5))
    torch.rand(7)
    goes_on = Silent()
    again = resume(config, scene, folder=tmp_path / "cut", split=None, observer=goes_on)
    assert [step for step, _, _ in goes_on.steps] == [5, 6]
    ours, theirs = weights_of(tmp_path / "cut"), weights_of(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert again["miou"] == whole["miou"]
    times = {"seconds": 0.0, "cpu_s": None, "eval_s": None} | {
        f"{part}_s": 0.0 for part in EPOCH_PARTS
    }
    rows = [
        [replace(row, **times) for row in read_epochs(tmp_path / name)] for name in ("cut", "whole")
    ]
    assert rows[0] == rows[1]
    taught = method_of(method).taught
    assert all((row.confident == 1 and row.masked_loss > 0) == taught for row in rows[0])
    assert [row.miou is None for row in rows[0]] == [True, False, False]


def test_a_damaged_checkpoint_costs_an_epoch(scene, tmp_path):
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", observer=StopAfter(5))
    newest = max((tmp_path / "cut" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    observer = Silent()
    resume(CONFIG, scene, folder=tmp_path / "cut", split=None, observer=observer)
    assert [step for step, _, _ in observer.steps] == [3, 4, 5, 6]
    assert any("is damaged; the one before is used" in note for note in observer.notes)
    assert [row.epoch for row in read_epochs(tmp_path / "cut")] == [1, 2, 3]


def test_other_settings_cannot_resume(scene, tmp_path):
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", observer=StopAfter(5))
    other = replace(CONFIG, lr=0.5, seed=3)
    with pytest.raises(UsageError, match="the checkpoint differs in lr, seed"):
        resume(other, scene, folder=tmp_path / "cut", split=None, observer=Silent())
    other = replace(CONFIG, method="advent")
    with pytest.raises(UsageError, match="the checkpoint differs in method"):
        resume(other, scene, folder=tmp_path / "cut", split=None, observer=Silent())


def test_a_loss_that_is_no_number_names_step_frames_and_checkpoint(scene, tmp_path, monkeypatch):
    real = train.Trainer.step
    calls = []

    def step(self, *tensors):
        calls.append(1)
        result = real(self, *tensors)
        if len(calls) == 4:
            return replace(result, segmentation=torch.tensor(float("nan")))
        return result

    monkeypatch.setattr(train.Trainer, "step", step)
    with pytest.raises(NotFiniteError, match=r"loss is not a number at step 4; frames: 0000\d, 0"):
        run(scene, tmp_path / "nan")
    result = read_result(tmp_path / "nan")
    assert result["status"] == "failed"
    assert "last good checkpoint: epoch 1" in result["reason"]
    assert checkpoint.load_last(tmp_path / "nan" / "checkpoints")[0]["epochs_done"] == 1


def test_rates_follow_the_epoch_or_the_step(scene, tmp_path):
    rates = {}
    for recipe in ("paper", "adaptsegnet"):
        observer = Silent()
        config = replace(CONFIG, method="augment", recipe=recipe, lr=1.0)
        run(scene, tmp_path / recipe, config, observer)
        rates[recipe] = [lr for _, _, lr in observer.steps]
    thirds = [1.0, (2 / 3) ** 0.9, (1 / 3) ** 0.9]
    assert rates["paper"] == pytest.approx([rate for rate in thirds for _ in range(2)])
    assert rates["adaptsegnet"] == pytest.approx([(1 - n / 6) ** 0.9 for n in range(6)])


def test_a_suite_shares_the_training_of_augment_with_adabn(scene, tmp_path):
    plan = plan_suite(CONFIG, ("augment", "adabn"), ("disc",), (0,))
    assert [planned.name for planned in plan] == ["augment-seed0", "adabn-seed0"]
    observer = Silent()
    results = start_suite(
        plan, scene, folder=tmp_path / "suite", command="", split=None, observer=observer
    )
    assert len(observer.steps) == 6
    assert results["adabn-seed0"]["status"] == "ok"
    ours, theirs = (weights_of(tmp_path / "suite" / p.name) for p in plan)
    names = [name for name in ours if name.endswith("running_mean")]
    assert not all(torch.equal(ours[name], theirs[name]) for name in names)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours if n.endswith(".conv.weight"))
    alone = run(scene, tmp_path / "alone", replace(CONFIG, method="adabn"))
    assert alone["miou"] == pytest.approx(results["adabn-seed0"]["miou"], abs=1e-12)


def test_a_suite_goes_on_where_it_was_cut_off(scene, tmp_path):
    plan = plan_suite(CONFIG, ("augment", "source-only"), ("disc",), (0,))
    with pytest.raises(StopError):
        start_suite(
            plan, scene, folder=tmp_path / "suite", command="", split=None, observer=StopAfter(3)
        )
    observer = Silent()
    results = resume_suite(tmp_path / "suite", scene, observer=observer)
    assert observer.ran == ["augment-seed0", "source-only-seed0"]
    assert {result["status"] for result in results.values()} == {"ok"}
    assert [step for step, _, _ in observer.steps] == [3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    third = Silent()
    assert resume_suite(tmp_path / "suite", scene, observer=third) == results
    assert third.ran == []


@pytest.fixture
def steps_take_a_second(monkeypatch):
    clock, real = FakeClock(), train.Trainer.step

    def step(self, *tensors):
        clock.now += 1
        return real(self, *tensors)

    monkeypatch.setattr(train.Trainer, "step", step)
    monkeypatch.setattr(train, "Budget", partial(train.Budget, clock=clock))


@pytest.mark.usefixtures("steps_take_a_second")
def test_a_budget_of_seconds_ends_with_the_step_in_which_they_end(scene, tmp_path):
    config = replace(CONFIG, method="augment", steps=None, seconds=4.5)
    observer = Silent()
    result = run(scene, tmp_path / "whole", config, observer)
    assert (result["steps"], result["epochs"]) == (5, 3)
    rows = read_epochs(tmp_path / "whole")
    assert [row.seconds for row in rows] == [2, 2, 1]
    # The paper's rate follows what was spent before the epoch.
    rates = [0.01 * (1 - spent / 4.5) ** 0.9 for spent in (0, 0, 2, 2, 4)]
    assert [lr for _, _, lr in observer.steps] == pytest.approx(rates)
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", config, observer=StopAfter(3))
    resume(config, scene, folder=tmp_path / "cut", split=None, observer=Silent())
    ours, theirs = weights_of(tmp_path / "cut"), weights_of(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    plan = [
        Planned("short", replace(config, seconds=0.5)),
        Planned("long", replace(config, seconds=1.5)),
    ]
    suite = {"folder": tmp_path / "suite", "command": "", "split": None}
    results = start_suite(plan, scene, observer=Silent(), **suite)
    short = results["short"]
    assert (short["status"], short["refused"]) == ("failed", True)
    assert short["reason"] == (
        "--seconds: '0.5' is not allowed; the first step of augment took 1 s here"
    )
    assert results["long"]["steps"] == 2
    assert resume_suite(tmp_path / "suite", scene, observer=Silent()) == results


@pytest.mark.usefixtures("steps_take_a_second")
def test_adabn_takes_over_what_another_method_learnt(scene, tmp_path):
    base = replace(CONFIG, steps=None, seconds=2.5, disc="dw-disc")
    plan = plan_suite(base, ("minent", "minent+adabn"), ("disc",), (0,))
    observer = Silent()
    results = start_suite(
        plan, scene, folder=tmp_path / "suite", command="", split=None, observer=observer
    )
    trained, recomputed = (results[planned.name] for planned in plan)
    assert recomputed["steps"] == trained["steps"] == len(observer.steps) == 3
    ours, theirs = (weights_of(tmp_path / "suite" / planned.name) for planned in plan)
    assert torch.equal(ours["conv_out.conv_out.weight"], theirs["conv_out.conv_out.weight"])
    mean = "cp.backbone.features.0.bn.running_mean"
    assert not torch.equal(ours[mean], theirs[mean])
    rows = load_training([tmp_path / "suite"]).runs
    assert rows["train_s"].tolist() == [3, 3]
    assert rows["weights_of"].tolist() == ["", "minent-seed0"]
    assert set(rows["budget"]) == {"equal seconds of training"}


def test_a_failed_run_is_a_result_and_the_suite_goes_on(scene, tmp_path):
    plan = [
        Planned("bad", replace(CONFIG, method="augment", lr=1e30)),
        Planned("good", replace(CONFIG, method="source-only")),
    ]
    results = start_suite(
        plan, scene, folder=tmp_path / "suite", command="", split=None, observer=Silent()
    )
    assert results["bad"]["status"] == "failed"
    assert results["good"]["status"] == "ok"


def test_one_control_and_every_discriminator():
    names = [p.name for p in plan_suite(CONFIG, ("control", "adversarial"), ("disc", "dw-disc"),
                                        (0, 1))]  # fmt: skip
    assert names == [
        "control-disc-seed0", "adversarial-disc-seed0", "adversarial-dw-disc-seed0",
        "control-disc-seed1", "adversarial-disc-seed1", "adversarial-dw-disc-seed1",
    ]  # fmt: skip


def test_what_was_trained_is_scored_and_predicts(scene, tmp_path):
    result = run(scene, tmp_path / "run", replace(CONFIG, method="target", limit=None))
    trained = load_trained(tmp_path / "run", "cpu")
    scores = score(trained, scene.target, split=None, device="cpu")
    assert scores.miou == pytest.approx(result["miou"], abs=1e-12)
    assert [row["iou"] for row in read_classes(tmp_path / "run")] == list(scores.iou)
    frames = pd.read_csv(tmp_path / "run" / "frames.csv")
    assert frames["frame"].nunique() == len(scene.target.frames("test"))
    of_class = frames.groupby("class")[["hit", "truth", "predicted"]].sum()
    union = of_class["truth"] + of_class["predicted"] - of_class["hit"]
    for number, iou in enumerate(scores.iou):
        if iou is not None:
            assert of_class["hit"][number] / union[number] == pytest.approx(iou)
    image = scene.target.frames("test")[0].image
    (written,) = predict_files(trained, [image], tmp_path / "out", device="cpu")
    assert written.name == f"{image.stem}_pred.png"
    folders = tmp_path / "a", tmp_path / "a" / "deeper"
    alike = [folder / f"x.{kind}" for folder in folders for kind in ("png", "bmp")]
    for each in alike:
        each.parent.mkdir(exist_ok=True)
        Image.open(image).save(each)
    written = predict_files(trained, alike, tmp_path / "out", device="cpu")
    assert len(set(written)) == 4
    assert {each.resolve().parent for each in written} == {(tmp_path / "out").resolve()}
    with pytest.raises(UsageError, match=r"--device: 'nosuch' .*no such device"):
        load_trained(tmp_path / "run", "nosuch")
    other = replace(scene.target, name="camvid", classes=CAMVID)
    with pytest.raises(UsageError, match=r"--data: camvid has 11 classes of camvid, the check"):
        score(trained, other, split=None, device="cpu")


def test_a_suite_stands_for_its_median_seed(scene, tmp_path):
    plan = plan_suite(replace(CONFIG, steps=2), ("source-only",), ("disc",), (0, 1, 2))
    folder = tmp_path / "suite"
    results = start_suite(plan, scene, folder=folder, command="", split=None, observer=Silent())
    by_score = sorted(results, key=lambda name: results[name]["miou"])
    median = weights_of(folder / by_score[1])["conv_out.conv_out.weight"]
    assert torch.equal(load_trained(folder, "cpu").network.conv_out.conv_out.weight, median)
    scores = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    runs = {name: {"method": "augment", "disc": "disc", "seed": 0} for name in scores}
    done = {name: {"status": "ok", "miou": miou} for name, miou in scores.items()}
    assert released(runs, done | {"a": {"status": "failed"}}) == {"augment": "c"}
    assert released(runs, done) == {"augment": "b"}
    (folder / "released.json").write_text('{"augment": "x", "fda": "y"}')
    with pytest.raises(UsageError, match=r"several trainings; name a run, of median seeds: .*/x"):
        load_trained(folder, "cpu")


def test_weights_of_another_network_are_one_line(scene, tmp_path):
    run(scene, tmp_path / "run", replace(CONFIG, method="source-only", steps=2))
    path = tmp_path / "run" / "weights.pt"
    state = checkpoint.load(path)
    state["config"]["model"] = "stdc2-bisenet"
    torch.save(state, path)
    with pytest.raises(UsageError, match=r"run does not fit stdc2-bisenet: .*size mismatch"):
        load_trained(tmp_path / "run", "cpu")
    state["classes"] = ["mountain", "sea"]
    torch.save(state, path)
    with pytest.raises(UsageError, match=r"classes dabench does not know: mountain, sea"):
        load_trained(tmp_path / "run", "cpu")


def test_a_discriminator_that_never_left_chance_is_flagged(scene, tmp_path):
    result = run(scene, tmp_path / "run", replace(CONFIG, disc="dw-disc", disc_lr=1e-9))
    assert result["disc_at_chance"]
    rows = read_epochs(tmp_path / "run")
    left = [*rows[:-1], replace(rows[-1], disc_loss=0.5)]
    assert not health(left)["disc_at_chance"]
    assert health([replace(rows[0], disc_loss=None)])["disc_at_chance"] is None


def test_records_say_what_the_data_were(scene, tmp_path):
    run(scene, tmp_path / "run", replace(CONFIG, method="source-only"))
    data = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (data["source"], data["target"]) == ("synthetic gta5", "synthetic cityscapes")
    assert (data["training_frames"], data["evaluation_frames"]) == (4, 2)
    assert data["evaluated_split"] == "test"
    assert (tmp_path / "run" / "pictures.png").stat().st_size > 0


def test_epochs_of_earlier_versions_are_read(scene, tmp_path):
    run(scene, tmp_path / "run", replace(CONFIG, method="source-only"))
    path = tmp_path / "run" / "epochs.csv"
    rows = read_epochs(tmp_path / "run")
    lines = path.read_text().splitlines()
    before = lines[0].split(",").index("teacher_s")
    path.write_text("".join(",".join(line.split(",")[:before]) + "\n" for line in lines))
    assert read_epochs(tmp_path / "run") == [replace(row, cpu_s=None) for row in rows]


def backbone(path):
    """A checkpoint of torchvision's, of random weights."""
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return torch.load(path, weights_only=True)


def test_torchvisions_weights_are_downloaded_once(scene, tmp_path, monkeypatch, slim):
    slim.close()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked = []

    def download(url, path, **_):
        asked.append(url)
        backbone(path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    config = replace(CONFIG, model="bisenet-r18", method="minent+dsbn", backbone_weights="resnet18",
                     steps=1, lr=1e-12)  # fmt: skip
    for name in ("one", "two"):
        run(scene, tmp_path / name, config)
    assert [url.rpartition("/")[2] for url in asked] == ["resnet18-f37072fd.pth"]
    state = torch.load(
        tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth", weights_only=True
    )
    ours = weights_of(tmp_path / "one")
    torch.testing.assert_close(ours["cp.backbone.conv1.weight"], state["conv1.weight"])


def test_the_targets_own_norms_begin_with_the_backbones(scene, tmp_path, slim):
    slim.close()
    state = backbone(tmp_path / "resnet18.pt")
    state["bn1.weight"] += 2
    torch.save(state, tmp_path / "resnet18.pt")
    weights = str(tmp_path / "resnet18.pt")
    config = replace(CONFIG, model="bisenet-r18", method="minent+dsbn", backbone_weights=weights,
                     steps=1, lr=1e-12)  # fmt: skip
    run(scene, tmp_path / "run", config)
    ours = weights_of(tmp_path / "run")["cp.backbone.bn1.weight"]
    torch.testing.assert_close(ours, state["bn1.weight"])


@pytest.mark.parametrize("error", [OSError("no route"), IncompleteRead(b"")])
def test_weights_that_cannot_be_downloaded_are_one_line(error, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def download(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UsageError, match=r"--backbone-weights: resnet18 cannot be downloaded here"):
        backbone_file("resnet18")
    assert backbone_file(__file__) == Path(__file__)
    with pytest.raises(UsageError, match=r"--backbone-weights: 'gone.pt' .* existing file"):
        backbone_file("gone.pt")


def test_other_frames_cannot_resume(scene, tmp_path):
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", observer=StopAfter(5))
    fewer = {**scene.source.splits, "train": scene.source.splits["train"][1:]}
    other = replace(scene, source=replace(scene.source, splits=fewer))
    with pytest.raises(UsageError, match="--resume: the training frames are not those of the run"):
        resume(CONFIG, other, folder=tmp_path / "cut", split=None, observer=Silent())


def test_a_run_that_does_not_know_its_frames_cannot_resume(scene, tmp_path):
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", observer=StopAfter(5))
    record = json.loads((tmp_path / "cut" / "run.json").read_text(encoding="utf-8"))
    del record["data"]["digests"]
    (tmp_path / "cut" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError, match="did not note what its frames were; begin it anew"):
        resume(CONFIG, scene, folder=tmp_path / "cut", split=None, observer=Silent())


def test_a_run_cut_off_while_it_ends_ends_again(scene, tmp_path, monkeypatch):
    """Killed after training, before its result was on disk."""

    def die(self, path):
        raise StopError

    config = replace(CONFIG, method="source-only")
    monkeypatch.setattr(train.Training, "draw", die)
    with pytest.raises(StopError):
        run(scene, tmp_path / "cut", config)
    monkeypatch.undo()
    observer = Silent()
    result = resume(config, scene, folder=tmp_path / "cut", split=None, observer=observer)
    assert (result["status"], observer.steps) == ("ok", [])
    assert list((tmp_path / "cut" / "checkpoints").iterdir()) == []


def test_weights_that_are_no_numbers_are_never_saved(scene, tmp_path, monkeypatch):
    real = train.Trainer.step

    def step(self, *tensors):
        result = real(self, *tensors)
        next(self.segmenter.network.parameters()).data[0] = float("inf")
        return result

    monkeypatch.setattr(train.Trainer, "step", step)
    with pytest.raises(NotFiniteError, match=r"a weight is not a number|loss is not a number"):
        run(scene, tmp_path / "bad", replace(CONFIG, method="source-only"))
    assert checkpoint.load_last(tmp_path / "bad" / "checkpoints") == (None, [])


def test_images_without_labels_are_said(scene, tmp_path):
    unpaired = replace(scene.source, unpaired=(tmp_path / "00009.png",))
    observer = Silent()
    config = replace(CONFIG, method="source-only")
    run(replace(scene, source=unpaired), tmp_path / "run", config, observer)
    assert "1 images of synthetic gta5 have no label" in observer.notes[0]


def test_tensorboard_gets_a_point_per_epoch(scene, tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="an extra"
    )
    plan = plan_suite(replace(CONFIG, normalise=False), ("augment",), ("disc",), (0,))
    silent = Silent()
    with TensorBoard(tmp_path / "suite", silent) as observer:
        start_suite(
            plan, scene, folder=tmp_path / "suite", command="", split=None, observer=observer
        )
    assert silent.ran == ["augment-seed0"]
    curves = events.EventAccumulator(str(tmp_path / "suite" / "tensorboard" / "augment-seed0"))
    curves.Reload()
    rows = read_epochs(tmp_path / "suite" / "augment-seed0")
    assert [point.value for point in curves.Scalars("loss")] == pytest.approx(
        [row.loss for row in rows]
    )


def test_a_slow_loader_is_found(scene, tmp_path, monkeypatch, slim):
    slim.close()  # steps that take longer than frames do without the planted sleep
    slept, real = [], TrainingFrames.__getitem__

    def slow(frames, key):
        begun = time.perf_counter()
        time.sleep(0.1)
        frame = real(frames, key)
        slept.append(time.perf_counter() - begun)
        return frame

    monkeypatch.setattr(TrainingFrames, "__getitem__", slow)
    document = {**DOCUMENT, "environment": ENVIRONMENT}
    config = replace(CONFIG, method="augment", workers=0)
    folder = tmp_path / "run"
    start(config, scene, folder=folder, document=document, split=None, observer=Silent())
    (log,) = read_logs(folder, {})
    seconds = sum(row.seconds for row in read_epochs(folder))
    assert waiting_share(log) == pytest.approx(sum(slept) / seconds, abs=0.05)
