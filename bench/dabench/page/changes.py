"""What changed between runs of one machine: pairs of runs, and cases over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dabench.base.errors import UsageError
from dabench.base.units import format_seconds, significant
from dabench.findings.compare import Compared, compare_runs
from dabench.findings.history import History, Point, histories
from dabench.findings.tables import Results
from dabench.page.document import PageDocument
from dabench.report.charts import course, dumbbells

MOST_PAIRS = 6
MOST_CASES = 40
"""In one chart of two runs."""
MOST_COURSES = 12


def change_sections(
    out: PageDocument, loaded: Results, timings: Mapping[str, Path], name: str
) -> None:
    """Writes what two runs of a machine have in common, and what three or more have.

    Args:
        out: The document.
        loaded: Runs.
        timings: Name of a run -> its folder.
        name: Of the charts.
    """
    every = _pairs(loaded)
    # What changed last is what a reader looks for.
    pairs = every[::-1][:MOST_PAIRS]
    for base, new in pairs:
        try:
            found = compare_runs(timings[base], timings[new], families=len(pairs))
        except UsageError:
            continue  # other hardware of the same name
        out.runs = [base, new]
        _pair(out, base, new, found, name)
    if len(every) > len(pairs):
        out.heading("Older pairs of runs")
        out.paragraph(f"{len(every) - len(pairs)} older pairs of runs: 'dabench compare'.")
        out.bullets([f"`{base}` and `{new}`" for base, new in every[: -len(pairs)]])
    if len(timings) > 1:
        known, _ = histories(list(timings.values()))
        _courses(out, [each for each in known if len(each.points) > 2], timings, name)


def _pairs(loaded: Results) -> list[tuple[str, str]]:
    """Runs of a machine that follow one another and have a case in common, the latest last."""
    rows = loaded.measurements[loaded.measurements["status"] == "ok"]
    created = {run["run_id"]: run["created"] for run in loaded.runs}
    found = []
    for _, mine in rows.groupby("machine", sort=False):
        cases = {str(run): set(group["case_id"]) for run, group in mine.groupby("run_id")}
        runs = sorted(cases, key=created.__getitem__)
        for base, new in itertools.combinations(runs, 2):
            between = runs[runs.index(base) + 1 : runs.index(new)]
            common = cases[base] & cases[new]
            if common and not any(common <= cases[other] for other in between):
                found.append((base, new))
    return sorted(found, key=lambda pair: created[pair[1]])


def _relevance(found: Compared) -> float:
    """Magnitude times certainty."""
    if found.ratio is None or found.judgement is None:
        return 0.0
    return abs(math.log(found.ratio.estimate)) * (1 - min(found.judgement.p, 1.0))


def _pair(out: PageDocument, base: str, new: str, found: Sequence[Compared], name: str) -> None:
    known = [each for each in found if each.base_s and each.new_s and each.ratio]
    lost = [
        f"{each.new.case_id} {each.phase}: {each.reason}" for each in found if each not in known
    ]
    if not known:
        return
    known.sort(key=_relevance, reverse=True)
    out.heading(f"Two runs: {base} and {new}")
    rows = [
        {
            "case": f"{each.new.case_id} {each.phase}",
            base: format_seconds(each.base_s),
            new: format_seconds(each.new_s),
            "ratio": significant(each.ratio.estimate),
            "95% interval": f"{significant(each.ratio.low)} to {significant(each.ratio.high)}",
            "launches": str(each.launches),
            "verdict": each.verdict,
            "why": each.reason,
        }
        for each in known
        if each.ratio
    ]
    points = [
        {
            "label": row["case"], "side": side, "value": 1e3 * seconds, "said": row["verdict"],
            "low": 1e3 * min(each.base_s, each.new_s), "high": 1e3 * max(each.base_s, each.new_s),
        }
        for row, each in zip(rows[:MOST_CASES], known, strict=False)
        if each.base_s and each.new_s
        for side, seconds in ((base, each.base_s), (new, each.new_s))
    ]  # fmt: skip
    title = f"{base} and {new}: medians"
    out.chart(
        dumbbells(pd.DataFrame(points), unit="ms per pass", title=title),
        Path(f"{name}-pair"),
        f"{title}, the most relevant first: how far apart, times how sure that is",
    )
    out.table(
        pd.DataFrame(rows),
        "Times of the second run over those of the first, judged as one family; the most relevant "
        "first. 'dabench compare' says what would decide the rest.",
    )
    out.bullets([f"No time on both sides: {line}." for line in lost])


def _end(point: Point, end: float) -> float:
    return end if point.launches > 1 else point.time.estimate


def _courses(
    out: PageDocument, known: Sequence[History], timings: Mapping[str, Path], name: str
) -> None:
    if not known:
        return
    names = {str(path): run for run, path in timings.items()}
    out.heading("Cases over time")
    moved = sorted(known, key=lambda each: -len(each.steps))
    for each in moved[:MOST_COURSES]:
        frame = pd.DataFrame(
            {
                "run": [names.get(point.run, Path(point.run).name) for point in each.points],
                "commit": [point.commit for point in each.points],
                "value": [1e3 * point.time.estimate for point in each.points],
                # Of a single launch the interval says nothing of the next.
                "low": [1e3 * _end(point, point.time.low) for point in each.points],
                "high": [1e3 * _end(point, point.time.high) for point in each.points],
                "step": [point.step is not None for point in each.points],
                "changed": [point.changed for point in each.points],
            }
        )
        title = f"{each.case_id} {each.phase}"
        steps = len(each.steps)
        out.chart(
            course(frame, unit="ms per pass", title=title),
            Path(f"{name}-course"),
            f"{title} in {len(each.points)} runs, the oldest first: "
            + (f"{steps} change{'s' if steps > 1 else ''}" if steps else "no change that is sure"),
        )
    if len(moved) > MOST_COURSES:
        out.paragraph(f"{len(moved) - MOST_COURSES} more cases: 'dabench history --case'.")
