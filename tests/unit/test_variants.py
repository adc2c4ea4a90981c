"""Ways to run a network: which can be had where, and how they are named."""

from functools import partial

import pytest
from fakes import make_case

from dabench.plan import variants
from dabench.plan.axes import COMPILES, FUSES, INPUTS, RUNTIMES, VARIANT_AXES, variant_name
from dabench.plan.cases import Case
from dabench.plan.variants import why_impossible

# Packages that only the extras bring.
EXPORTED = partial(pytest.param, marks=pytest.mark.extras)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"compile": "default"}, None),
        ({"compile": "default", "mode": "train"}, None),
        ({"compile": "freeze", "mode": "train"}, "use --mode eval"),
        ({"fuse": "on"}, None),
        ({"fuse": "on", "mode": "train"}, "use --mode eval"),
        ({"fuse": "on", "compile": "max-autotune"}, None),
        ({"input": "host"}, None),
        ({"input": "host", "mode": "train"}, "use --mode eval"),
        ({"fuse": "on", "protocol": "paper"}, "paper's protocol"),
        EXPORTED({"runtime": "onnxruntime"}, None),
        EXPORTED({"runtime": "onnxruntime", "input": "host"}, None),
        ({"runtime": "onnxruntime", "mode": "train"}, "use --mode eval"),
        ({"runtime": "onnxruntime", "compile": "default"}, "leave one out"),
        ({"runtime": "onnxruntime", "fuse": "on"}, "leave --fuse off"),
        ({"runtime": "onnxruntime", "memory_format": "nhwc"}, "use --memory-format nchw"),
        ({"runtime": "onnxruntime", "dtype": "bf16"}, "in fp32, int8 on cpu, not in bf16"),
        EXPORTED({"runtime": "openvino", "dtype": "bf16"}, None),
        ({"runtime": "openvino", "device": "cuda:0"}, "openvino runs on cpu, not on cuda"),
        ({"runtime": "tensorrt"}, "tensorrt runs on cuda, not on cpu"),
        EXPORTED({"runtime": "tensorrt", "device": "cuda:1", "dtype": "fp16"}, None),
        ({"allocator": "keep"}, None),
        ({"allocator": "keep", "mode": "train"}, None),
        ({"allocator": "keep", "compile": "default", "fuse": "on"}, None),
        ({"allocator": "keep", "device": "cuda:0"}, "torch's kernels on a CPU, not of cuda:0"),
        ({"allocator": "keep", "runtime": "openvino"}, "torch's kernels on a CPU, not of openvino"),
        ({"allocator": "keep", "protocol": "paper"}, "paper's protocol"),
        ({"allocator": "keep", "runtime": "openvino", "mode": "train"}, "not of openvino"),
        ({"runtime": "cuda-graph"}, "cuda-graph runs on cuda, not on cpu"),
        ({"runtime": "cuda-graph", "device": "cuda:0", "memory_format": "nhwc"}, None),
    ],
)
def test_what_goes_together(changes, reason):
    found = why_impossible(make_case(**changes))
    assert found is None if reason is None else reason in found


def test_a_runtime_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr(variants, "find_spec", lambda name: None if name == "openvino" else True)
    reason = why_impossible(make_case(runtime="openvino"))
    assert reason == "openvino is not installed; pip install 'dabench[openvino]'"
    assert why_impossible(make_case(runtime="onnxruntime")) is None


def test_only_what_is_unusual_is_named():
    assert make_case().case_id == "dw-disc/cpu/b2/19x64x64/eval/fp32/nchw/tdefault/steady"
    case = make_case(compile="freeze", fuse="on", input="host")
    assert case.case_id.endswith("/tdefault/compile=freeze/fuse=on/input=host/steady")
    assert variant_name("off", "off", "eager", "device") == "eager"
    assert variant_name("default", "on", "eager", "host") == "compile default, fused, input on host"
    assert variant_name("off", "off", "openvino", "device") == "openvino"


def test_ids_tell_every_variant_apart():
    ids = {
        make_case(compile=c, fuse=f, runtime=r, input=i).case_id
        for c in COMPILES
        for f in FUSES
        for r in RUNTIMES
        for i in INPUTS
    }
    assert len(ids) == len(COMPILES) * len(FUSES) * len(RUNTIMES) * len(INPUTS)


def test_plans_made_before_there_were_variants_are_read():
    document = make_case().to_dict()
    for axis in VARIANT_AXES:
        del document[axis]
    assert Case.of(document) == make_case()
