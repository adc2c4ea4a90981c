"""Charts whose rows the page's scripts put in, so that they follow its filters."""

from __future__ import annotations

from typing import Any

import altair as alt

from dabench.report.charts import PALETTE, Chart

ROWS = "rows"
"""The name under which scripts find the data of a chart."""

_FIT = alt.AutoSizeParams(type="fit-x", contains="padding")


def live_charts() -> dict[str, dict[str, Any]]:
    """Specifications by name, whose data is called `ROWS`."""
    charts = {
        "times": _times(),
        "tradeoff": _tradeoff(),
        "samples": _samples(),
        "launches": _launches(),
    }
    return {name: chart.to_dict() for name, chart in charts.items()}


def _rows() -> alt.NamedData:
    return alt.NamedData(name=ROWS)


def _color(field: str, **rest: Any) -> alt.Color:
    return alt.Color(field, title=None, scale=alt.Scale(range=PALETTE), **rest)


def _times() -> Chart:
    """A dot and an interval per measurement, in the order of the table; fields of its rows."""
    rows = alt.Chart(_rows())
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=380))
    scale = alt.Scale(type="log", nice=False, padding=16)
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=420)
    color = _color("group:N", legend=legend)
    tooltip = [
        alt.Tooltip("label:N", title="measurement"),
        alt.Tooltip("shown:N", title="median (95% interval)"),
        alt.Tooltip("what:N", title="protocol, launches"),
        alt.Tooltip("machine:N"),
    ]
    rules = rows.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", scale=scale, title="ms per sample"), x2="high:Q", y=y, color=color
    )
    points = rows.mark_point(filled=True, size=70, opacity=1, cursor="pointer").encode(
        x=alt.X("value:Q", scale=scale), y=y, color=color, tooltip=tooltip
    )
    return alt.layer(rules, points).properties(autosize=_FIT, width="container")


def _tradeoff() -> Chart:
    """Dots with intervals both ways, a line through each machine's front, a row per data."""
    rows = alt.Chart()
    x = alt.X("x:Q", title="ms a pass (95% interval)", scale=alt.Scale(type="log", padding=16))
    y_scale = alt.Scale(zero=False, padding=12)
    y = alt.Y("y:Q", title="mIoU % (95% over images)", scale=y_scale)
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=420, symbolLimit=40)
    color = _color("color:N", legend=legend)
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("way:N"),
        alt.Tooltip("machine:N"),
        alt.Tooltip("x:Q", title="ms", format=".4~g"),
        alt.Tooltip("y:Q", title="mIoU %", format=".4~g"),
        alt.Tooltip("tier:N"),
        alt.Tooltip("what:N", title="protocol"),
    ]
    layers = [
        rows.transform_filter("datum.front")
        .mark_line(strokeDash=[5, 3], opacity=0.8)
        .encode(x=x, y=y, order="x:Q", color=color),
        rows.mark_rule().encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y, color=color),
        rows.mark_rule().encode(x=x, y=alt.Y("y_low:Q"), y2="y_high:Q", color=color),
    ]
    layers += [
        rows.transform_filter(f"datum.whole === {str(filled).lower()}")
        .mark_point(filled=filled, size=80, opacity=1, cursor="pointer")
        .encode(x=x, y=y, color=color, shape=alt.Shape("tier:N", title=None), tooltip=tooltip)
        for filled in (True, False)
    ]
    header = alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top")
    order = alt.EncodingSortField(field="order", op="min")
    chart: Chart = (
        alt.layer(*layers)
        .properties(width=560, height=260)
        .facet(row=alt.Row("data:N", sort=order, title=None, header=header), data=_rows())
        .resolve_scale(x="independent", y="independent")
    )
    return chart


def _samples() -> Chart:
    """Every sample: a strip per launch, warm-up in grey; the interval as a band."""
    rows = alt.Chart()
    x = alt.X("value:Q", title="ms per sample", scale=alt.Scale(zero=False))
    kinds = ["warm-up", "sample", "until the work was done", "alone"]
    color = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=["#9a9a9a", *PALETTE[:3]]),
        legend=alt.Legend(orient="bottom"),
    )
    y = alt.Y("launch:N", sort=None, title="launch")
    band = rows.mark_rule(strokeWidth=14, opacity=0.12).encode(
        x=alt.X("min(low):Q"), x2="max(high):Q", y=y
    )
    ticks = rows.mark_tick(thickness=1.5, opacity=0.75).encode(
        x=x,
        y=y,
        color=color,
        tooltip=[
            alt.Tooltip("launch:N"),
            alt.Tooltip("kind:N"),
            alt.Tooltip("index:Q", title="pass"),
            alt.Tooltip("value:Q", title="ms", format=".5~g"),
        ],
    )
    return alt.layer(band, ticks, data=_rows()).properties(autosize=_FIT, width="container")


def _launches() -> Chart:
    """Launches of a case over time: their medians, and how busy the machine was beside them."""
    rows = alt.Chart(_rows())
    x = alt.X("at:T", title="begun (UTC)", scale=alt.Scale(type="utc"))
    y = alt.Y("median:Q", title="median, ms", scale=alt.Scale(zero=False, padding=10))
    size = alt.Size(
        "load:Q",
        title="other programs, cores",
        scale=alt.Scale(range=[60, 500], domainMin=0),
        legend=alt.Legend(orient="bottom", symbolFillColor="#888", format=".2~f"),
    )
    points = rows.mark_point(filled=True, opacity=0.85, color=PALETTE[0]).encode(
        x=x,
        y=y,
        size=size,
        tooltip=[
            alt.Tooltip("launch:N"),
            alt.Tooltip("median:Q", title="median, ms", format=".5~g"),
            alt.Tooltip("load:Q", title="other programs, cores", format=".2~f"),
            alt.Tooltip("throttled:N"),
            alt.Tooltip("heat:N", title="temperature"),
            alt.Tooltip("ended:N", title="ended by"),
        ],
    )
    line = rows.mark_line(opacity=0.4, color=PALETTE[0]).encode(x=x, y=y, order="at:T")
    return alt.layer(line, points).properties(autosize=_FIT, width="container", height=180)
