"""One table of axes: what is made from it agrees with it."""

from dataclasses import fields, replace

import pytest
import typer.main

from dabench.cli.app import app
from dabench.cli.options import OPTIONS
from dabench.findings.tables import SETTING, VARIANT_SETTING
from dabench.plan.axes import AXES, columns_of
from dabench.plan.cases import Case, expand
from dabench.plan.grids import AXIS_KEYS
from dabench.plan.settings import Grid, Settings
from dabench.records.measurements import Measurement

NAMES = [*AXES]
# Another value than the usual one, which every device and network of the registry takes.
OTHER = {
    "model": "dw-disc", "device": "cuda", "batch": 3, "size": (64, 96), "mode": "train",
    "phase": "backward", "dtype": "bf16", "memory_format": "nhwc", "threads": 2,
    "compile": "freeze", "fuse": "on", "runtime": "openvino", "input": "host",
    "calibration": "8", "keep_float": "heads", "allocator": "keep", "protocol": "paper",
    "rate": 60.0, "concurrency": 2,
}  # fmt: skip
# What a value of another axis needs to say anything.
INT8 = {"dtypes": ("int8",), "runtimes": ("onnxruntime",)}
NEEDS = {"rate": {"protocols": ("stream",)}, "calibration": INT8, "keep_float": INT8}
FIELDS = {each.name: each for each in fields(Grid)}


def case_of(**axes):
    (planned,) = expand(Grid(**{"models": ("disc",), "devices": ("cpu",), **axes}), Settings())
    return planned.case


@pytest.mark.parametrize("key", NAMES)
def test_a_grid_holds_every_axis_with_its_usual_values(key):
    axis = AXES[key]
    assert axis.field in FIELDS
    if not axis.required:
        assert FIELDS[axis.field].default == axis.usual


def test_a_grid_holds_nothing_else_but_arguments():
    assert {*FIELDS} == {axis.field for axis in AXES.values()} | {"model_args"}
    assert (*AXES, "model_arg") == AXIS_KEYS


@pytest.mark.parametrize("key", NAMES)
def test_cases_and_measurements_have_its_columns(key):
    measured = {each.name for each in fields(Measurement)}
    assert set(AXES[key].columns) <= measured
    if key != "phase":
        assert set(AXES[key].columns) <= {each.name for each in fields(Case)}


@pytest.mark.parametrize("key", [name for name in NAMES if name != "phase"])
def test_another_value_is_another_case(key):
    axis = AXES[key]
    needs = NEEDS.get(key, {})
    usual = {axis.field: (30.0,)} if key == "rate" else {}
    other = case_of(**{**needs, axis.field: (OTHER[key],)})
    assert other.case_id != case_of(**needs, **usual).case_id


def test_case_ids_are_those_that_records_hold():
    case = case_of(sizes=((64, 96),), threads=(2,), fuses=("on",), inputs=("host",))
    assert case.case_id == "disc/cpu/b1/19x64x96/eval/fp32/nchw/t2/fuse=on/input=host/steady"
    assert replace(case, threads=0, fuse="off", input="device").case_id == (
        "disc/cpu/b1/19x64x96/eval/fp32/nchw/tdefault/steady"
    )


@pytest.mark.parametrize("command", ["time", "sweep"])
@pytest.mark.parametrize("key", NAMES)
def test_commands_have_an_option_for_it(command, key):
    params = {p.name: p for p in typer.main.get_command(app).commands[command].loaded().params}
    assert params[key].opts == [AXES[key].option]
    assert key in OPTIONS


def test_rows_are_compared_where_all_but_the_network_agrees():
    assert set(SETTING) == {"run_id", "machine", *columns_of("model")}
    assert {"model", "input"} <= set(VARIANT_SETTING)
    assert not {"compile", "fuse", "runtime", "memory_format"} & set(VARIANT_SETTING)
