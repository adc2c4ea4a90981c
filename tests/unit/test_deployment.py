"""A chosen network as files: what they hold, that the script agrees, and what is refused."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from choices import steady, write_choice
from command import dabench
from fakes import make_case
from PIL import Image
from trained import CONFIG, new_state, write_run

import dabench as api
from dabench.data.labels import CITYSCAPES
from dabench.plan.networks import identity_of
from dabench.training.predict import load_trained

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A choice that takes ONNX Runtime for a network whose weights nothing trained."""
    folder = tmp_path_factory.mktemp("chosen")
    run = write_run(folder / "augment-seed0", new_state(CITYSCAPES.names), "weights.pt")
    plain = make_case(
        model=f"trained:{run}", batch=1, channels=3, height=CONFIG.height, width=CONFIG.width,
        threads=1,
    )  # fmt: skip
    exported = replace(plain, runtime="onnxruntime")
    weights = identity_of(plain.model)["sha256"]
    times = {exported: steady(0.1), plain: steady(0.3, 1)}
    size = {"height": CONFIG.height, "width": CONFIG.width}
    graph = api.count(plain.model, **size).graph
    return run, write_choice(folder / "run", times, identity=weights, graph=graph)


@pytest.fixture(scope="module")
def written(chosen):
    _, choice = chosen
    out = choice.parent / "deployed"
    shown = dabench("export-model", str(choice), "--out", str(out), cwd=choice.parent)
    assert shown.returncode == 0, shown.stderr
    return out, json.loads((out / "manifest.json").read_text(encoding="utf-8")), shown


def test_the_manifest_says_what_it_is_and_what_was_measured(written, chosen):
    out, manifest, shown = written
    digest = hashlib.sha256((out / "network.onnx").read_bytes()).hexdigest()
    assert manifest["sha256"] == digest
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json", "network.onnx", "run.py",
    ]  # fmt: skip
    assert (manifest["network"], manifest["runtime"]) == (CONFIG.model, "onnxruntime")
    assert manifest["dtype"] == manifest["measured"]["dtype"] == "fp32"
    assert manifest["classes"] == list(CITYSCAPES.names)
    assert 0 <= manifest["difference"] < 1e-3
    measured = manifest["measured"]
    assert measured["weights"] == identity_of(f"trained:{chosen[0]}")["sha256"]
    assert measured["seconds"] == pytest.approx(0.1, rel=0.01)
    assert (len(measured["graph"]), measured["way"], measured["launches"]) == (16, "onnxruntime", 8)
    assert manifest["threads"] == 1
    assert "onnx" in manifest["exported_with"]
    assert str(out / "run.py") in shown.stdout


def test_the_script_runs_without_dabench_and_sees_what_the_network_sees(written, chosen, tmp_path):
    out, manifest, _ = written
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    image = Image.fromarray(pixels).resize((144, 96), Image.Resampling.BICUBIC)
    image.save(tmp_path / "image.png")
    script = (out / "run.py").read_text(encoding="utf-8")
    assert "dabench" not in script
    done = subprocess.run(
        [sys.executable, str(out / "run.py"), "image.png", "seen.png"], cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = np.asarray(Image.open(tmp_path / "seen.png"))
    small = image.resize((CONFIG.width, CONFIG.height), Image.Resampling.BILINEAR)
    x = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(manifest[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    network = load_trained(chosen[0], "cpu").network.eval()
    with torch.inference_mode():
        logits = network((x - mean) / std)
    logits = torch.nn.functional.interpolate(logits, (96, 144), mode="bilinear")
    expected = logits[0].argmax(0).numpy()
    assert seen.shape == expected.shape
    assert (seen == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "python run.py IMAGE OUT.png"),
        (("image.png", "seen.jpg"), "python run.py IMAGE OUT.png"),  # which would change classes
        (("none.png", "seen.png"), "none.png: "),
        (("text.png", "seen.png"), "text.png: "),
    ],
)
def test_what_the_script_does_not_take_is_one_line(words, said, written, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    done = subprocess.run(
        [sys.executable, str(written[0] / "run.py"), *words], cwd=tmp_path, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--way", "plain"), "--way: 'plain' is not allowed; of this choice can be exported: "),
        (("--way", "openvino"), "--way: 'openvino' is not allowed"),
        (("--out", "."), "--out: '.' is not allowed; it takes a new or an empty folder"),
    ],
)
def test_what_cannot_be_exported_is_one_line(chosen, arguments, message, tmp_path):
    (tmp_path / "there").write_text("something")
    words = arguments if "--out" in arguments else (*arguments, "--out", "new")
    shown = dabench("export-model", str(chosen[1]), *words, cwd=tmp_path)
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 1
    assert message in shown.stderr
    assert not (tmp_path / "new").exists()


def test_a_way_of_torchs_and_random_weights_are_not_exported(chosen, tmp_path):
    case = replace(make_case(model=f"trained:{chosen[0]}", batch=1), channels=3)
    for number, (each, message) in enumerate(
        (
            (case, "is run by eager on cpu, not by one of onnxruntime, openvino on a CPU"),
            (replace(case, device="cuda", runtime="onnxruntime"), "is run by onnxruntime on cuda"),
            (make_case(model="b", runtime="onnxruntime"), "has no trained weights"),
        )
    ):
        run = write_choice(tmp_path / f"run{number}", {each: steady(0.1)})
        shown = dabench("export-model", str(run), "--out", "new", cwd=tmp_path)
        assert shown.returncode == 2
        assert message in shown.stderr
        assert "--way names another: none of its ways" in shown.stderr


def test_another_graph_than_was_measured_is_refused(chosen, tmp_path):
    case = make_case(
        model=f"trained:{chosen[0]}", batch=1, channels=3, height=32, width=64, threads=1,
        runtime="onnxruntime",
    )  # fmt: skip
    weights = identity_of(case.model)["sha256"]
    other = write_choice(tmp_path / "run", {case: steady(0.1)}, identity=weights, graph="other")
    shown = dabench("export-model", str(other), "--out", "new", cwd=tmp_path)
    assert shown.returncode == 2
    assert "is another graph now than the one that was measured" in shown.stderr


def test_weights_that_changed_since_are_refused(chosen, tmp_path):
    case = make_case(model=f"trained:{chosen[0]}", batch=1, runtime="onnxruntime")
    run = write_choice(tmp_path / "run", {case: steady(0.1)})
    shown = dabench("export-model", str(run), "--out", "new", cwd=tmp_path)
    assert shown.returncode == 2
    assert "has changed since it was measured" in shown.stderr
