"""Which printed or measured times cannot be true, and which cannot carry their ranking.

A time is impossible where the operations at the chip's peak rate, or the least
bytes at its bandwidth, take longer. Peaks are datasheet figures, each with its
source, of chips that are listed; an unknown chip has none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from dabench.base.units import format_bytes, format_count, format_seconds, significant
from dabench.findings.tables import by_setting, published, reference
from dabench.plan.axes import EAGER, variant_in
from dabench.plan.settings import ITEM_BYTES
from dabench.timing.verdicts import DELTA
from dabench_models import MODELS

IMPOSSIBLE = "impossible"
TRAIN_FASTER = "train faster than eval"
SAME_FOR_BATCHES = "same time for different batches"
UNSUPPORTED = "ranking not supported"

Row = Mapping[str, Any]

MARGIN = 0.03
FEWEST_TIMES = 2

AUDIT_RULE = (
    f"`{IMPOSSIBLE}`: below executed operations over the chip's peak rate in the dtype, or least "
    f"bytes (input, parameters and output once) over its bandwidth; `{TRAIN_FASTER}`: by more than "
    f"{MARGIN:.0%} and beyond their intervals, forward against forward; `{SAME_FOR_BATCHES}`: "
    f"within {MARGIN:.0%} at {FEWEST_TIMES} times the batch or more, so the time is not the "
    f"work's; `{UNSUPPORTED}`: of two models measured in one setting neither is faster by more "
    f"than {DELTA:.0%}, nor both the same to that, by the 95% interval of their ratio"
)

ROW_COLUMNS = (
    "source", "machine", "device_name", "device", "model", "batch", "channels", "height",
    "width", "mode", "dtype", "setting", "passes", "seconds", "low_s", "high_s",
)  # fmt: skip
"""What `audit` needs of each row; ``setting`` is whatever else must be equal to compare."""

_SETTING = ["source", "machine", "device", "height", "width", "dtype", "setting", "passes"]


@dataclass(frozen=True, slots=True)
class Peak:
    """Datasheet figures of one chip.

    Attributes:
        chip: Its name.
        flops_per_s: Dtype -> peak FLOP/s; a dtype without a listed figure is missing.
        bytes_per_s: Memory bandwidth.
        source: Where the figures are from.
    """

    chip: str
    flops_per_s: dict[str, float]
    bytes_per_s: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that cannot be right, with the arithmetic."""

    source: str
    machine: str
    what: str
    finding: str
    evidence: str


@cache
def peak_of(device_name: str) -> Peak | None:
    """The datasheet figures of a chip by the name its driver or a table gives it."""
    for row in reference("peaks.csv").to_dict("records"):
        if re.search(str(row["pattern"]), device_name):
            rates = {
                dtype: float(row[f"{dtype}_flops_per_s"])
                for dtype in ITEM_BYTES
                if pd.notna(row.get(f"{dtype}_flops_per_s"))
            }
            return Peak(str(row["chip"]), rates, float(row["bytes_per_s"]), str(row["source"]))
    return None


def published_operations() -> pd.DataFrame:
    """Operations of one image of the networks with published times (by ``dabench flops``)."""
    return reference("operations.csv")


def published_rows(published: pd.DataFrame) -> pd.DataFrame:
    """The published times of single networks, as rows to audit; they are taken as fp32."""
    timed = published[(published["protocol"] == "paper") & (published["quantity"] == "time")]
    return pd.DataFrame(
        {
            **{name: timed[name] for name in ("machine", "device", "model", "mode")},
            **{
                name: timed[name].astype(int)
                for name in ("batch", "channels", "height", "width", "passes")
            },
            "source": "published: " + timed["table"],
            "device_name": timed["machine"],
            "dtype": "fp32",
            "setting": "",
            "seconds": timed["value"].astype(float),
            "low_s": float("nan"),
            "high_s": float("nan"),
        }
    )[list(ROW_COLUMNS)]


