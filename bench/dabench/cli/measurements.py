"""Measurements as a table for people, with those that failed below."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dabench.base.units import format_bytes, format_interval, format_seconds, significant
from dabench.cli.output import print_line, print_table
from dabench.plan.axes import AXES

if TYPE_CHECKING:
    from dabench.records.measurements import Measurement

_WORDS = ("model", "device", "mode", "phase", "dtype", "layout", "protocol", "variant", "ended")


def print_measurements(rows: Sequence[Measurement]) -> None:
    """Prints measurements, and below them the cases that failed, with their reasons."""
    from dabench.records.measurements import WITHIN_ONE_LAUNCH

    good = [row for row in rows if row.status == "ok"]
    if good:
        varying = _varying(good)
        extra = [name for name, cell in _EXTRA.items() if any(cell(row) != "-" for row in good)]
        print_table(
            _settings_line(good[0], varying),
            (
                *varying,
                "median",
                "95% interval",
                "images/s",
                "GFLOP/s",
                "peak",
                "n",
                "ended",
                *extra,
            ),
            (
                (
                    *(_AXES[name](row) for name in varying),
                    *_cells(row),
                    *(_EXTRA[name](row) for name in extra),
                )
                for row in good
            ),
            words=_WORDS,
        )
        _print_flags([row for row in good if row.flags], varying)
        if any(row.ci_scope == WITHIN_ONE_LAUNCH for row in good):
            print_line(f"Intervals are {WITHIN_ONE_LAUNCH}: they do not speak of the next.")
    bad = [row for row in rows if row.status != "ok"]
    if bad:
        seen = {(row.case_id, row.reason): row for row in bad}.values()
        print_table(
            "Not measured",
            ("case", "status", "reason"),
            ((row.case_id, row.status, row.reason) for row in seen),
            words=("case", "status", "reason"),
        )


def _print_flags(flagged: Sequence[Measurement], varying: Sequence[str]) -> None:
    """Names the flags row by row, or where those are many, how often each was raised."""
    if len(flagged) <= _FLAGGED_ROWS:
        for row in flagged:
            axes = " ".join(_AXES[name](row) for name in varying)
            print_line(f"{axes}: {row.flags}")
        return
    # "launches differ 12%" and "launches differ 20%" are one kind of flag.
    kinds = Counter(re.split(r" [-+(\d]", f)[0] for row in flagged for f in row.flags.split("; "))
    counts = ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())
    print_line(f"{len(flagged)} rows are flagged: {counts}; measurements.csv says which.")


_FLAGGED_ROWS = 6

# Heading -> cell; the ways of running a network share one.
_BY_HEADING = {axis.heading: axis for axis in AXES.values()}
_AXES: dict[str, Callable[[Measurement], str]] = {
    heading: axis.cell for heading, axis in _BY_HEADING.items()
}


# Columns shown only where some row has them.
_EXTRA: dict[str, Callable[[Measurement], str]] = {
    "by itself": lambda row: format_seconds(row.alone_s),
    "1 / latency": lambda row: (
        "-" if row.latency_images_per_s is None else significant(row.latency_images_per_s)
    ),
    "on time": lambda row: "-" if row.on_time is None else f"{row.on_time:.1%}",
    "overruns": lambda row: "-" if row.overruns is None else str(row.overruns),
    "queue": lambda row: "-" if row.queue is None else str(row.queue),
    "compiling": lambda row: format_seconds(row.compile_s),
    "difference": lambda row: "-" if row.difference is None else f"{row.difference:.1e}",
    "J/image": lambda row: (
        "-" if row.joules_per_image is None else significant(row.joules_per_image)
    ),
}


def _varying(rows: Sequence[Measurement]) -> tuple[str, ...]:
    return tuple(
        name
        for name, value in _AXES.items()
        if name == "model" or len({value(row) for row in rows}) > 1
    )


def _settings_line(row: Measurement, varying: Sequence[str]) -> str:
    same = [
        axis.cell(row)
        for axis in _BY_HEADING.values()
        if axis.heading not in ("batch", *varying) and axis.cell(row) != axis.unsaid
    ]
    batch = [] if "batch" in varying else [f"batch {row.batch}"]
    return f"{row.device_name}: {', '.join(batch + same)}"


def _cells(row: Measurement) -> tuple[str, ...]:
    low, high = row.ci_low_s, row.ci_high_s
    rate = "-" if row.flops_per_s is None else significant(row.flops_per_s / 1e9)
    median = format_seconds(row.median_s)
    return (
        median if row.passes == 1 else f"{median} for {row.passes} passes",
        "-" if low is None or high is None else format_interval(low, high),
        "-" if row.images_per_s is None else significant(row.images_per_s),
        rate,
        format_bytes(row.peak_bytes),
        f"{row.n}/{row.launches}",
        str(row.stop),
    )
