"""Speed against accuracy: what was measured of the same graph, and what others print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dabench.findings.candidates import Candidate
from dabench.findings.choices import Choice
from dabench.findings.speeds import printed_speeds
from dabench.page.measured import name_of, rounded
from dabench.plan.ways import way_name
from dabench.timing.statistics import Interval

PRINTED = "printed"
"""The front of no machine: these figures are of their sources' machines, without intervals."""

COLUMNS = (
    "model", "way", "machine", "data", "tier", "front", "whole", "x", "x_low", "x_high", "y",
    "y_low", "y_high", "what", "key", "order",
)  # fmt: skip
"""Of a dot: milliseconds and percent, and the measurement it is of."""


def dots(choices: Mapping[str, Choice], *, printed: bool) -> list[dict[str, Any]]:
    """A dot per network, way and machine.

    Args:
        choices: Run of timings -> what it came to. Times and accuracies are joined there by
            weights, graph and input, never by name.
        printed: Whether the figures of others follow.

    Returns:
        Rows of `COLUMNS`.
    """
    every = [
        _measured(run_id, choice, each)
        for run_id, choice in choices.items()
        for each in choice.candidates
        if each.seconds is not None and each.accuracy is not None
    ]
    every += _printed() if printed else ()
    return [{**each, "order": place} for place, each in enumerate(every)]


def _measured(run_id: str, choice: Choice, each: Candidate) -> dict[str, Any]:
    if each.seconds is None or each.accuracy is None:
        raise ValueError(f"{each.name} has no time or no accuracy")
    # Of a single launch the interval says nothing of the next.
    alone = Interval(*3 * (each.seconds.estimate,))
    seconds = each.seconds if each.launches > 1 else alone
    synthetic = " (SYNTHETIC)" if each.accuracy.synthetic else ""
    return {
        "model": "/".join(each.case.model.split("/")[-2:]),
        "way": way_name(each.case),
        "machine": choice.machine,
        "data": each.accuracy.data + synthetic,
        "tier": "measured here",
        "front": each.name in choice.front,
        "whole": not each.stopped,
        **_axis("x", seconds, 1e3),
        **_axis("y", each.accuracy.miou, 1e2),
        "what": f"{each.percentile} of a pass, batch {each.case.batch}, "
        f"{each.case.height}x{each.case.width}, {each.launches} launches; "
        f"{each.accuracy.evaluation} mIoU; graph {each.graph[:12]}",
        "key": name_of(run_id, each.case.case_id, "forward"),
    }


def _axis(name: str, interval: Interval, scale: float) -> dict[str, Any]:
    ends = rounded(scale * value for value in (interval.estimate, interval.low, interval.high))
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _printed() -> Iterator[dict[str, Any]]:
    """Figures with both a speed and an accuracy, as their sources print them."""
    speeds = printed_speeds()
    known: Iterable[Mapping[Any, Any]] = speeds[speeds["miou"].notna()].to_dict("records")
    for row in known:
        seconds = Interval(*3 * (1 / row["images_per_s"],))
        miou = Interval(*3 * (row["miou"] / 100,))
        how = ", ".join(filter(None, (row["runtime"], row["dtype"], row["input_hw"])))
        yield {
            "model": row["name"],
            "way": how or "not stated",
            "machine": f"{row['device']} ({PRINTED})",
            "data": f"Cityscapes, {row['miou_split']} split, as printed",
            "tier": f"{PRINTED}: {row['tier']}",
            "front": False,
            "whole": False,
            **_axis("x", seconds, 1e3),
            **_axis("y", miou, 1e2),
            "what": f"{row['source']}; {row['note'] or 'no note'}; 1 / images per second",
            "key": "",
        }
