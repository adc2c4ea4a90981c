"""Printed speeds of segmenters: the table, planted contradictions, ratios beside ours."""

import pandas as pd
import pytest
from fakes import make_case
from records import write_medians

from dabench.counting.counts import count_model
from dabench.findings.audit import IMPOSSIBLE, published_operations
from dabench.findings.speeds import (
    LARGER_FASTER,
    NOT_REACHED,
    ORDER_FLIPS,
    beside_ours,
    printed_speeds,
    speed_findings,
)
from dabench.findings.tables import load
from dabench.report.audit import audited
from dabench.report.write import write_report
from dabench_models import MODELS


def printed(network, images_per_s, **changes):
    known = {
        "network": network, "encoder": "", "model": "", "input_hw": "512x1024", "device": "card",
        "runtime": "torch", "dtype": "", "images_per_s": images_per_s, "tier": "paper",
        "source": "s", "name": network, "note": "",
    }  # fmt: skip
    return {**known, **changes}


def found(*rows):
    return [each.finding for each in speed_findings(pd.DataFrame(rows), published_operations())]


def test_the_table_has_conditions_tiers_and_sources():
    speeds = printed_speeds()
    assert len(speeds) >= 80
    assert speeds["source"].nunique() >= 10
    assert set(speeds["tier"]) == {"paper", "reproduction", "reported"}
    assert set(speeds["model"]) - {""} <= {*MODELS}
    assert speeds["input_hw"].str.fullmatch(r"(\d+x\d+)?").all()
    assert (speeds["images_per_s"] > 0).all()
    where = ["network", "encoder", "device", "runtime", "dtype", "input_hw", "source"]
    assert not speeds.duplicated(where).any()


@pytest.mark.parametrize("model", ["stdc1-bisenet", "bisenet-r18"])
def test_the_stored_operations_of_segmenters_are_the_counted_ones(model):
    count = count_model(model, height=512, width=1024)
    stored = published_operations().set_index(["model", "height", "width"]).loc[(model, 512, 1024)]
    for column in ("mode", "executed_macs", "min_bytes", "params"):
        assert stored[column] == getattr(count, column)


SMALL, LARGE = {"model": "stdc1-bisenet"}, {"model": "stdc2-bisenet"}


def test_the_larger_of_two_sizes_is_not_the_faster():
    assert found(printed("a", 100, **SMALL), printed("b", 101, **LARGE)) == [LARGER_FASTER]
    assert not found(printed("a", 101, **SMALL), printed("b", 100, **LARGE))
    # Of another source, or of another size, it says nothing.
    assert not found(printed("a", 100, **SMALL), printed("b", 101, **LARGE, source="t"))
    assert not found(printed("a", 100, **SMALL), printed("b", 101, **LARGE, input_hw="9x9"))


def test_a_speed_that_nobody_else_reaches():
    assert found(printed("a", 130), printed("A", 100, source="t")) == [NOT_REACHED]
    assert not found(printed("a", 120), printed("a", 100, source="t"))
    assert not found(printed("a", 130), printed("a", 100, source="t", device="other"))
    assert not found(printed("a", 130, input_hw=""), printed("a", 100, source="t", input_hw=""))
    # What is run otherwise may well be slower, and what nobody says may be the same.
    assert not found(printed("a", 130, dtype="fp16"), printed("a", 99, source="t", dtype="fp32"))
    assert not found(printed("a", 130, runtime="TensorRT 5"), printed("a", 99, source="t"))
    new, old, bare = (
        printed("a", speed, runtime=name, source=name)
        for speed, name in ((130, "TensorRT 8"), (99, "TensorRT 7"), (99, "TensorRT"))
    )
    assert not found(new, old)
    assert found(new, bare) == [NOT_REACHED]
    # What a user says he gets is no printed speed.
    assert not found(printed("a", 130, tier="reported"), printed("a", 99, source="t"))
    assert found(printed("a", 130, runtime=""), printed("a", 99, source="t")) == [NOT_REACHED]


def test_an_order_that_another_source_turns():
    one = printed("a", 100), printed("b", 80)
    other = {"source": "t", "device": "other", "input_hw": "9x9"}
    turned = printed("a", 10, **other), printed("b", 12, **other)
    assert found(*one, *turned) == [ORDER_FLIPS]
    assert not found(*one, printed("a", 10, **other), printed("b", 9, **other))
    assert not found(*one, printed("a", 10, **other), printed("b", 10.2, **other))
    # Of what size and device nobody says, and whichever two of three sources disagree.
    unknown = {**other, "input_hw": ""}
    assert not found(*one, printed("a", 10, **unknown), printed("b", 12, **unknown))
    own = {"source": "t", "device": "third"}
    agrees = printed("a", 9, **own), printed("b", 7, **own)
    assert found(*agrees, *turned, *one) == [ORDER_FLIPS]


def test_no_speed_is_above_a_chips_peak():
    # 34 GFLOP at the 65 TFLOP/s of a T4's matrix units: 1914 images/s, in fp32 239.
    card = {"device": "Tesla T4", **SMALL}
    assert found(printed("a", 1950, **card))[0].startswith(IMPOSSIBLE)
    assert not found(printed("a", 1900, **card))
    assert found(printed("a", 245, dtype="fp32", **card))[0].startswith(IMPOSSIBLE)


def test_the_published_contradictions_are_found():
    findings, _ = audited(None, with_published=False, with_speeds=True)
    evidence = {each.finding: each.evidence for each in findings}
    assert any("STDC-2 (no pretrain) 23.71" in each.evidence for each in findings)
    assert any("188.6 images/s by TensorRT 5, 133.6" in each.evidence for each in findings)
    assert {LARGER_FASTER, NOT_REACHED} <= evidence.keys()


def segmenter(model):
    return make_case(model=model, family="segmenter", batch=1, channels=3, height=512, width=1024)


def test_ratios_stand_beside_ours(tmp_path):
    times = {segmenter("stdc1-bisenet"): [0.1] * 3, segmenter("stdc2-bisenet"): [0.15] * 3}
    run = write_medians(tmp_path / "run", times)
    rows = beside_ours(printed_speeds(), load([run]))
    assert set(rows["pair"]) == {"stdc2-bisenet / stdc1-bisenet"}
    (ours,) = rows[rows["measured"]].to_dict("records")
    assert ours["ratio"] == pytest.approx(1.5)
    paper = rows[rows["where"].str.startswith("Fan et al. 2021") & (rows["size"] == "512x1024")]
    assert paper["ratio"].tolist() == [pytest.approx(250.4 / 188.6)]
    document, _ = write_report([run], folder=tmp_path, name="speeds")
    text = document.read_text(encoding="utf-8")
    assert "## Printed speeds beside ours" in text
    assert (
        "| stdc2-bisenet / stdc1-bisenet | Fan et al. 2021, GTX 1080Ti, TensorRT 5 (paper) |"
        in text
    )


def test_without_two_networks_that_somebody_prints_there_is_nothing(tmp_path):
    run = write_medians(tmp_path / "run", {segmenter("stdc1-bisenet"): [0.1] * 3})
    assert beside_ours(printed_speeds(), load([run])).empty
