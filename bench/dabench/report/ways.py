"""Accuracy of trained networks per way to run them."""

from __future__ import annotations

import pandas as pd

from dabench.base.units import format_share
from dabench.findings.ways import KEEP_RULE, PLAIN, REAL_RULE, UNKNOWN
from dabench.report.text import Writer
from dabench.report.training import SYNTHETIC


def section(out: Writer, ways: pd.DataFrame) -> None:
    """A table per run."""
    for _, rows in ways.groupby("run_id", sort=False):
        first = rows.iloc[0]
        out.heading(f"Accuracy per way to run: {first['data']}")
        out.paragraph(
            f"{first['model']} (weights {first['weights'][:12]}, graph {first['graph'] or '-'}) on "
            f"{first['machine']}, {first['device']}: {first['height']}x{first['width']}. "
            f"Images {first['before']}; {first['after']}. "
            f"{first['evaluation']} mIoU at full label resolution, {first['of_frames']} frames of "
            f"the {first['split']} split."
        )
        if first["synthetic"]:
            out.paragraph(SYNTHETIC)
        if first["calibrated"]:
            out.paragraph(f"{first['calibrated']}.")
        varying = [name for name in ("batch", "threads") if rows[name].nunique() > 1]
        good = rows[rows["status"] == "ok"]
        if not good.empty:
            _scores(out, good, varying)
        bad = rows[rows["status"] != "ok"]
        if not bad.empty:
            columns = ["way", "dtype", "memory_format", *varying, "status", "reason"]
            named = {"memory_format": "layout"}
            out.table(bad[columns].rename(columns=named), "Ways without a score, and why.")


def _scores(out: Writer, good: pd.DataFrame, varying: list[str]) -> None:
    keep = format_share(good["keep"].iloc[0])
    timed = f" `real / random`: {REAL_RULE}." if good["real"].notna().any() else ""
    out.table(
        pd.DataFrame([_row(row, varying) for _, row in good.iterrows()]),
        "The scores are of the graph that `dabench time` measures under the same name. To be kept: "
        f"{keep} {KEEP_RULE}. `difference`: relative L2 distance of the logits from the plain "
        f"network's in fp32, on random input, of ways that torch does not run as they are.{timed}",
    )


def _row(row: pd.Series, varying: list[str]) -> dict[str, str]:
    told = row["verdict"] not in (UNKNOWN, PLAIN)
    interval = f"{row['kept_low']:.2%} to {row['kept_high']:.2%}" if told else "-"
    return {
        "way": row["way"],
        "dtype": row["dtype"] + (" (emulated)" if row["emulated"] else ""),
        "layout": row["memory_format"],
        **{name: str(row[name] or "torch's") for name in varying},
        "mIoU %": f"{100 * row['miou']:.2f}",
        "pixel accuracy %": f"{100 * row['accuracy']:.2f}",
        "difference": "-" if pd.isna(row["difference"]) else f"{row['difference']:.1e}",
        f"keeps {format_share(row['keep'])}": row["verdict"],
        "of plain": f"{row['kept']:.2%} ({interval})" if told else "-",
        **({} if pd.isna(row["real"]) else {"real / random": _real(row)}),
    }


def _real(row: pd.Series) -> str:
    interval = f"{row['real_low']:.3f} to {row['real_high']:.3f}"
    return f"{row['real_ratio']:.3f} ({interval}): {row['real']}"
