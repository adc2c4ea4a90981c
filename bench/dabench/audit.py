"""Which printed or measured times cannot be true, and which cannot carry their ranking.

A time is impossible where the operations at the chip's peak rate, or the least
bytes at its bandwidth, take longer. Peaks are datasheet figures, each with its
source, of chips that are listed; an unknown chip has none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd

from dabench.roofline import ITEM_BYTES
from dabench.units import format_bytes, format_count, format_seconds

IMPOSSIBLE = "impossible"
TRAIN_FASTER = "train faster than eval"
SAME_FOR_BATCHES = "same time for different batches"
UNSUPPORTED = "ranking not supported"

MARGIN = 0.03
FEWEST_TIMES = 2

AUDIT_RULE = (
    f"`{IMPOSSIBLE}`: below executed operations over the chip's peak rate in the dtype, or least "
    f"bytes (input, parameters and output once) over its bandwidth; `{TRAIN_FASTER}`: by more than "
    f"{MARGIN:.0%} and beyond their intervals, forward against forward; `{SAME_FOR_BATCHES}`: "
    f"within {MARGIN:.0%} at {FEWEST_TIMES} times the batch or more, so the time is not the "
    f"work's; `{UNSUPPORTED}`: the 95% intervals of two models in one setting overlap"
)

ROW_COLUMNS = (
    "source", "machine", "device_name", "device", "model", "batch", "channels", "height",
    "width", "mode", "dtype", "setting", "passes", "seconds", "low_s", "high_s",
)  # fmt: skip
"""What `audit` needs of each row; ``setting`` is whatever else must be equal to compare."""

_SETTING = ["source", "machine", "device", "height", "width", "dtype", "setting", "passes"]


@dataclass(frozen=True, slots=True)
class Peak:
    """Datasheet figures of one chip; None where it has no such unit or it is not listed."""

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


def peak_of(device_name: str) -> Peak | None:
    """The datasheet figures of a chip by the name its driver or a table gives it."""
    for row in _reference("peaks.csv").to_dict("records"):
        if re.search(str(row["pattern"]), device_name):
            rates = {
                dtype: float(row[f"{dtype}_flops_per_s"])
                for dtype in ITEM_BYTES
                if pd.notna(row[f"{dtype}_flops_per_s"])
            }
            return Peak(str(row["chip"]), rates, float(row["bytes_per_s"]), str(row["source"]))
    return None


def published_operations() -> pd.DataFrame:
    """Operations of one image of the networks with published times (by ``dabench flops``)."""
    return _reference("operations.csv")


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
    threads = good["threads"].astype(str) + " threads"
    setting = good["memory_format"] + ", " + threads + ", protocol " + good["protocol"]
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


def audit(rows: pd.DataFrame, operations: pd.DataFrame) -> list[Finding]:
    """Every check over every row.

    Args:
        rows: Columns `ROW_COLUMNS`.
        operations: Per image: ``model``, ``height``, ``width``, ``mode``,
            ``executed_macs``, ``min_bytes`` (fp32) and ``params``.
    """
    known = {
        tuple(map(str, (row.model, row.height, row.width, row.mode))): row
        for row in operations.itertuples(index=False)
    }
    findings: list[Finding] = []
    for row in rows.itertuples(index=False):
        key = tuple(map(str, (row.model, row.height, row.width, row.mode)))
        if key in known:
            findings += _below_floor(row, known[key])
    for _, group in rows.groupby(_SETTING, sort=False, dropna=False):
        findings += _train_against_eval(group)
        findings += _over_batches(group)
        findings += _rankings(group)
    return findings


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
        yield _finding(row, f"{IMPOSSIBLE} in {dtype}", f"{evidence} ({peak.chip}: {peak.source})")


def _train_against_eval(group: pd.DataFrame) -> Iterator[Finding]:
    for _, same in group.groupby(["model", "batch"], sort=False):
        train, evaluation = (same[same["mode"] == mode] for mode in ("train", "eval"))
        if train.empty or evaluation.empty:
            continue
        a, b = train.iloc[0], evaluation.iloc[0]
        # Where intervals are known they must lie apart: noise is no contradiction.
        apart = not a["high_s"] >= b["low_s"]
        if a["seconds"] < (1 - MARGIN) * b["seconds"] and apart:
            evidence = (
                f"train {format_seconds(a['seconds'])}, eval {format_seconds(b['seconds'])}: "
                "training mode does at least the same forward work"
            )
            yield _finding(a, TRAIN_FASTER, evidence, mode="")


def _over_batches(group: pd.DataFrame) -> Iterator[Finding]:
    for _, same in group.groupby(["model", "mode"], sort=False):
        ordered = same.sort_values("batch")
        for (_, a), (_, b) in itertools.pairwise(ordered.iterrows()):
            alike = abs(b["seconds"] / a["seconds"] - 1) <= MARGIN
            if alike and b["batch"] >= FEWEST_TIMES * a["batch"]:
                evidence = (
                    f"batch {a['batch']} {format_seconds(a['seconds'])}, batch {b['batch']} "
                    f"{format_seconds(b['seconds'])}: bound by launches, or not synchronised"
                )
                yield _finding(a, SAME_FOR_BATCHES, evidence)


def _rankings(group: pd.DataFrame) -> Iterator[Finding]:
    bounded = group[group["low_s"].notna() & group["high_s"].notna()]
    for _, same in bounded.groupby(["mode", "batch"], sort=False):
        ordered = same.sort_values("seconds")
        for (_, a), (_, b) in itertools.pairwise(ordered.iterrows()):
            if a["model"] != b["model"] and b["low_s"] <= a["high_s"]:
                evidence = (
                    f"{a['model']} {format_seconds(a['seconds'])} (to {format_seconds(a['high_s'])}"
                    f"), {b['model']} {format_seconds(b['seconds'])} (from "
                    f"{format_seconds(b['low_s'])}): the intervals overlap"
                )
                yield _finding(a, UNSUPPORTED, evidence, model=f"{a['model']}, {b['model']}")


def _finding(
    row: object, finding: str, evidence: str, *, mode: str | None = None, model: str | None = None
) -> Finding:
    facts = [model or _of(row, "model"), _of(row, "mode") if mode is None else mode]
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


def _reference(name: str) -> pd.DataFrame:
    with resources.as_file(resources.files("dabench") / "reference" / name) as path:
        return pd.read_csv(path)
