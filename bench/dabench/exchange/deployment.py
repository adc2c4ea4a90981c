"""A chosen network as files that run without dabench: ONNX, a manifest, and a short script.

``network.onnx`` (of OpenVINO in int8 ``network.xml`` and ``network.bin``) is exported as it was to
be timed, from the same weights, calibrated on the same images, a network of the same graph, and
held against the plain network before it is written. The script runs it on a CPU.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dabench.base.cores import usable_cores
from dabench.base.errors import DabenchError, UsageError, bad_value
from dabench.base.files import disk_errors, json_text, write_atomically
from dabench.data.prepare import MEAN, STD
from dabench.device.machine import describe_host
from dabench.findings.candidates import Candidate
from dabench.findings.choices import Choice, choice_of
from dabench.findings.joining import Identities
from dabench.plan.networks import identity_of, is_still
from dabench.plan.references import Reference
from dabench.plan.trained import Trained, is_trained, trained_at
from dabench.plan.variants import EXPORTED
from dabench.plan.ways import way_name
from dabench.records.calibrations import FIELD
from dabench.records.choices import TIMES
from dabench.records.folder import read_run
from dabench.records.timings import read_plan
from dabench.run.calibrating import CalibratedPool, calibrations_again
from dabench.run.launcher import Launcher

TIMEOUT_S = 1800.0

MANIFEST, SCRIPT = "manifest.json", "run.py"

_RUN = {
    "onnxruntime": """\
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = about["threads"]
session = onnxruntime.InferenceSession(
    here / about["file"], options, providers=["CPUExecutionProvider"]
)
logits = session.run(None, {session.get_inputs()[0].name: x})[0][0]
""",
    "openvino": """\
