"""What a report says of methods of adaptation: what they are, and what they cost and give."""

from __future__ import annotations

from collections.abc import Iterable
from math import isinf

import pandas as pd

from dabench.findings.trainings import compare
from dabench.plan.methods import BASE, METHODS, PLUS
from dabench.report.text import Writer

Group = tuple[str, pd.DataFrame]


def methods_table(out: Writer, groups: Iterable[Group]) -> None:
    """What the methods are, and the settings that are their own."""
    rows = {}
    for _, group in groups:
        first = group.iloc[0]
        settings = dict(part.rsplit(" ", 1) for part in str(first["settings"]).split("; ") if part)
        for name in str(first["method"]).split(PLUS):
            method = METHODS[name]
            if method.kind != "base":
                own = [f"{key} {settings[key]}" for key in method.settings if key in settings]
                rows[name] = {
                    "method": name,
                    "what it adds": method.summary,
                    "published by": method.source or "-",
                    "settings": ", ".join(own).replace("_", " ") or "-",
                }
    if rows:
        out.table(pd.DataFrame(rows.values()), "What the methods add to training on the source.")


def costs_table(out: Writer, good: pd.DataFrame, groups: Iterable[Group]) -> None:
    """What each method costs and what it gives for that."""
    usual = good.loc[good["label"] == BASE, "train_s"].mean()
    # Beside another device a processor's threads mostly wait for it.
    on_cpu = good["device"].eq("cpu").all()
    rows = []
    for label, group in groups:
        seconds = group["train_s"].mean()
        hours = (group["cpu_s"] if on_cpu else group["train_s"]).mean() / 3600
        rows.append(
            {
                "run": label,
                "source images": f"{(group['steps'] * group['batch']).mean():,.0f}",
                "training s": f"{seconds:.0f}",
                "CPU-hours" if on_cpu else "device-hours": f"{hours:.3f}",
                "times augment's": "-" if pd.isna(usual) else f"{seconds / usual:.2f}",
                "points over augment": _gain(good, label),
            }
        )
    what = "CPU-hours are what its threads worked in it. " if on_cpu else ""
    out.table(
        pd.DataFrame(rows),
        f"What each method costs and gives, at {good['budget'].iloc[0]}. Training is the time of "
        "all steps of a run, waiting for data included and evaluation not, mean over seeds. "
        f"{what}mIoU over `augment` in points, paired by seed, with 95% intervals over seeds "
        "(Student's t). `adabn` costs what the training before it costs, and a pass over the "
        "target's images.",
    )


def _gain(good: pd.DataFrame, label: str) -> str:
    found = compare(good, label, BASE) if label != BASE else None
    if found is None:
        return "-"
    points = f"{100 * found.difference.estimate:+.1f}"
    if isinf(found.difference.high):
        return points
    return f"{points} [{100 * found.difference.low:+.1f}, {100 * found.difference.high:+.1f}]"
