"""Which network to deploy, run how: the table, and time against accuracy as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dabench.base.units import format_bytes, format_interval, format_seconds, format_share
from dabench.findings.candidates import MET, MISSED, UNDECIDED
from dabench.findings.choices import CHOICE_RULE, Choice
from dabench.plan.ways import way_name
from dabench.records.choices import MEDIAN
from dabench.report.charts import dots_with_intervals
from dabench.report.text import Writer
from dabench.report.training import SYNTHETIC
from dabench.timing.halving import HALVING_RULE

TIERS = {MET: "keeps the limits", UNDECIDED: "undecided", MISSED: "misses a limit"}
"""What is said of a way that was scored -> its name in the picture."""
UNLIMITED = {MET: "measured to the end", UNDECIDED: "left alone early"}
"""Likewise where nobody asked for a limit."""
SHAPES = {MET: "circle", UNDECIDED: "diamond", MISSED: "cross"}


def section(out: Writer, choice: Choice, folder: Path, stem: str) -> None:
    """A section of one run.

    Args:
        out: The document.
        choice: What the run came to.
        folder: Of the picture.
        stem: Of the picture's name.
    """
    first, machine = choice.candidates[0].case, choice.machine
    out.heading(f"Which to deploy on {machine}, {first.device}, batch {first.batch}")
    out.paragraph(f"Limits: {_limits(choice)}.")
    for sentence in choice.says:
        out.paragraph(sentence)
    scored = [each.accuracy for each in choice.candidates if each.accuracy is not None]
    if any(each.synthetic for each in scored):
        out.paragraph(SYNTHETIC)
    frame = choice.to_frame()
    timed = frame[frame["seconds"].notna()]
    if not timed.empty:
        kind = "median" if choice.limits.percentile == MEDIAN else choice.limits.percentile
        data = "; ".join(dict.fromkeys(each.data for each in scored))
        out.table(
            pd.DataFrame([_cells(row, kind) for _, row in timed.iterrows()]),
            f"Time of a pass, the forward alone{', mIoU on ' + data if data else ''}, of the same "
            f"graph and weights. {CHOICE_RULE}. How it was searched: {HALVING_RULE}.",
        )
    failed = frame[frame["seconds"].isna()]
    if not failed.empty:
        out.table(failed[["model", "way", "status", "reason"]], "What could not be timed, and why.")
    points = _points(choice)
    if len(points) > 1:
        title = f"Time and accuracy, {machine}"
        chart = dots_with_intervals(
            points,
            tiers={name: SHAPES[said] for said, name in _tiers(choice).items()},
            limits={
                "x": choice.limits.deadline_s and 1e3 * choice.limits.deadline_s,
                "y": choice.limits.miou and 100 * choice.limits.miou,
            },
            x="ms a pass (95% interval)",
            y="mIoU % (95% over images)",
            title=title,
        )
        out.chart(
            chart,
            folder / f"{stem}-choice",
            f"{title}: a dot per network and way that was scored, its shape by whether it keeps "
            "all limits, hollow where it was left alone early; the front as a line, limits that "
            "are near as dashes. All of it measured here.",
        )


def _limits(choice: Choice) -> str:
    limits = choice.limits
    said = {
        f"{limits.percentile} of a pass within": limits.deadline_s
        and format_seconds(limits.deadline_s),
        "mIoU of at least": limits.miou and format_share(limits.miou),
        "memory of at most": limits.memory_bytes and format_bytes(limits.memory_bytes),
        "energy of an image of at most": limits.joules and f"{limits.joules:g} J",
    }
    return ", ".join(f"{name} {value}" for name, value in said.items() if value) or "none"


def _cells(row: pd.Series, kind: str) -> dict[str, str]:
    within = format_interval(row["seconds_low"], row["seconds_high"])
    miou = "-"
    if pd.notna(row["miou"]):
        miou = f"{row['miou']:.2%} ({row['miou_low']:.2%} to {row['miou_high']:.2%})"
    keeps = {MET: "yes", MISSED: f"no ({row['why']})"}.get(row["admissible"], row["why"])
    return {
        "network": row["model"],
        "way": row["way"],
        kind: format_seconds(row["seconds"]),
        "95% interval": within if row["launches"] > 1 else "-",
        "launches": str(row["launches"]),
        "peak memory": format_bytes(row["peak_bytes"]),
        "mIoU (95% over images)": miou,
        "keeps limits": keeps,
        "front": "take" if row["chosen"] else "front" if row["front"] else "",
    }


def _tiers(choice: Choice) -> Mapping[str, str]:
    return UNLIMITED if _limits(choice) == "none" else TIERS


def _points(choice: Choice) -> pd.DataFrame:
    """The dots: what was scored."""
    tiers = _tiers(choice)
    short = {
        each.case.model: "/".join(each.case.model.split("/")[-2:]) for each in choice.candidates
    }
    labels = (
        short if len(set(short.values())) == len(short) else dict(zip(short, short, strict=True))
    )
    return pd.DataFrame(
        [
            {
                "label": labels[each.case.model],
                "whole": not each.stopped,
                "way": way_name(each.case),
                "tier": tiers[each.admissible],
                "x": 1e3 * each.seconds.estimate,
                # Of a single launch it says nothing of the next.
                "x_low": 1e3 * (each.seconds.low if each.launches > 1 else each.seconds.estimate),
                "x_high": 1e3 * (each.seconds.high if each.launches > 1 else each.seconds.estimate),
                "y": 100 * each.accuracy.miou.estimate,
                "y_low": 100 * each.accuracy.miou.low,
                "y_high": 100 * each.accuracy.miou.high,
                "front": each.name in choice.front,
            }
            for each in choice.candidates
            if each.seconds is not None and each.accuracy is not None
        ]
    )
