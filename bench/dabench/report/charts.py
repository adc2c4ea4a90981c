"""Charts with Altair: PNG now, and the same specification serves a page later."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd

_SCALE = 2.0


def bars_with_intervals(frame: pd.DataFrame, *, unit: str, title: str, path: Path) -> None:
    """Horizontal bars with 95% intervals, one panel per value of ``panel``.

    Args:
        frame: Columns ``label``, ``group`` (colour), ``panel``, ``value``,
            ``low`` and ``high``, in the order they are to appear.
        unit: Of the axis.
        title: Above the chart.
        path: Of the PNG.
    """
    labels = list(dict.fromkeys(frame["label"]))
    groups = list(dict.fromkeys(frame["group"]))
    base = alt.Chart(frame).encode(
        y=alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(labelLimit=320)),
        yOffset=alt.YOffset("group:N", sort=groups),
    )
    bars = base.mark_bar().encode(
        # Altair would add up bars that fall on one another.
        x=alt.X("value:Q", title=unit, stack=None),
        color=alt.Color(
            "group:N",
            sort=groups,
            title=None,
            scale=alt.Scale(domain=groups, scheme="tableau10"),
            legend=alt.Legend(orient="bottom", labelLimit=400) if len(groups) > 1 else None,
        ),
    )
    intervals = base.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    height = max(24, 14 * len(groups)) * len(labels)
    panels = list(dict.fromkeys(frame["panel"]))
    chart: alt.FacetChart = (
        alt.layer(bars, intervals)
        .properties(width=520 // len(panels) + 80, height=height)
        .facet(column=alt.Column("panel:N", sort=panels, title=None))
        .properties(title=title)
        .resolve_scale(x="shared")
    )
    chart.save(str(path), scale_factor=_SCALE)


def curves(frame: pd.DataFrame, *, unit: str, title: str, path: Path) -> None:
    """Lines over epochs, one per value of ``label``.

    Args:
        frame: Columns ``label``, ``epoch`` and ``value``.
        unit: Of the vertical axis.
        title: Above the chart.
        path: Of the PNG.
    """
    labels = list(dict.fromkeys(frame["label"]))
    chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "label:N",
                sort=labels,
                title=None,
                scale=alt.Scale(domain=labels, scheme="tableau10"),
            ),
        )
        .properties(width=560, height=280, title=title)
    )
    chart.save(str(path), scale_factor=_SCALE)