def measured_rows(measurements: pd.DataFrame) -> pd.DataFrame:
    """Measured forward times as rows to audit, in the time the work was really done."""
    good = measurements[(measurements["status"] == "ok") & (measurements["phase"] == "forward")]
    # Under the paper's protocol the host's clock stopped before the device was done.
    finished = good["device_median_s"].where(good["protocol"] == "paper")
    setting = [setting_of(row) for row in good.to_dict("records")]
    return pd.DataFrame(
        {
            **{
                name: good[name]
                for name in (
                    "machine", "device", "model", "batch", "channels", "height", "width", "mode",
                    "dtype", "passes",
                )
            },
            "source": "measured: " + good["run_id"],
            "device_name": good["device_name"].fillna(good["machine"]),
            "setting": setting,
            "seconds": finished.fillna(good["median_s"]),
            "low_s": good["ci_low_s"].where(finished.isna()),
            "high_s": good["ci_high_s"].where(finished.isna()),
        }
    )[list(ROW_COLUMNS)]  # fmt: skip


def setting_of(row: Mapping[Hashable, Any]) -> str:
    """What else must be equal for two measurements to be compared, in words."""
    way = variant_in({str(key): value for key, value in row.items()})
    facts = [row["memory_format"], f"{row['threads']} threads", f"protocol {row['protocol']}"]
    return ", ".join(facts + [way] * (way != EAGER))


def audit(rows: pd.DataFrame, operations: pd.DataFrame) -> list[Finding]:
    """Every check over every row.

    Args:
        rows: Columns `ROW_COLUMNS`.
        operations: Per image: ``model``, ``channels``, ``height``, ``width``,
            ``mode``, ``executed_macs``, ``min_bytes`` (fp32) and ``params``;
            ``source`` where they hold for the rows of that source alone, since
            two runs may mean different networks by one name.
    """
    findings = [each for _, each in _impossible(rows, operations)]
    for group in by_setting(rows, _SETTING):
        findings += _train_against_eval(group)
        findings += _over_batches(group)
    return findings


def impossible_cells() -> dict[tuple[str, str, str], str]:
    """By machine, model and mode the published times that cannot be true, with the sum."""
    operations = published_operations().assign(source="")
    return {
        (row["machine"], row["model"], row["mode"]): each.evidence
        for row, each in _impossible(published_rows(published()), operations)
    }


def _impossible(rows: pd.DataFrame, operations: pd.DataFrame) -> Iterator[tuple[Row, Finding]]:
    """Rows below the floor of their chip."""
    shape = ["model", "channels", "height", "width", "mode"]
    known = {
        (str(row.get("source") or ""), *(str(row[name]) for name in shape)): row
        for row in operations.to_dict("records")
    }
    for row in rows.to_dict("records"):
        key = tuple(str(row[name]) for name in shape)
        counted = known.get((row["source"], *key)) or known.get(("", *key))
        if counted is not None:
            named = {str(name): value for name, value in row.items()}
            yield from ((named, each) for each in _below_floor(pd.Series(row), pd.Series(counted)))


def _below_floor(row: object, operations: object) -> Iterator[Finding]:
    peak = peak_of(str(getattr(row, "device_name", "")))
    if peak is None:
        return
    dtype, seconds = str(_of(row, "dtype")), float(_of(row, "seconds"))
    images = int(_of(row, "batch")) * int(_of(row, "passes"))
    flops = 2 * float(_of(operations, "executed_macs")) * images
    weights = 4 * float(_of(operations, "params"))
    moved = (float(_of(operations, "min_bytes")) - weights) * images
    moved = (moved + weights * int(_of(row, "passes"))) / 4 * ITEM_BYTES[dtype]
    sums = []
    if rate := peak.flops_per_s.get(dtype):
        each = f"{format_count(float(_of(operations, 'executed_macs')))} multiply-adds"
        work = f"2 x {each} x {images} images = {format_count(flops)}FLOP"
        sums.append((flops / rate, f"{work} at {format_count(rate)}FLOP/s ({dtype})"))
    bandwidth = f"{format_count(peak.bytes_per_s)}B/s"
    sums.append((moved / peak.bytes_per_s, f"least {format_bytes(moved)} at {bandwidth}"))
    floor, arithmetic = max(sums)
    if seconds < floor:
        least, printed = format_seconds(floor), format_seconds(seconds)
        evidence = f"{arithmetic} take at least {least}; {printed} is {seconds / floor:.0%} of that"
        if _may_use_winograd(str(_of(row, "model"))):
            evidence += (
                ", unless a library did 3x3 convolutions by Winograd's algorithm, which takes down "
                "to a quarter of the multiplications"
            )
        yield _finding(row, f"{IMPOSSIBLE} in {dtype}", f"{evidence} ({peak.chip}: {peak.source})")


