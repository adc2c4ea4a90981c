"""Sentences from planted numbers, each resting on rows that are there."""

import re
from dataclasses import replace

import pytest

from dabench.base.errors import DabenchError
from dabench.findings.explain import explain, runs_of
from dabench.findings.trials import Trial
from dabench.plan.axes import KEPT
from dabench.records.profiles import LayerRow, ModelRow


def network(model, setting, layers, spread=0.0):
    """Rows of one case: layers as (name, seconds, macs, moved bytes, roof seconds, bound)."""
    dtype, memory_format = setting.split()
    common = {
        "case_id": f"{model}/{setting}", "model": model, "batch": 1, "height": 8, "width": 8,
        "mode": "eval", "dtype": dtype, "memory_format": memory_format, "threads": 1,
        "phase": "forward",
    }  # fmt: skip
    whole = sum(seconds for _, seconds, *_ in layers)
    rows = [
        LayerRow(
            **common, layer=name, kind="Conv2d", stage="block 1", shape="", median_s=seconds,
            low_s=seconds, high_s=seconds, share=seconds / whole, macs=macs, flops=2 * macs,
            executed_flops=2 * macs, moved_bytes=moved, roof_s=roof, roof_fraction=roof / seconds,
            bound=bound,
        )
        for name, seconds, macs, moved, roof, bound in layers
    ]  # fmt: skip
    row = ModelRow(
        **common, family="discriminator", device="cpu", channels=3, status="ok", median_s=whole,
        ci_low_s=whole * (1 - spread), ci_high_s=whole * (1 + spread),
        flops=sum(r.flops for r in rows), executed_flops=sum(r.executed_flops for r in rows),
        moved_bytes=sum(r.moved_bytes for r in rows),
        roof_s=sum(r.roof_s for r in rows), bound="compute",
    )  # fmt: skip
    return row, rows


def runs(*networks):
    models = [row for row, _ in networks]
    return runs_of(models, [layer for _, layers in networks for layer in layers])


DENSE = [("conv", 1.0, 10**9, 10**6, 0.8, "compute")]
LIGHT = [("dw", 0.4, 10**8, 10**6, 0.05, "slow kernel"), ("act", 0.1, 0, 10**6, 0.09, "memory")]
FAST = [("dw", 0.1, 10**8, 10**6, 0.05, "memory"), ("act", 0.1, 0, 10**6, 0.09, "memory")]


def planted(spread=0.0):
    return runs(
        network("disc", "fp32 nchw", DENSE, spread),
        network("dw-disc", "fp32 nchw", LIGHT, spread),
        network("disc", "fp32 nhwc", DENSE, spread),
        network("dw-disc", "fp32 nhwc", FAST, spread),
    )


def test_the_numbers_are_in_the_sentences():
    text = " ".join(explain("disc", "dw-disc", planted(), "fp32 nchw").sentences)
    assert "should take 1/10 of disc's time" in text
    assert "in fp32 nchw dw-disc is 2 times as fast as disc (ratio 2" in text
    assert "with every layer at its roof on this machine the ratio would be 5.71, not 10" in text
    assert "dw-disc spends 20% in layers near the memory roof and 80% in kernels below 30%" in text
    assert "dw-disc's dw (Conv2d, forward) runs far below both roofs: 400 ms, 80% of the" in text
    assert "in fp32 nhwc it takes 100 ms (50% of that roof)" in text
    assert (
        "dw-disc, against itself in fp32 nchw: 2.5 times (2.5 to 2.5) as fast in fp32 nhwc; "
        "try fp32 nhwc first" in text
    )
    assert (
        "disc, against itself in fp32 nchw: 1 times (1 to 1) as fast in fp32 nhwc; none of them "
        "clearly" in text
    )
    assert "disc / dw-disc is 2 in fp32 nchw and 5 in fp32 nhwc" in text


def test_every_sentence_names_rows_that_exist():
    text = explain("disc", "dw-disc", planted(), "fp32 nchw")
    numbers = {row[0] for row in text.evidence}
    for sentence in text.sentences:
        (cited,) = re.findall(r"\[([\d, ]+)\]$", sentence)
        assert set(cited.split(", ")) <= numbers


def test_operations_on_a_masks_zeros_are_not_called_memory_traffic():
    found = planted()
    masked = found["dw-disc", "fp32 nchw"]
    # Four times what its definition needs: 10 / 4 of the promise is left.
    rows = tuple(replace(row, executed_flops=4 * row.flops) for row in masked.rows)
    found["dw-disc", "fp32 nchw"] = replace(masked, rows=rows)
    text = " ".join(explain("disc", "dw-disc", found, "fp32 nchw").sentences)
    assert "zeros of masks included, the ratio is only 2.5" in text
    assert "5.71, not 2.5; so of the promise a factor of 2.29 is gained" in text
    turned = " ".join(explain("dw-disc", "disc", found, "fp32 nchw").sentences)
    assert "zeros of masks included, the ratio is 0.4 (" in turned
    assert "By operations disc should take 10 times dw-disc's time (" in turned


