"""Printed speeds of segmenters beside measured ones, as ratios of two networks on one device."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from dabench.base.units import significant
from dabench.findings.speeds import beside_ours, printed_speeds
from dabench.findings.tables import Results
from dabench.report.text import Writer


def section(out: Writer, loaded: Results) -> None:
    """Writes the table; nothing where no two measured networks are printed anywhere."""
    found = beside_ours(printed_speeds(), loaded)
    if found.empty:
        return
    out.heading("Printed speeds beside ours")
    out.table(
        pd.DataFrame(
            {
                "networks": row["pair"],
                "where": row["where"],
                "size": row["size"] or "not stated",
                "time over time": _ratio(row),
                "tier": "measured" if row["measured"] else "printed",
            }
            for row in found.to_dict("records")
        ),
        "Ratios of the times of two networks on one device, batch 1, forward: times of different "
        "devices cannot be compared, these can. Measured ones with their 95% intervals. A printed "
        "figure is of the same architecture by its source's name; its graph may differ in heads "
        "and upsampling (`results/reference/segmenter-speeds.csv` holds each with its conditions).",
    )


def _ratio(row: Mapping[Hashable, Any]) -> str:
    if pd.isna(row["low"]):
        return significant(row["ratio"])
    return f"{significant(row['ratio'])} ({significant(row['low'])} to {significant(row['high'])})"