def _may_use_winograd(model: str) -> bool:
    """Whether a network may have 3x3 convolutions of stride 1: the discriminators have none."""
    return model not in MODELS or MODELS[model].family != "discriminator"


def _train_against_eval(group: Sequence[Row]) -> Iterator[Finding]:
    first: dict[tuple[Any, ...], Row] = {}
    for row in group:
        first.setdefault((row["model"], row["batch"], row["mode"]), row)
    for (model, batch, mode), a in first.items():
        b = first.get((model, batch, "eval"))
        if mode != "train" or b is None:
            continue
        # Where intervals are known they must lie apart: noise is no contradiction.
        apart = not a["high_s"] >= b["low_s"]
        if a["seconds"] < (1 - MARGIN) * b["seconds"] and apart:
            evidence = (
                f"train {format_seconds(a['seconds'])}, eval {format_seconds(b['seconds'])}: "
                "training mode does at least the same forward work"
            )
            yield _finding(pd.Series(a), TRAIN_FASTER, evidence, mode="")


def _over_batches(group: Sequence[Row]) -> Iterator[Finding]:
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in group:
        alike.setdefault((row["model"], row["mode"]), []).append(row)
    for same in alike.values():
        for a, b in itertools.pairwise(sorted(same, key=lambda row: int(row["batch"]))):
            close = abs(b["seconds"] / a["seconds"] - 1) <= MARGIN
            if close and b["batch"] >= FEWEST_TIMES * a["batch"]:
                evidence = (
                    f"batch {a['batch']} {format_seconds(a['seconds'])}, batch {b['batch']} "
                    f"{format_seconds(b['seconds'])}: bound by launches, or not synchronised"
                )
                yield _finding(pd.Series(a), SAME_FOR_BATCHES, evidence)


def rankings(ratios: pd.DataFrame) -> list[Finding]:
    """Pairs of networks whose order the measurements do not decide.

    Args:
        ratios: Of `dabench.findings.tables.ratios`: every pair of one setting.
    """
    if ratios.empty:
        return []
    open_ones = ratios[(ratios["verdict"] == "undecided") & (ratios["phase"] == "forward")]
    findings = []
    for row in open_ones.to_dict("records"):
        interval = f"{significant(row['ratio_low'])} to {significant(row['ratio_high'])}"
        if row["samples"] == 1:
            interval = "of one sample"
        evidence = (
            f"{row['numerator']} / {row['denominator']} is {significant(row['ratio'])} "
            f"({interval}) over {row['launches']} launches each"
        )
        facts = {
            **row,
            "source": f"measured: {row['run_id']}",
            "model": f"{row['numerator']}, {row['denominator']}",
            "setting": setting_of(row),
            "passes": 1,
        }
        findings.append(_finding(pd.Series(facts), UNSUPPORTED, evidence))
    return findings


def _finding(row: object, finding: str, evidence: str, *, mode: str | None = None) -> Finding:
    facts = [_of(row, "model"), _of(row, "mode") if mode is None else mode]
    shape = f"batch {_of(row, 'batch')} of {_of(row, 'height')}x{_of(row, 'width')}"
    passes = int(_of(row, "passes"))
    facts += [shape, _of(row, "dtype"), _of(row, "setting"), f"{passes} passes" * (passes > 1)]
    return Finding(
        source=str(_of(row, "source")),
        machine=str(_of(row, "machine")),
        what=", ".join(str(fact) for fact in facts if fact),
        finding=finding,
        evidence=evidence,
    )


def _of(row: object, name: str) -> str | int | float:
    # A Series has methods of the same names as some columns, such as ``mode``.
    value: str | int | float = row[name] if isinstance(row, pd.Series) else getattr(row, name)
    return value


def unchecked(rows: pd.DataFrame) -> Sequence[str]:
    """Machines whose times could not be held against a peak, since none is known."""
    names = rows.drop_duplicates("device_name")
    return [str(r.machine) for r in names.itertuples() if peak_of(str(r.device_name)) is None]
