"""Each built-in segmenter in its best way, against the roof of this machine and precision."""

import pytest

import dabench
from dabench.counting.counts import count_model
from dabench.plan.settings import ITEM_BYTES, Grid
from dabench.profiling.roofline import roof_of
from dabench.run.ceilings import measure_ceilings

SEGMENTERS = ("stdc1-bisenet", "stdc2-bisenet", "bisenet-r18")
FOLDED = {"fuse": "on", "memory_format": "nhwc"}
KEPT = {**FOLDED, "allocator": "keep"}
WAYS = {
    "fp32": (FOLDED, KEPT, {"runtime": "onnxruntime"}, {"runtime": "openvino"}),
    "bf16": (FOLDED, KEPT, {"runtime": "openvino"}, {**FOLDED, "compile": "freeze"}),
}


@pytest.fixture(scope="module")
def ceilings():
    """Dtype -> what this machine reached at best, measured in this run."""
    grid = Grid(models=("-",), devices=("cpu",), dtypes=("fp32", "bf16?"))
    return {each.dtype: each for each in measure_ceilings(grid, again=True).found}


def roof_s(model, ceilings):
    """The least a forward can take: of each layer its operations or its bytes at the roof."""
    count = count_model(model)
    item = ITEM_BYTES[ceilings.dtype]
    return sum(
        roof_of(
            ceilings,
            flops=2 * layer.executed_macs,
            moved_bytes=max(layer.bytes_moved // 4 * item, 1),
            launch_s=0.0,
        ).seconds
        for layer in count.layers
    )


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 0.70), ("bf16", 0.60)])
@pytest.mark.parametrize("model", SEGMENTERS)
def test_a_segmenter_in_its_best_way_is_near_its_roof(
    compare, ceilings, native, model, dtype, bound
):
    if dtype not in native:
        pytest.skip(f"this processor has no {dtype}")
    roof, shares, reasons = roof_s(model, ceilings[dtype]), [], []
    for way in WAYS[dtype]:
        (row,) = dabench.time(model, device="cpu", dtype=dtype, repeat=7, launches=3, **way)
        if row.median_s is None:
            reasons.append(f"{way}: {row.reason}")
            print(f"\n{model} in {dtype}, {reasons[-1]}")
            continue
        shares.append(roof / row.median_s)
        compare.check(f"share of the {dtype} roof that {model} reaches, {way}", shares[-1])
    assert shares, reasons
    compare.benchmark.pedantic(lambda: None, rounds=1, iterations=1)
    compare.check(f"share of the {dtype} roof that {model} reaches", max(shares), at_least=bound)