def slower(network_rows, factor):
    """The same layers, each so many times as long."""
    return [(name, factor * seconds, *rest) for name, seconds, *rest in network_rows]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        # Seconds relative to fp32 nchw.
        ({"fp32 nhwc": 0.5}, "try fp32 nhwc first."),
        ({"fp32 nhwc": 0.5, "bf16 nhwc": 0.2},
         "try fp32 nhwc first, and bf16 nhwc where that precision will do."),
        ({"fp32 nhwc": 0.97, "bf16 nhwc": 0.2},
         "try bf16 nhwc where that precision will do; none helps in fp32."),
        ({"fp32 nhwc": 0.97, "bf16 nhwc": 1.5}, "none of them clearly beats fp32 nchw."),
    ],
)  # fmt: skip
def test_the_same_precision_is_tried_first_and_only_clear_gains(settings, advice):
    def advised(spread):
        nets = [network(name, "fp32 nchw", LIGHT, spread) for name in ("disc", "dw-disc")]
        for setting, factor in settings.items():
            nets += [
                network(name, setting, slower(LIGHT, factor), spread)
                for name in ("disc", "dw-disc")
            ]
        text = explain("disc", "dw-disc", runs(*nets), "fp32 nchw")
        (said,) = [s for s in text.sentences if s.startswith("dw-disc, against itself")]
        return said.partition(" [")[0]

    assert advised(0.01).endswith(advice)
    # Where intervals overlap nothing clearly helps.
    assert advised(0.7).endswith("none of them clearly beats fp32 nchw.")


def trial(model, change, seconds, gain, against=None):
    return Trial(
        model=model, change=change, seconds=seconds, low_s=0.9 * seconds, high_s=1.1 * seconds,
        gain=gain, against=against, compile_s=12.0 if "compile" in change else None,
    )  # fmt: skip


def test_trials_are_said_with_their_intervals_and_rows():
    compiled = "torch.compile (default)"
    text = explain(
        "disc", "dw-disc", planted(), "fp32 nchw",
        [
            trial("disc", "", 1.0, (1.0, 1.0, 1.0)),
            trial("disc", compiled, 1.0, (1.0, 0.9, 1.1)),
            trial("dw-disc", "", 0.5, (1.0, 1.0, 1.0), (2.0, 1.9, 2.1)),
            trial("dw-disc", compiled, 0.25, (2.0, 1.8, 2.2), (4.0, 3.7, 4.3)),
        ],
    )  # fmt: skip
    said = " ".join(text.sentences)
    assert (
        "disc in fp32 nchw with one thing changed, in images per second: 1 times (0.9 to 1.1) "
        "with torch.compile (default); none of these clearly helps." in said
    )
    assert (
        "2 times (1.8 to 2.2) with torch.compile (default); torch.compile (default) helps" in said
    )
    assert (
        "The ratio disc / dw-disc of these is 2 (1.9 to 2.1) as it is and 4 (3.7 to 4.3) with "
        "torch.compile (default)." in said
    )
    rows = [row for row in text.evidence if "without hooks" in row[3]]
    assert len(rows) == 4
    assert rows[-1][1:5] == (
        "dw-disc", "fp32 nchw, torch.compile (default)",
        "one image, without hooks (225 ms to 275 ms, compiled in 12 s)", "250 ms",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "gain", "said"),
    [
        (0.45, 0.01, 1.8, True), (0.45, 0.3, 1.8, False), (0.05, 0.0, 1.8, False),
        (0.45, 0.01, 0.9, False), (None, 0.01, 1.8, False),
    ],
)  # fmt: skip
def test_what_the_system_takes_for_memory_is_said_where_keeping_it_shows(before, after, gain, said):
    text = explain(
        "disc", "dw-disc", planted(), "fp32 nchw",
        [
            replace(trial("dw-disc", "", 1.0, (1.0, 1.0, 1.0)), system_share=before),
            replace(trial("dw-disc", KEPT, 0.5, (2.0, gain, 2.2)), system_share=after),
        ],
    )  # fmt: skip
    found = [line for line in text.sentences if line.startswith("Of dw-disc's processor time")]
    assert bool(found) is said
    if said:
        assert "in fp32 nchw the operating system takes 45%, and 1% with memory kept" in found[0]
        rows = [row for row in text.evidence if row[0] in re.findall(r"\d+", found[0][-9:])]
        assert [row[3].rpartition(", ")[2] for row in rows] == [
            "45% the system's)", "1% the system's)",
        ]  # fmt: skip


def test_every_amount_in_the_first_sentences_is_in_the_evidence():
    text = explain("disc", "dw-disc", planted(), "fp32 nchw")
    cells = {cell for row in text.evidence for cell in row}
    for amount in re.findall(r"[\d.]+ [kMG]?(?:FLOP|[KMG]iB)", " ".join(text.sentences[:3])):
        assert amount.removesuffix("FLOP") in {cell.removesuffix("FLOP") for cell in cells}


def test_uncounted_operations_are_said_and_no_traceback():
    found = planted()
    bare = found["dw-disc", "fp32 nchw"]
    rows = tuple(replace(row, flops=None, executed_flops=None) for row in bare.rows)
    found["dw-disc", "fp32 nchw"] = replace(bare, rows=rows)
    with pytest.raises(DabenchError, match="operations of dw-disc in fp32 nchw were not counted"):
        explain("disc", "dw-disc", found, "fp32 nchw")


def test_what_the_data_does_not_decide_is_not_said():
    text = explain("disc", "dw-disc", planted(spread=0.5), "fp32 nchw")
    assert "does not decide which of disc and dw-disc is faster" in text.sentences[0]


def test_a_case_that_failed_is_no_run():
    good, layers = network("disc", "fp32 nchw", DENSE)
    bad = ModelRow(
        case_id="x", model="dw-disc", family="discriminator", device="cpu", batch=1, channels=3,
        height=8, width=8, mode="eval", dtype="fp32", memory_format="nchw", threads=1,
        phase="forward", status="oom", reason="too large",
    )  # fmt: skip
    assert set(runs_of([good, bad], layers)) == {("disc", "fp32 nchw")}
