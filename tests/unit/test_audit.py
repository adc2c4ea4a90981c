"""The audit on planted rows, and on the published tables."""

from dataclasses import replace

import pandas as pd
import pytest
from records import write_run

from dabench.counting.counts import count_model
from dabench.findings.audit import (
    ROW_COLUMNS,
    audit,
    peak_of,
    published_operations,
    published_rows,
    rankings,
    unchecked,
)
from dabench.findings.tables import load, published
from dabench.report.audit import audited

OPERATIONS = pd.DataFrame(
    [
        {
            "model": "net", "channels": 3, "height": 10, "width": 10, "mode": mode,
            "executed_macs": 10**12, "min_bytes": 4 * 10**6, "params": 0,
        }
        for mode in ("train", "eval")
    ]
)  # fmt: skip


def row(**changes):
    known = {
        "source": "s", "machine": "T4", "device_name": "Tesla T4", "device": "cuda",
        "model": "net", "batch": 1, "channels": 3, "height": 10, "width": 10, "mode": "eval",
        "dtype": "fp32", "setting": "", "passes": 1, "seconds": 1.0, "low_s": float("nan"),
        "high_s": float("nan"),
    }  # fmt: skip
    return {**known, **changes}


def findings(*rows):
    return audit(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), OPERATIONS)


@pytest.mark.parametrize(
    ("changes", "impossible"),
    [
        ({"seconds": 2 / 8.1 * 0.99}, True),  # 2 TFLOP at 8.1 TFLOP/s
        ({"seconds": 2 / 8.1 * 1.01}, False),
        ({"seconds": 2 / 8.1 * 1.01, "batch": 2}, True),
        ({"seconds": 2 / 8.1 * 1.01, "passes": 50}, True),
        ({"seconds": 2 / 8.1 * 0.99, "dtype": "fp16"}, False),  # its matrix units do 65
        ({"seconds": 1e-3, "device_name": "unheard of"}, False),
        ({"seconds": 1e-3, "model": "not counted"}, False),
    ],
)
def test_planted_times_around_the_floor(changes, impossible):
    found = findings(row(**changes))
    assert [f.finding for f in found] == (["impossible in fp32"] if impossible else [])


def test_the_arithmetic_is_written_out():
    (found,) = findings(row(seconds=0.1))
    assert "2 x 1 T multiply-adds x 1 images = 2 TFLOP at 8.1 TFLOP/s (fp32)" in found.evidence
    assert "at least 247 ms; 100 ms is 40% of that" in found.evidence
    assert "datasheet" in found.evidence


def test_bytes_are_a_floor_too():
    heavy = OPERATIONS.assign(executed_macs=1, min_bytes=320 * 10**9)
    rows = pd.DataFrame([row(seconds=0.9)], columns=list(ROW_COLUMNS))
    (found,) = audit(rows, heavy)
    assert "at 320 GB/s take at least 1 s" in found.evidence


def test_train_faster_than_eval():
    slow = {"device_name": "", "seconds": 1.0}
    assert findings(row(**slow), row(**{**slow, "mode": "train", "seconds": 0.98})) == []
    (found,) = findings(row(**slow), row(**{**slow, "mode": "train", "seconds": 0.9}))
    assert found.finding == "train faster than eval"
    assert found.what == "net, batch 1 of 10x10, fp32"
    noisy = row(**{**slow, "low_s": 0.8, "high_s": 1.2})
    within = row(**{**slow, "mode": "train", "seconds": 0.9, "low_s": 0.7, "high_s": 1.1})
    assert findings(noisy, within) == []
    other = row(**{**slow, "mode": "train", "seconds": 0.9, "dtype": "bf16"})
    assert findings(row(**slow), other) == []


def test_one_time_for_all_batches_is_not_the_works():
    same = [row(device_name="", batch=batch) for batch in (1, 8)]
    (found,) = findings(*same)
    assert found.finding == "same time for different batches"
    assert "batch 1 1 s, batch 8 1 s" in found.evidence
    assert findings(row(device_name=""), row(device_name="", batch=8, seconds=8.0)) == []


def pair(**changes):
    known = {
        "run_id": "r", "machine": "m", "device": "cpu", "batch": 1, "channels": 3, "height": 10,
        "width": 10, "mode": "eval", "dtype": "fp32", "memory_format": "nchw", "threads": 2,
        "protocol": "steady", "phase": "forward", "compile": "off", "fuse": "off",
        "runtime": "eager", "input": "device", "numerator": "net", "denominator": "other",
        "ratio": 1.1, "ratio_low": 0.9, "ratio_high": 1.3, "launches": 3, "samples": 9,
        "verdict": "undecided",
    }  # fmt: skip
    return {**known, **changes}


