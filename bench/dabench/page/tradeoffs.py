"""Speed against accuracy: what was measured of the same graph, and what others print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dabench.base.units import format_launches
from dabench.findings.choices import Choice
from dabench.findings.joining import Accuracy, Identities, Scores, read_accuracies
from dabench.findings.proofs import unproven_of
from dabench.findings.speeds import printed_speeds
from dabench.findings.tables import Results
from dabench.page.measured import name_of, rounded
from dabench.plan.cases import Case
from dabench.plan.ways import way_name
from dabench.records.folder import read_run
from dabench.records.timings import read_plan
from dabench.timing.statistics import Interval

PRINTED = "printed"
"""The front of no machine: these figures are of their sources' machines, without intervals."""


def dots(
    choices: Mapping[str, Choice],
    loaded: Results | None,
    timings: Mapping[str, Path],
    scores: Iterable[Path],
) -> list[dict[str, Any]]:
    """A dot per network, way and machine, and figures that others print where there is any.

    Args:
        choices: Run of timings -> what it came to.
        loaded: Runs of timings.
        timings: Name of a run -> its folder.
        scores: Folders of runs of scores. Times and accuracies are joined by weights, graph and
            input, in choices too, and never by name.

    Returns:
        Of each dot milliseconds and percent (``x``, ``y``) with their intervals, what it is of, and
        the measurement (``key``).
    """
    every = [
        _dot(
            name_of(run_id, each.case.case_id, "forward"), each.case, choice.machine,
            # Of a single launch the interval says nothing of the next.
            each.seconds if each.launches > 1 else Interval(*3 * (each.seconds.estimate,)),
            each.accuracy, f"{each.percentile} of a pass, {format_launches(each.launches)}",
            whole=not each.stopped,
        )
        for run_id, choice in choices.items()
        for each in choice.candidates
        if each.seconds is not None and each.accuracy is not None
    ]  # fmt: skip
    if loaded is not None:
        rest = {name: path for name, path in timings.items() if name not in choices}
        every += _joined(loaded, rest, read_accuracies(scores))
    _mark_fronts(every)
    every += _printed() if every else ()
    return [{**each, "order": place} for place, each in enumerate(every)]


def _joined(
    loaded: Results, timings: Mapping[str, Path], scores: Scores
) -> Iterator[dict[str, Any]]:
    """Rows of timings whose graph, weights and input were scored as well."""
    if not scores.known:
        return
    rows = loaded.measurements
    good = rows[(rows["status"] == "ok") & (rows["phase"] == "forward")]
    good = good[(good["protocol"] == "steady") & (good["concurrency"] == 1)]
    for name, path in timings.items():
        identities = Identities(path)
        cases = {each.case.case_id: each.case for each in read_plan(path, read_run(path))}
        for row in good[good["run_id"] == name].to_dict("records"):
            identity = identities.of(cases[row["case_id"]])
            accuracy = None if identity is None else scores.known.get(identity)
            if accuracy is not None:
                several = row["launches"] > 1
                low, high = (row[f"ci_{end}_s"] if several else row["median_s"]
                             for end in ("low", "high"))  # fmt: skip
                yield _dot(
                    name_of(name, row["case_id"], "forward"), cases[row["case_id"]],
                    row["machine"], Interval(row["median_s"], low, high), accuracy,
                    f"median of a pass, {format_launches(row['launches'])}", whole=True,
                )  # fmt: skip


def _dot(
    key: str,
    case: Case,
    machine: str,
    seconds: Interval,
    accuracy: Accuracy,
    what: str,
    *,
    whole: bool,
) -> dict[str, Any]:
    synthetic = " (SYNTHETIC)" if accuracy.synthetic else ""
    return {
        "model": "/".join(case.model.split("/")[-2:]),
        "way": way_name(case),
        "machine": machine,
        "color": machine,
        "data": accuracy.data + synthetic,
        "tier": "measured here",
        "front": False,
        "whole": whole,
        **_axis("x", seconds, 1e3),
        **_axis("y", accuracy.miou, 1e2),
        "what": f"{what}{unproven_of(case.device, case.runtime)}, batch {case.batch}, "
        f"{case.height}x{case.width}; {accuracy.evaluation} mIoU",
        "key": key,
    }


def _mark_fronts(measured: Sequence[dict[str, Any]]) -> None:
    """On the front of a machine is what no dot of it on the same data beats in both."""
    for one in measured:
        beaten = any(
            (other["machine"], other["data"], other["whole"]) == (one["machine"], one["data"], True)
            and other["x"] <= one["x"]
            and other["y"] >= one["y"]
            and (other["x"], other["y"]) != (one["x"], one["y"])
            for other in measured
        )
        one["front"] = one["whole"] and not beaten


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
            # As measurements have it, channels first.
            "size": row["input_hw"] and f"3x{row['input_hw']}",
            "dtype": row["dtype"],
            "color": PRINTED,
            "data": f"Cityscapes, {row['miou_split']} split, as printed",
            "tier": f"{PRINTED}: {row['tier']}",
            "front": False,
            "whole": False,
            **_axis("x", seconds, 1e3),
            **_axis("y", miou, 1e2),
            "what": f"{row['source']}; {row['note'] or 'no note'}; 1 / images per second",
            "key": "",
        }
