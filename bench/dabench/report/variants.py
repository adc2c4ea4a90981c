"""Compiled, fused and exported networks beside the plain one: what each way buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dabench.base.units import format_seconds, significant
from dabench.findings.precisions import Bought, bought
from dabench.findings.tables import Results, TimesOf, compared, variants
from dabench.plan.variants import EXPORTED
from dabench.records.measurements import WITHIN_ONE_LAUNCH
from dabench.report.sections import interval
from dabench.report.text import Writer

WITHIN = 1.10
"""Torch's best is said to keep up where it takes at most so much of the best exported time."""


def section(out: Writer, loaded: Results) -> None:
    """A table of all ways that were measured, which is best, and what each precision buys."""
    settings, precisions = variants(loaded), bought(loaded)
    if not settings and not precisions:
        return
    out.heading("Compilers and runtimes")
    if settings:
        _ways(out, settings)
    if precisions:
        _precisions(out, precisions)
    times = loaded.times
    out.bullets([line for setting in settings if (line := _best(setting, times))])


def _ways(out: Writer, settings: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Every way that was measured."""
    rows = [row for setting in settings for row in setting]
    columns = {name: [_COLUMNS[name](row) for row in rows] for name in _COLUMNS}
    always = ("model", "way", "layout", "median", "of eager nchw")
    out.table(
        pd.DataFrame({k: v for k, v in columns.items() if k in always or len(set(v)) > 1}),
        "One network run in several ways. `of eager nchw`: time over that of torch's plain forward "
        "in NCHW, where that was measured too, with its 95% interval. `compiling`: until the first "
        "pass was done, never part of a sample. `difference`: relative L2 distance of the output "
        "from the plain network's in fp32.",
    )


def _precisions(out: Writer, found: Sequence[Bought]) -> None:
    """What each precision buys."""
    rows = [
        {
            "model": each.row["model"],
            "machine": each.row["machine"],
            "setting": f"{each.row['mode']} {each.row['phase']}, batch {each.row['batch']}, "
            f"{each.row['height']}x{each.row['width']}, {each.row['threads']} threads",
            "dtype": each.row["dtype"],
            "fastest way": f"{_way(each.row)}, {format_seconds(each.row['median_s'])}",
            "fastest in fp32": f"{_way(each.base)}, {format_seconds(each.base['median_s'])}",
            "of fp32's time": _ratio(each.found),
            "times as fast": significant(1 / each.found["ratio"]),
            "flags": each.row["flags"] or "-",
        }
        for each in found
    ]
    out.table(
        pd.DataFrame(rows),
        "What a precision buys: its fastest way against the fastest in fp32, with the 95% "
        "interval; both are the fastest by the same samples. Of accuracy this says nothing.",
    )


def _way(row: Mapping[str, Any]) -> str:
    return f"{row['variant']} {_COLUMNS['layout'](row)}".replace(" its own", "")


def _ratio(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = significant(found["ratio_low"]), significant(found["ratio_high"])
    scope = f", {WITHIN_ONE_LAUNCH}" if found["launches"] < 2 else ""
    return f"{significant(found['ratio'])} ({low} to {high}{scope})"


def _difference(value: float) -> str:
    return "-" if value != value else f"{value:.1e}"


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "model": lambda row: row["model"],
    "machine": lambda row: row["machine"],
    "batch": lambda row: str(row["batch"]),
    "size": lambda row: f"{row['height']}x{row['width']}",
    "mode": lambda row: row["mode"],
    "phase": lambda row: row["phase"],
    "dtype": lambda row: row["dtype"],
    "input": lambda row: row["input"],
    "threads": lambda row: str(row["threads"]),
    "way": lambda row: row["variant"],
    "layout": lambda row: "its own" if row["runtime"] in EXPORTED else row["memory_format"],
    "median": lambda row: format_seconds(row["median_s"]),
    "95% interval": interval,
    "of eager nchw": lambda row: _ratio(row["against"]),
    "compiling": lambda row: format_seconds(row["compile_s"]),
    "difference": lambda row: _difference(row["difference"]),
    "launches": lambda row: str(row["launches"]),
}


def _best(rows: Sequence[Mapping[str, Any]], times: TimesOf) -> str:
    """Whether torch's best way keeps up with the best exported one; empty where one is missing."""
    exported = [row for row in rows if row["runtime"] in EXPORTED]
    own = [row for row in rows if row["runtime"] not in EXPORTED]
    if not exported or not own:
        return ""
    ours, theirs = (min(each, key=lambda row: row["median_s"]) for each in (own, exported))
    found = compared(ours, theirs, times)
    if found["launches"] < 2:
        says = "one launch does not decide whether it keeps up within 10%"
    elif found["ratio_high"] <= WITHIN:
        says = "it keeps up within 10%"
    elif found["ratio_low"] > WITHIN:
        says = "it does not keep up within 10%"
    else:
        says = "whether it keeps up within 10% is undecided"
    return (
        f"{ours['model']}, {ours['mode']} {ours['phase']}, batch {ours['batch']}, {ours['dtype']}: "
        f"torch's best is {ours['variant']} in {ours['memory_format']} "
        f"({format_seconds(ours['median_s'])}), the best exported one is {theirs['variant']} "
        f"({format_seconds(theirs['median_s'])}); torch takes {_ratio(found)} times as long: "
        f"{says}."
    )