def test_a_ranking_that_the_ratio_does_not_decide():
    (found,) = rankings(pd.DataFrame([pair(), pair(verdict="slower"), pair(verdict="same")]))
    assert found.finding == "ranking not supported"
    assert (
        found.what == "net, other, eval, batch 1 of 10x10, fp32, nchw, 2 threads, protocol steady"
    )
    assert found.evidence == "net / other is 1.1 (0.9 to 1.3) over 3 launches each"
    (other,) = rankings(pd.DataFrame([pair(runtime="openvino"), pair(phase="backward")]))
    assert other.what.endswith("protocol steady, openvino")
    (alone,) = rankings(pd.DataFrame([pair(samples=1, launches=1)]))
    assert alone.evidence == "net / other is 1.1 (of one sample) over 1 launches each"
    assert rankings(pd.DataFrame()) == []


def test_all_pairs_of_a_setting_are_ranked(tmp_path):
    """Also those that are not neighbours: the first and the last of three may be undecided."""
    loaded = load([write_run(tmp_path)])
    found, _ = audited(loaded, with_published=False)
    assert [f for f in found if f.finding == "ranking not supported"] == []
    noisy = loaded.samples.assign(
        wall_s=loaded.samples["wall_s"] * (1 + loaded.samples["launch"] ** 2 % 5)
    )
    found, _ = audited(replace(loaded, samples=noisy), with_published=False)
    pairs = {f.what.partition(", eval")[0] for f in found if f.finding == "ranking not supported"}
    assert {"disc, dw-disc", "disc, diag-disc", "dw-disc, diag-disc"} <= pairs


def test_operations_are_those_of_the_run_and_of_the_channels():
    """Two runs may mean different networks by one name."""
    light = OPERATIONS.assign(executed_macs=1, min_bytes=4)
    both = pd.concat([OPERATIONS.assign(source="measured: heavy"), light.assign(source="")])
    rows = [row(seconds=0.1, source="measured: heavy"), row(seconds=0.1, source="measured: light")]
    (found,) = audit(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), both)
    assert found.source == "measured: heavy"
    other = pd.DataFrame([row(seconds=0.1, channels=1)], columns=list(ROW_COLUMNS))
    assert audit(other, OPERATIONS) == []


def test_winograd_is_named_where_it_may_be_why():
    rows = [row(seconds=0.1, model=name) for name in ("stdc1-bisenet", "disc")]
    counted = pd.concat([OPERATIONS.assign(model=name) for name in ("stdc1-bisenet", "disc")])
    segmenter, discriminator = audit(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), counted)
    assert "unless a library did 3x3 convolutions by Winograd" in segmenter.evidence
    assert "Winograd" not in discriminator.evidence


def test_the_published_gpu_times_are_impossible_and_the_cpu_ones_are_not():
    found = audit(published_rows(published()), published_operations())
    impossible = {
        (f.machine, f.what.partition(", batch")[0]) for f in found if "imposs" in f.finding
    }
    assert impossible == {
        ("T4", "disc, train"), ("T4", "disc, eval"), ("T4 + RAM", "disc, train"),
        ("T4 + RAM", "disc, eval"), ("RTX 4070", "disc, train"),
    }  # fmt: skip
    assert not [f for f in found if f.machine == "5800X"]
    (t4,) = [f for f in found if f.machine == "T4" and f.what.startswith("disc, train, batch 32")]
    assert "1600 images = 49.4 TFLOP at 8.1 TFLOP/s (fp32) take at least 6.1 s" in t4.evidence


def test_unknown_chips_are_named():
    assert unchecked(published_rows(published())) == ["Colab CPU", "Colab TPU"]


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("Tesla T4", "NVIDIA T4"),
        ("NVIDIA GeForce RTX 4070", "NVIDIA GeForce RTX 4070"),
        ("NVIDIA GeForce RTX 4070 Ti", None),
        ("NVIDIA T400", None),
        ("AMD Ryzen 7 5800X 8-Core Processor", "AMD Ryzen 7 5800X"),
        ("AMD Ryzen 7 5800X3D 8-Core Processor", None),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB SXM"),
    ],
)
def test_only_listed_chips_have_a_peak(name, chip):
    peak = peak_of(name)
    assert (peak.chip if peak else None) == chip


@pytest.mark.parametrize("name", ["disc", "dw-disc"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_stored_operations_are_the_counted_ones(name, mode):
    stored = published_operations().set_index(["model", "mode"]).loc[(name, mode)]
    count = count_model(name, mode=mode)
    for column in ("height", "width", "executed_macs", "min_bytes", "params"):
        assert stored[column] == getattr(count, column)
