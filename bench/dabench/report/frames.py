"""Frames taken apart: the stages of each case, and what conventions would print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dabench.base.units import format_interval, format_seconds, significant
from dabench.findings.frames import FRAME_RULE, FrameTimes, name_of, size_of
from dabench.findings.tables import machine_name
from dabench.plan.axes import variant_of
from dabench.plan.conventions import CONVENTIONS, Convention
from dabench.report.text import Writer
from dabench.timing.statistics import Interval


def section(out: Writer, document: Mapping[str, Any], found: list[FrameTimes]) -> None:
    """A section of one run."""
    good = [each for each in found if each.status == "ok"]
    out.heading(f"A frame taken apart: {name_of(document)}, {size_of(document)}")
    for line in document["left_out"]:
        out.paragraph(f"{line}.")
    for each in good:
        machine = machine_name(document["environment"], each.device_name, each.case.device)
        said = "".join(f" {part}." for part in (each.notes, _failed(each)) if part)
        out.table(
            pd.DataFrame(stage_rows(each)),
            f"{each.case.model}, {way_of(each)} on {machine}, {each.case.device}; "
            f"{each.launches} launches; {FRAME_RULE}.{said}",
        )
        out.table(
            pd.DataFrame(convention_rows(each)),
            "The same passes by the stages that others time: "
            + "; ".join(f"`{name}` ({_said(each)})" for name, each in CONVENTIONS.items())
            + ".",
        )
    bad = [each for each in found if each.status != "ok"]
    if bad:
        rows = [(each.case.model, way_of(each), each.status, each.reason) for each in bad]
        out.table(
            pd.DataFrame(rows, columns=["model", "way", "status", "reason"]),
            "What could not be timed, and why.",
        )


def _failed(each: FrameTimes) -> str:
    return f"Launches without times: {each.failed}" if each.failed else ""


def _said(convention: Convention) -> str:
    return "; ".join(part for part in (convention.source, convention.differs) if part)


def way_of(each: FrameTimes) -> str:
    """How a case is run, in words."""
    case = each.case
    size = f"{case.height}x{case.width}"
    return f"{size}, {case.dtype}, {case.memory_format}, {variant_of(case)}"


def stage_rows(each: FrameTimes) -> list[dict[str, str]]:
    """The stages, the rest and the whole as rows of text."""
    assert each.whole is not None
    shares = each.shares or {}
    rows = [
        {"stage": name, **_cells(one, each.launches), "share": f"{shares[name]:.1%}"}
        for name, one in (each.stages or {}).items()
    ]
    flag = "" if each.adds_up else " (does not add up)"
    rest = each.rest * each.whole.estimate
    shown = f"-{format_seconds(-rest)}" if rest < 0 else format_seconds(rest)
    added = each.added
    within = "-"
    if added is not None and each.launches > 1:
        within = f"{1 - added.high:.1%} to {1 - added.low:.1%}"
    rows.append(
        {
            "stage": "rest",
            "median": shown,
            "95% interval": within,
            "share": f"{each.rest:.1%}{flag}",
        }
    )
    rows.append({"stage": "whole", **_cells(each.whole, each.launches), "share": "100%"})
    return rows


def convention_rows(each: FrameTimes) -> list[dict[str, str]]:
    """What each convention would print, as rows of text."""
    has = each.stages or {}
    return [
        {
            "convention": name,
            **_cells(one, each.launches),
            "images/s": significant(1 / one.estimate),
            "leaves out": ", ".join(s for s in CONVENTIONS[name].left_out if s in has) or "-",
        }
        for name, one in (each.conventions or {}).items()
    ]


def _cells(one: Interval, launches: int) -> dict[str, str]:
    return {
        "median": format_seconds(one.estimate),
        "95% interval": format_interval(one.low, one.high) if launches > 1 else "-",
    }