settings = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": about["precision"],
    "INFERENCE_NUM_THREADS": about["threads"],
}
network = openvino.compile_model(here / about["file"], "CPU", settings)
logits = network([x])[0][0]
""",
}

_SCRIPT = '''\
"""The class of each pixel of an image: python run.py IMAGE OUT.png"""

import json
import sys
from pathlib import Path

import numpy as np
import {library}
from PIL import Image, ImageOps

here = Path(__file__).parent
about = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
if len(sys.argv) != 3 or Path(sys.argv[2]).suffix.lower() != ".png":
    sys.exit(__doc__)
try:
    image = Image.open(sys.argv[1])
    if image.mode.startswith(("I", "F")):
        sys.exit("an image of 8 bits a channel, please")
    image = ImageOps.exif_transpose(image).convert("RGB")
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
small = image.resize((about["width"], about["height"]), Image.Resampling.BILINEAR)
x = (np.asarray(small, np.float32) / 255 - about["mean"]) / about["std"]
x = np.repeat(x.transpose(2, 0, 1)[None], about["batch"], axis=0).astype(np.float32)
{run}
scores = [Image.fromarray(each).resize(image.size, Image.Resampling.BILINEAR) for each in logits]
Image.fromarray(np.stack(scores).argmax(0).astype(np.uint8)).save(sys.argv[2])
'''


def export_model(run: Path, out: Path, way: str | None = None) -> dict[str, Any]:
    """Writes a choice's network into a new folder.

    Args:
        run: Of a choice.
        out: The folder; made if missing.
        way: Name of another way that was timed than the one to take, whether or not it keeps the
            limits; with the network's name before it where several networks have one.

    Returns:
        The manifest.

    Raises:
        UsageError: Nothing was chosen, or it cannot be exported; the message says why, and what
            can be.
        DabenchError: The export failed.
    """
    choice = choice_of(run)
    candidate = _picked(choice, way)
    model = candidate.case.model
    trained = trained_at(Path(Reference.of(model).factory))
    known = read_run(run / TIMES).get("networks", {}).get(model)
    if known is None or not is_still(known, identity_of(model)):
        raise UsageError(f"{model} has changed since it was measured in {run}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise bad_value("--out", str(out), "it takes a new or an empty folder")
    with TemporaryDirectory(prefix="dabench-", ignore_cleanup_errors=True) as scratch:
        files, distance = _exported(candidate, run, Path(scratch))
        manifest = {
            **_about(candidate, trained, files),
            "difference": distance,
            "exported_with": describe_host()["packages"],
            "measured": _measured(run, choice, candidate),
        }
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copyfile(file, out / file.name)
            library = candidate.case.runtime
            script = _SCRIPT.replace("{run}\n", _RUN[library]).replace("{library}", library)
            write_atomically(out / SCRIPT, script)
            write_atomically(out / MANIFEST, json_text(manifest))
    return manifest


def _picked(choice: Choice, way: str | None) -> Candidate:
    """The candidate to export.

    Raises:
        UsageError: There is none.
    """
    able = [
        each
        for each in choice.candidates
        if each.status == "ok"
        and each.case.runtime in _RUN
        and each.case.device == "cpu"
        and is_trained(each.case.model)
    ]
    names = [way_name(each.case) for each in able]
    listed = ", ".join(each.name for each in able) or "none of its ways"
    if way is not None:
        found = [e for e, name in zip(able, names, strict=True) if way in (name, e.name)]
        if len(found) != 1:
            raise bad_value("--way", way, f"of this choice can be exported: {listed}")
        return found[0]
    if choice.chosen is None:
        raise UsageError(f"nothing was chosen; --way names what to export: {listed}")
    if choice.chosen not in able:
        case = choice.chosen.case
        why = f"is run by {case.runtime} on {case.device}, not by one of {', '.join(_RUN)} on a CPU"
        if not is_trained(case.model):
            why = "has no trained weights"
        raise UsageError(f"{choice.chosen.name} {why}; --way names another: {listed}")
    return choice.chosen


def _exported(candidate: Candidate, run: Path, scratch: Path) -> tuple[list[Path], float]:
    """The files, the one to open first, and how far its outputs are from the plain network's.

    Raises:
        DabenchError: The export failed.
        UsageError: The network's graph is another one than was measured, or the images that it
            was calibrated on cannot be had.
    """
    assert candidate.case.runtime in EXPORTED
    found: dict[str, Any] = {}
    counted: dict[str, Any] = {}
    case = candidate.case
    shape = {name: getattr(case, name) for name in ("channels", "height", "width", "mode")}
    count = {"kind": "count", "shares": False, "items": [{"name": case.model, "batch": 1, **shape}]}
    to = scratch / "files"
    to.mkdir()
    times = run / TIMES
    document = read_run(times)
    plan = read_plan(times, document)
    (planned,) = (each for each in plan if each.case.case_id == case.case_id)
    request = {
        "kind": "export",
        "case": case.to_dict(),
        "seed": planned.settings.seed,
        "scratch": str(scratch),
        "to": str(to),
    }
    calibrated = calibrations_again(times, document, [planned])
    with Launcher() as launcher:
        launcher.run(count, counted.update, timeout_s=TIMEOUT_S)
        now = counted.get("count", {}).get("graph", "")
        if candidate.graph and now != candidate.graph:
            raise UsageError(
                f"{candidate.name} is another graph now than the one that was measured"
            )
        pool = CalibratedPool(launcher, calibrated)
        last = pool.run(request, found.update, timeout_s=TIMEOUT_S)
    if last["kind"] != "done":
        raise DabenchError(f"{candidate.name} could not be exported: {last['reason']}")
    return [to / name for name in found["files"]], float(found["difference"])


def _about(candidate: Candidate, trained: Trained, files: Sequence[Path]) -> dict[str, Any]:
    """What the script and its reader need to know."""
    case = candidate.case
    return {
        "network": trained.model,
        "file": files[0].name,
        "sha256": _digest(files[0]),
        "beside": {each.name: _digest(each) for each in files[1:]},
        "runtime": case.runtime,
        "dtype": case.dtype,
        # Of what is no int8; that which int8 leaves out is in fp32.
        "precision": {"bf16": "bf16"}.get(case.dtype, "f32"),
        "threads": case.threads or usable_cores(),
        "batch": case.batch,
        "height": case.height,
        "width": case.width,
        # Of channels from 0 to 1.
        "mean": list(MEAN) if trained.normalised else [0.0] * 3,
        "std": list(STD) if trained.normalised else [1.0] * 3,
        "classes": list(trained.classes),
        "before": "RGB, resized bilinearly with antialiasing, (value / 255 - mean) / std, NCHW",
        "after": "logits brought to the image's size bilinearly, the largest of each pixel",
    }


def _calibrated_on(run: Path, candidate: Candidate) -> dict[str, Any]:
    """The images that it is calibrated on, by name; nothing where there are none."""
    by_count = read_run(run / TIMES).get(FIELD, {}).get(candidate.case.model, {})
    found: dict[str, Any] = by_count.get(candidate.case.calibration, {})
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _measured(run: Path, choice: Choice, candidate: Candidate) -> dict[str, Any]:
    """What was measured of it, and of what."""
    frame = choice.to_frame()
    (row,) = frame[[each is candidate for each in choice.candidates]].to_dict("records")
    identity = Identities(run / TIMES).of(candidate.case)
    document = read_run(run)
    figures = {str(k): v for k, v in row.items() if v is not None and v == v}
    return {
        "run": document["run_id"],
        "machine": document["environment"],
        "calibration_digest": identity and identity.calibration,
        "calibrated_on": _calibrated_on(run, candidate),
        "weights": identity and identity.weights,
        "graph": identity and identity.graph,
        **{k: v.item() if hasattr(v, "item") else v for k, v in figures.items()},
    }
