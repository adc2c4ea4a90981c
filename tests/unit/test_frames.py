"""A frame taken apart: order of stages and waits, records, what adds up, what is refused."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from command import dabench
from fakes import AsyncDevice, FakeClock, make_case
from PIL import Image
from records import ENVIRONMENT

from dabench.base.errors import UnsupportedError, UsageError
from dabench.data.inputs import network_input
from dabench.device.registry import open_device
from dabench.findings.frames import COLUMNS, frame_times, frames_frame
from dabench.network.frame import FrameWay
from dabench.network.runtimes import prepare
from dabench.network.workload import Workload
from dabench.plan.cases import PlannedCase
from dabench.plan.conventions import CONVENTIONS, STAGES, WHOLE
from dabench.plan.settings import Settings
from dabench.records.folder import RunFolder
from dabench.records.frames import KIND, FrameLaunch, FrameRecord, read_frame_launches
from dabench.report.write import write_report
from dabench.run.frames import parse_source
from dabench.timing.stages import measure_stages

CASE = make_case(
    model="stdc1-bisenet", family="segmenter", batch=1, channels=3, height=32, width=64, threads=1
)


def stage(device, name, seconds, value):
    device.launch(seconds, name)
    return [*(value or []), name]


def test_passes_as_a_whole_and_taken_apart_take_turns():
    clock = FakeClock()
    device = AsyncDevice(clock)
    seen = []

    def last(value):
        device.launch(0.2, "b")
        seen.append([*value, "b"])

    stages = [partial(stage, device, "a", 0.1), last]
    found = measure_stages(stages, clock, device.synchronize, warmup=1, passes=2)
    whole = ["sync", "clock", "a", "b", "sync", "clock"]
    apart = ["sync", "clock", "a", "sync", "clock", "b", "sync", "clock"]
    assert clock.log == [*whole, *apart, *apart, *whole, *whole, *apart]
    # Each stage is given what the one before it gave.
    assert seen == [["a", "b"]] * 6
    assert len(found.whole) == len(found.stages) == 2
    assert found.whole[0] == pytest.approx(0.3, abs=1e-4)
    assert found.stages[0] == pytest.approx((0.1, 0.2), abs=1e-4)


def test_every_convention_times_the_forward_and_names_its_source():
    for convention in CONVENTIONS.values():
        assert "forward" in convention.stages
        assert convention.source
        assert sorted((*convention.stages, *convention.left_out)) == sorted(STAGES)


def launch(number, forward_s, whole_s, **changes):
    stages = ("prepare", "upload", "forward", "argmax", "download", "enlarge")
    apart = ((0.01, 1e-9, forward_s, 0.02, 1e-9, 0.01),) * 3
    return FrameLaunch(
        number, CASE.case_id, stages=stages, whole=(whole_s,) * 3, apart=apart, **changes
    )


def test_shares_add_up_or_say_by_how_much_they_do_not():
    (found,) = frame_times([CASE], [launch(n, 0.1, 0.141) for n in range(3)])
    assert found.rest == pytest.approx(1 - 0.14 / 0.141, abs=1e-6)
    assert found.adds_up
    assert found.conventions["bare"].estimate == pytest.approx(0.1)
    assert found.conventions["mlperf"].estimate == pytest.approx(0.12)
    assert found.conventions["all"].estimate == pytest.approx(0.14)
    (found,) = frame_times([CASE], [launch(0, 0.1, 0.12)])
    assert found.rest == pytest.approx(1 - 0.14 / 0.12)
    assert not found.adds_up


def write(folder, *launches):
    plan = [PlannedCase(case=CASE, settings=Settings.of()).to_dict()]
    source = {"text": "/a/street.png", "height": 48, "width": 80, "sha256": "d"}
    details = {"command": "x", "environment": ENVIRONMENT, "plan": plan, "source": source}
    details["left_out"] = ["bf16 is only emulated on cpu here and left out"]
    with RunFolder.create(folder, KIND, **details) as run:
        record = FrameRecord(run)
        for each in launches:
            record.add(each)
    return folder


def test_launches_are_read_as_they_were_written(tmp_path):
    said = {"difference": 1e-7, "device_name": "Test CPU", "emulated": True, "notes": "slow"}
    wrote = [launch(0, 0.1, 0.15, **said), FrameLaunch(1, CASE.case_id, "oom", "no room")]
    folder = write(tmp_path / "run", *wrote)
    assert read_frame_launches(folder) == wrote
    # The last one was cut off after its passes.
    lines = (folder / "launches.csv").read_text().splitlines(keepends=True)
    (folder / "launches.csv").write_text("".join(lines[:2]) + "1,stdc")
    assert read_frame_launches(folder) == wrote[:1]


def test_a_report_of_a_frame(tmp_path):
    failed = FrameLaunch(2, CASE.case_id, "oom", "no room")
    emulated = (launch(n, 0.1, 0.141, emulated=True) for n in range(2))
    folder = write(tmp_path / "run", *emulated, failed)
    document, table = write_report([folder], folder=tmp_path, name="frame")
    text = document.read_text(encoding="utf-8")
    assert "## A frame taken apart: street.png, 48x80" in text
    assert "bf16 is only emulated on cpu here and left out." in text
    assert "fp32 is emulated here. Launches without times: oom: no room.*" in text
    assert "| forward | 100 ms | 100 to 100 ms | 70.9% |" in text
    assert "| rest | 1 ms | 0.7% to 0.7% | 0.7% |" in text
    assert "| mmseg | 130 ms | 130 to 130 ms | 7.69 | prepare |" in text
    rows = pd.read_csv(table)
    assert tuple(rows.columns) == COLUMNS
    assert set(rows["kind"]) == {"stage", "whole", "convention"}
    failed = write(tmp_path / "failed", FrameLaunch(0, CASE.case_id, "oom", "no room"))
    assert frames_frame([failed])["reason"].tolist() == ["no room"]


def test_the_stages_make_the_label_map_of_the_frame(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    load = Workload(CASE, open_device("cpu"), 0)
    for source, names in ((tmp_path / "street.png", [*STAGES]), ((48, 80), [*STAGES][1:])):
        with torch.inference_mode():
            way = FrameWay(load, source, 0)
            assert list(way.stages) == names
            value = None
            for run in way.stages.values():
                value = run(value)
        assert (value.shape, value.dtype) == ((48, 80), np.uint8)
        assert value.max() < 19


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_the_network_sees_the_frame_that_there_is(runtime, tmp_path):
    """Whatever reads memory as it lies is given it as it is to lie."""
    if runtime != "eager":
        pytest.importorskip("onnxruntime")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    device = open_device("cpu")
    load = Workload(replace(CASE, runtime=runtime), device, 0)
    plain = load.model
    with torch.inference_mode():
        if runtime != "eager":
            prepare(load, device, tmp_path, FakeClock())
        way = FrameWay(load, tmp_path / "street.png", 0)
        value = None
        for run in way.stages.values():
            value = run(value)
        x = network_input(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()[None])
        expected = plain(x).argmax(1)[0].numpy()
    assert (value == expected).mean() > 0.99


def test_more_classes_than_a_byte_holds_are_refused(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Conv2d(3, 257, 1)\n"
    )
    case = replace(CASE, model=f"{tmp_path / 'net.py'}:net", family="other")
    load = Workload(case, open_device("cpu"), 0)
    many = "tells 257 classes apart; a label map holds bytes"
    with torch.inference_mode(), pytest.raises(UnsupportedError, match=many):
        FrameWay(load, (8, 8), 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.png", "there is no such file"),
        ("raw:0x10", "it takes the path of an image, or raw:HxW"),
        ("raw:10", "it takes the path of an image, or raw:HxW"),
    ],
)
def test_what_is_no_frame(source, message):
    with pytest.raises(UsageError, match=message):
        parse_source(source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frame", "raw:9x9", "--model", "disc"), "--frame: disc takes 19 channels; a frame has"),
        (("--frame", "raw:9x9", "--model", "stdc1-bisenet", "--batch", "2"), "--batch: '2' is not"),
        (("--frame", "raw:9x9"), "--model: name at least one"),
        (("--model", "disc", "--convention", "bare"), "--convention: it is of a --frame"),
        (("--frame", "raw:9x9", "--model", "x", "--convention", "y"), "--convention: 'y' is not"),
        (("--frame", "raw:9x9", "--model", "x", "--max-time", "1s"), "--max-time: with --frame a"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    shown = dabench("time", *arguments, cwd=tmp_path)
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 1
    assert message in shown.stderr
    assert not list(tmp_path.iterdir())


def test_a_frame_from_the_command_line_goes_on_where_it_was_cut_off(tmp_path):
    Image.fromarray(np.zeros((40, 72, 3), np.uint8)).save(tmp_path / "street.png")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Conv2d(3, 5, 1)\n\n"
        "def flat():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    shown = dabench(
        "time", "--frame", "street.png", "--model", "net.py:net,net.py:flat", "--size", "32x64",
        "--threads", "1", "--repeat", "3", "--launches", "2", "--out", "run", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)["times"]
    good = [row for row in rows if row["status"] == "ok"]
    assert {row["part"] for row in good} == {*STAGES, WHOLE, *CONVENTIONS}
    assert [row["reason"] for row in rows if row["status"] != "ok"] == [
        "puts out 1x3, no map of logits for each pixel"
    ]
    launches = tmp_path / "run" / "launches.csv"
    lines = launches.read_text().splitlines(keepends=True)
    assert len(lines) == 4  # what failed is not tried again
    launches.write_text("".join(lines[:-1]))
    image = (tmp_path / "street.png").read_bytes()
    Image.fromarray(np.ones((40, 72, 3), np.uint8)).save(tmp_path / "street.png")
    shown = dabench("time", "--resume", "run", cwd=tmp_path)
    assert shown.returncode == 2
    assert "street.png has changed since run was begun" in shown.stderr
    (tmp_path / "street.png").write_bytes(image)
    shown = dabench("time", "--resume", "run", "--convention", "mmseg,all", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "mmseg" in shown.stdout
    assert "stdc-seg" not in shown.stdout
    again = launches.read_text().splitlines(keepends=True)
    assert again[:-1] == lines[:-1]
    assert len(again) == len(lines)
