"""Launches to rows: medians, what is left over, scaling back, and back from disk."""

from dataclasses import replace

import pytest
from fakes import make_launch

from dabench.findings.profiles import load_profiles
from dabench.plan.cases import Case
from dabench.profiling.roofline import Ceilings
from dabench.records.folder import RunFolder, kind_of
from dabench.records.profiles import (
    REMAINDER,
    PhaseLayers,
    ProfileRecord,
    failed_phase,
    next_profile_launch,
    read_profiled,
    summarise_phase,
)
from dabench_models import MODELS

CASE = Case(
    model="disc", family="discriminator", device="cpu", batch=2, channels=19, height=64, width=64,
    mode="train", dtype="bf16", memory_format="nchw", threads=1, protocol="steady",
    phases=("forward",),
)  # fmt: skip
ROOF = Ceilings(
    device="cpu", device_name="Test CPU", dtype="bf16", threads=1, kernels={"matmul": 100.0},
    streams=((1 << 30, 10.0, "copy"),), launch_s=0.001, measured="then", versions={},
)  # fmt: skip
COUNT = {
    "layers": [
        {
            "layer": "conv_layers.0", "kind": "Conv2d", "shape": "64x32x32", "operators": 1,
            "macs": 100, "executed_macs": 200, "bytes_moved": 40, "backward_macs": 300,
            "executed_backward_macs": 600, "backward_bytes_moved": 80, "form": "",
        }
    ]
}  # fmt: skip


def launch(number, scale=1.0, hooked=1.0, phase="forward", floors=None):
    layers = {"conv_layers.0": [6 * scale] * 3, "(functional)": [3 * scale] * 3}
    bare = [10 * scale] * 3
    return PhaseLayers(
        launch=number, phase=phase, bare=bare, hooked=[b * hooked for b in bare], layers=layers,
        floors=floors or {},
    )  # fmt: skip


def summarise(*launches, count=COUNT, phase="forward"):
    spec = MODELS["disc"]
    return summarise_phase(CASE, phase, launches, count, ROOF, spec, "Test CPU")


def test_layers_and_the_remainder_add_up_to_the_whole():
    model, rows = summarise(launch(0), launch(1, 2.0), launch(2, 1.5))
    assert model.median_s == 15
    assert [row.layer for row in rows] == ["conv_layers.0", "(functional)", REMAINDER]
    assert [row.median_s for row in rows] == [9, 4.5, 1.5]
    assert (rows[0].low_s, rows[0].high_s) == (6, 12)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [row.stage for row in rows] == ["block 1", "upsampling", REMAINDER]
    assert model.remainder_s == 1.5
    assert not model.corrected


def test_hooks_that_disturb_are_scaled_back():
    model, rows = summarise(launch(0, hooked=1.25), launch(1, hooked=1.25))
    assert model.disturbance == pytest.approx(0.25)
    assert model.corrected
    assert rows[0].median_s == pytest.approx(6 / 1.25)


def test_work_is_that_of_the_phase_and_the_dtype():
    _, forward = summarise(launch(0))
    assert (forward[0].macs, forward[0].flops, forward[0].executed_flops) == (100, 200, 400)
    assert forward[0].moved_bytes == 20  # ten elements of two bytes
    assert forward[0].intensity == 20
    assert forward[0].compute_s == 4
    assert forward[0].memory_s == 2
    assert forward[0].roof_fraction == pytest.approx(4 / 6)
    assert forward[0].bound == "compute"
    _, backward = summarise(launch(0, phase="backward"), phase="backward")
    assert (backward[0].macs, backward[0].executed_flops) == (300, 1200)
    assert backward[0].moved_bytes == 40


def test_the_floor_is_that_of_the_launches_themselves():
    """The ceilings' floors may be of a faster hour, or a slower one."""
    slow, fast = {"Conv2d": 3.5}, {"Conv2d": 0.5}
    of_ceilings = replace(ROOF, floors={"train forward": fast})

    def bound(*floors):
        launches = [launch(number, floors=each) for number, each in enumerate(floors)]
        spec = MODELS["disc"]
        _, rows = summarise_phase(CASE, "forward", launches, COUNT, of_ceilings, spec, "Test CPU")
        return rows[0].bound

    assert bound(slow) == "launch"
    assert bound(fast, slow, slow) == "launch"
    assert bound(slow, fast, fast) == "compute"
    # Before schema 7 there were no others.
    assert bound({}) == "compute"


def test_a_network_that_was_not_counted_still_has_times():
    model, rows = summarise(launch(0), count=None)
    assert model.bound is None
    assert rows[0].bound is None
    assert rows[0].median_s == 6


def test_records_read_back(tmp_path):
    ceilings = [ROOF.to_dict()]
    run = RunFolder.create(
        tmp_path / "r", "profile", command="c", environment={}, plan=[], ceilings=ceilings
    )
    record = ProfileRecord(run)
    done = make_launch(CASE, [], launch=0, round=0, phases=())
    measured = launch(0, floors={"Conv2d": 0.5, "convolution 1x1": 0.25})
    record.launch(done, [measured])
    model, rows = summarise(measured)
    record.summary([model, failed_phase(CASE, "backward", "oom", "too large")], rows)
    assert kind_of(run.path) == "profile"
    assert read_profiled(run.path) == ([done], {CASE.case_id: [measured]})
    read = load_profiles([run.path])
    assert read.ceilings == [("r", ROOF)]
    assert read.models["status"].tolist() == ["ok", "oom"]
    assert read.layers["median_s"].tolist() == [6, 3, 1]
    assert read.layers["stage"].tolist() == ["block 1", "upsampling", REMAINDER]
    passes = (run.path / "passes.csv").read_text().splitlines()
    # Two floors; bare, hooked and two layers, three passes each.
    assert len(passes) == 1 + 2 + 4 * 3


def test_passes_of_a_launch_that_never_ended_are_not_mixed_into_the_next(tmp_path):
    run = RunFolder.create(tmp_path / "r", "profile", command="c", environment={}, plan=[])
    record = ProfileRecord(run)
    for number in (0, 1):
        record.launch(make_launch(CASE, [], launch=number, phases=()), [launch(number)])
    path = run.path / "launches.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert next_profile_launch(run.path) == 2
    assert read_profiled(run.path)[1] == {CASE.case_id: [launch(0)]}


def test_passes_of_a_failed_launch_are_not_read(tmp_path):
    run = RunFolder.create(tmp_path / "r", "profile", command="c", environment={}, plan=[])
    failed = make_launch(CASE, [], launch=0, phases=(), status="oom", reason="too large")
    ProfileRecord(run).launch(failed, [launch(0)])
    assert read_profiled(run.path) == ([failed], {})
