"""Charts with Altair: one specification each, for pictures and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import altair as alt
import pandas as pd

_SCALE = 2.0

PALETTE = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#4aa3d9", "#7a5195", "#8c8c8c",
    "#a6321f", "#3f7f5f",
]  # fmt: skip
"""Colours that people who see few of them can tell apart, on white and on black alike; most are
Okabe and Ito's (https://jfly.uni-koeln.de/color/), the yellow darkened."""

Chart = alt.TopLevelMixin
"""Any chart, whatever it is made of."""


MOST_BANDS = 8
"""Beside one another in one chart; more hide the lines."""


def _colors(names: list[str]) -> alt.Scale:
    """A colour each: of more than the palette has, those of a larger scheme."""
    if len(names) <= len(PALETTE):
        return alt.Scale(domain=names, range=PALETTE)
    return alt.Scale(domain=names, scheme="tableau20")


def save(chart: Chart, path: Path) -> None:
    """Writes a picture, in the format that its name ends with: PNG or SVG."""
    chart.save(str(path), scale_factor=_SCALE)


def bars_with_intervals(frame: pd.DataFrame, *, unit: str, title: str) -> Chart:
    """Horizontal bars with 95% intervals, one panel per value of ``panel``.

    Args:
        frame: Columns ``label``, ``group`` (colour), ``panel``, ``value``,
            ``low`` and ``high``, in the order they are to appear.
        unit: Of the axis.
        title: Above the chart.
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
            scale=alt.Scale(domain=groups, range=PALETTE),
            legend=alt.Legend(orient="bottom", columns=4, labelLimit=400)
            if len(groups) > 1
            else None,
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
    return chart


def curves(
    frame: pd.DataFrame,
    *,
    unit: str,
    title: str,
    beside: tuple[str, pd.DataFrame] | None = None,
) -> Chart:
    """Lines over epochs, one per value of ``label``, with a band over seeds.

    Args:
        frame: Columns ``label``, ``epoch`` and ``value``, and, where there are seeds, ``low`` and
            ``high``; of more than `MOST_BANDS` labels the bands are left out.
        unit: Of the vertical axis.
        title: Above the chart.
        beside: Title and frame of a second chart at its right; left out where it has no points.
    """
    chart = _lines(frame, unit, title)
    if beside is not None and not beside[1].empty:
        right = _lines(beside[1], unit, beside[0])
        both: Chart = alt.hconcat(chart, right).resolve_scale(color="independent")
        return both
    return chart


def _lines(frame: pd.DataFrame, unit: str, title: str) -> alt.LayerChart | alt.FacetChart:
    labels = list(dict.fromkeys(frame["label"]))
    base = alt.Chart(frame)
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1))
    scale = alt.Scale(zero=False)
    # It would be as pale as the band.
    legend = alt.Legend(symbolOpacity=1)
    color = alt.Color("label:N", sort=labels, title=None, scale=_colors(labels), legend=legend)
    tooltip = ["label:N", "epoch:Q", alt.Tooltip("value:Q", title=unit, format=".4~g")]
    layers = [
        base.mark_line(point=True).encode(
            x=x, y=alt.Y("value:Q", title=unit, scale=scale), color=color, tooltip=tooltip
        )
    ]
    if "low" in frame and len(labels) <= MOST_BANDS:
        band = base.mark_area(opacity=0.18).encode(
            x=x, y=alt.Y("low:Q", title=unit, scale=scale), y2="high:Q", color=color
        )
        layers.insert(0, band)
    return alt.layer(*layers).properties(width=560, height=280, title=title)


def stacked_bars(frame: pd.DataFrame, *, unit: str, title: str) -> Chart:
    """Horizontal bars of segments, one bar per value of ``label``.

    Args:
        frame: Columns ``label``, ``part`` (colour), ``value`` and, where segments have names,
            ``name``, a row per segment in the order they are to appear.
        unit: Of the axis.
        title: Above the chart.
    """
    parts = list(dict.fromkeys(frame["part"]))
    labels = list(dict.fromkeys(frame["label"]))
    # What is left can be a little less than nothing; a bar cannot.
    shown = frame.assign(
        value=frame["value"].clip(lower=0), order=frame.groupby("label", sort=False).cumcount()
    )
    chart: alt.Chart = (
        alt.Chart(shown)
        .mark_bar(stroke="white", strokeWidth=0.5)
        .encode(
            y=alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(labelLimit=420)),
            x=alt.X("value:Q", title=unit),
            order="order:Q",
            detail="order:Q",
            color=alt.Color(
                "part:N",
                sort=parts,
                title=None,
                scale=_colors(parts),
                legend=alt.Legend(orient="bottom", columns=6),
            ),
            tooltip=[
                *(["name:N"] if "name" in shown else []),
                "part:N",
                alt.Tooltip("value:Q", title=unit, format=".4~g"),
                "label:N",
            ],
        )
        .properties(width=640, height=30 * len(labels), title=title)
    )
    return chart


def roofline(points: pd.DataFrame, roof: pd.DataFrame, *, title: str) -> Chart:
    """Layers under the roof, both axes logarithmic.

    Args:
        points: Columns ``label``, ``name`` (of the layer), ``intensity`` (FLOP/byte), ``rate``
            (GFLOP/s), ``share``.
        roof: Columns ``intensity`` and ``rate``: the corners of the roof.
        title: Above the chart.
    """
    labels = list(dict.fromkeys(points["label"]))
    log = alt.Scale(type="log", nice=False, padding=12)
    x = alt.X("intensity:Q", scale=log, title="FLOP per byte that must move")
    y = alt.Y("rate:Q", scale=log, title="GFLOP/s")
    line = alt.Chart(roof).mark_line(color="black").encode(x=x, y=y)
    dots = (
        alt.Chart(points)
        .mark_circle(opacity=0.7)
        .encode(
            x=x,
            y=y,
            size=alt.Size("share:Q", title="share of the time", legend=alt.Legend(format="%")),
            color=alt.Color(
                "label:N",
                title=None,
                sort=labels,
                scale=alt.Scale(domain=labels, range=PALETTE),
                legend=alt.Legend(orient="bottom", columns=1, labelLimit=520),
            ),
            tooltip=[
                alt.Tooltip("name:N", title="layer"),
                alt.Tooltip("share:Q", title="share of the time", format=".1%"),
                alt.Tooltip("rate:Q", title="GFLOP/s", format=".3~g"),
                alt.Tooltip("intensity:Q", title="FLOP/byte", format=".3~g"),
                "label:N",
            ],
        )
    )
    chart = alt.layer(line, dots).properties(width=560, height=380, title=title)
    return chart


def dots_with_intervals(
    frame: pd.DataFrame,
    *,
    tiers: Mapping[str, str],
    limits: Mapping[str, float | None],
    x: str,
    y: str,
    title: str,
) -> Chart:
    """Dots with 95% intervals both ways, a line through those on the front, and limits.

    Args:
        frame: Columns ``label`` (colour), ``way`` (text beside the dot), ``tier`` (shape), ``x``,
            ``x_low``, ``x_high``, ``y``, ``y_low``, ``y_high``, ``front`` (whether it is on it) and
            ``whole`` (whether the dot is filled).
        tiers: Name of a tier -> Vega's name of its shape.
        limits: What ``x`` and ``y`` are held against, where they are; drawn where they do not
            squeeze the dots.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        title: Above the chart.
    """
    labels = list(dict.fromkeys(frame["label"]))
    across = alt.X("x:Q", title=x, scale=alt.Scale(zero=False, nice=True, padding=24))
    up = alt.Y("y:Q", title=y, scale=alt.Scale(zero=False, nice=True, padding=24))
    color = alt.Color(
        "label:N",
        title=None,
        sort=labels,
        scale=alt.Scale(domain=labels, range=PALETTE),
        legend=alt.Legend(orient="bottom", columns=2, labelLimit=420),
    )
    shape = alt.Shape(
        "tier:N",
        title=None,
        scale=alt.Scale(domain=list(tiers), range=list(tiers.values())),
        legend=alt.Legend(orient="bottom"),
    )
    base = alt.Chart(frame)
    front = alt.Chart(frame[frame["front"]]).mark_line(color="gray", strokeDash=[4, 3])
    chart = alt.layer(
        *_rules(frame, limits),
        front.encode(x=across, y=up, order="x:Q"),
        base.mark_rule().encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=up, color=color),
        base.mark_rule().encode(x=across, y=alt.Y("y_low:Q"), y2="y_high:Q", color=color),
        *(
            base.transform_filter(f"datum.whole == {str(filled).lower()}")
            .mark_point(filled=filled, size=90, opacity=1)
            .encode(x=across, y=up, color=color, shape=shape)
            for filled in (True, False)
        ),
        base.mark_text(align="left", dx=8, dy=-6, angle=330, fontSize=10).encode(
            x=across, y=up, text="way:N"
        ),
    ).properties(width=560, height=340, title=title)
    return chart


def _rules(frame: pd.DataFrame, limits: Mapping[str, float | None]) -> list[alt.Chart]:
    """Lines across the picture for the limits within half as much again as the intervals span."""
    rules = []
    for axis, limit in limits.items():
        low, high = frame[f"{axis}_low"].min(), frame[f"{axis}_high"].max()
        room = 0.25 * (high - low)
        if limit is not None and low - room <= limit <= high + room:
            rule = alt.Chart(pd.DataFrame({axis: [limit]})).mark_rule(strokeDash=[2, 2])
            rules.append(rule.encode(**{axis: f"{axis}:Q"}))
    return rules


def heat_map(frame: pd.DataFrame, *, unit: str, title: str) -> Chart:
    """A field per row and column, the darker the more; its number stands in it.

    Args:
        frame: Columns ``row``, ``column`` and ``value``, in the order they are to appear.
        unit: Of the values.
        title: Above the chart.
    """
    rows, columns = (list(dict.fromkeys(frame[name])) for name in ("row", "column"))
    middle = (frame["value"].min() + frame["value"].max()) / 2
    base = alt.Chart(frame).encode(
        x=alt.X(
            "column:N", sort=columns, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=220)
        ),
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(labelLimit=220)),
    )
    fields = base.mark_rect().encode(
        color=alt.Color(
            "value:Q", title=unit, scale=alt.Scale(scheme="blues"), legend=alt.Legend(format=".3~g")
        ),
        tooltip=["row:N", "column:N", alt.Tooltip("value:Q", title=unit, format=".3~g")],
    )
    numbers = base.mark_text(fontSize=9).encode(
        text=alt.Text("value:Q", format=".1f"),
        color=alt.condition(alt.datum.value > middle, alt.value("#ffffff"), alt.value("#10212f")),
    )
    return alt.layer(fields, numbers).properties(
        width=46 * len(columns), height=20 * len(rows), title=title
    )


def dumbbells(frame: pd.DataFrame, *, unit: str, title: str) -> Chart:
    """Two values a row, joined by a line.

    Args:
        frame: Columns ``label``, ``side`` (colour), ``value``, ``low`` and ``high`` (the ends of
            the line, the same in both rows of a label) and ``said``, in the order they appear.
        unit: Of the axis.
        title: Above the chart.
    """
    labels, sides = (list(dict.fromkeys(frame[name])) for name in ("label", "side"))
    base = alt.Chart(frame)
    y = alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(labelLimit=420))
    scale = alt.Scale(type="log", nice=False, padding=16)
    lines = base.mark_rule(strokeWidth=2, color="#8c8c8c").encode(
        x=alt.X("low:Q", scale=scale, title=unit), x2="high:Q", y=y
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=alt.X("value:Q", scale=scale),
        y=y,
        color=alt.Color(
            "side:N", sort=sides, title=None, scale=alt.Scale(domain=sides, range=PALETTE),
            legend=alt.Legend(orient="bottom", labelLimit=420),
        ),
        shape=alt.Shape("side:N", sort=sides, title=None),
        tooltip=["label:N", "side:N", alt.Tooltip("value:Q", title=unit, format=".4~g"), "said:N"],
    )  # fmt: skip
    return alt.layer(lines, points).properties(width=560, height=22 * len(labels), title=title)


def course(frame: pd.DataFrame, *, unit: str, title: str) -> Chart:
    """One value over runs with its 95% interval; marks where it changed.

    Args:
        frame: Columns ``run``, ``commit``, ``value``, ``low``, ``high``, ``step`` (whether it is
            the first after a change) and ``changed``, oldest first.
        unit: Of the vertical axis.
        title: Above the chart.
    """
    base = alt.Chart(frame)
    x = alt.X("run:N", sort=None, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=220))
    y = alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False, padding=10))
    tooltip = ["run:N", "commit:N", alt.Tooltip("value:Q", title=unit, format=".4~g"), "changed:N"]
    rules = base.mark_rule().encode(x=x, y=alt.Y("low:Q", title=unit), y2="high:Q")
    line = base.mark_line(opacity=0.5, color=PALETTE[0]).encode(x=x, y=y)
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=x,
        y=y,
        color=alt.Color(
            "step:N",
            title="first after a change",
            scale=alt.Scale(domain=[False, True], range=PALETTE),
            legend=alt.Legend(orient="bottom"),
        ),
        tooltip=tooltip,
    )
    return alt.layer(rules, line, points).properties(width=560, height=220, title=title)
