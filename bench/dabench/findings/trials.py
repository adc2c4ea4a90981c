"""What else helps: whole passes of two networks with one thing changed at a time.

A profile compares layouts and precisions layer by layer. What changes the graph
or how often it is launched is timed as whole passes, in a run of its own inside
the profile's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dabench.base.units import format_threads
from dabench.findings.tables import compared, load
from dabench.plan.axes import KEEP, KEPT
from dabench.plan.cases import Case
from dabench.plan.settings import Grid, Settings
from dabench.records.folder import has_run

FOLDER = "trials"
REPEAT, LAUNCHES = 5, 3
LARGER_BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One network with one thing changed; times are seconds per image.

    Attributes:
        change: In words; empty as it is.
        gain: How many times as fast as without the change, with its 95% interval.
        against: The first network's time over this one's, with the same change.
        compile_s: Seconds that compiling took, where there was any.
        system_share: Of the processor's time, what the operating system took; None where that
            is not known.
    """

    model: str
    change: str
    seconds: float
    low_s: float
    high_s: float
    gain: tuple[float, float, float]
    against: tuple[float, float, float] | None
    compile_s: float | None = None
    system_share: float | None = None

    @property
    def keeps_memory(self) -> bool:
        """Whether keeping freed memory is all that was changed."""
        return self.change == KEPT


def trial_grids(
    grid: Grid, cores: int, launches: int = LAUNCHES, *, keeps: bool = False
) -> list[tuple[Grid, Settings]]:
    """What to time beside a profile, as it is first.

    Args:
        grid: Of the profile: two networks in one batch, mode and number of threads.
        cores: That may be used.
        launches: Of each.
        keeps: Whether freed memory can be kept there.
    """
    train = grid.modes == ("train",)
    base = replace(
        grid,
        dtypes=("fp32",),
        memory_formats=("nchw",),
        phases=("total",) if train else ("forward",),
    )
    (batch,) = grid.batches
    batches = tuple(dict.fromkeys(b for b in (1, LARGER_BATCH * batch) if b != batch))
    others = [replace(base, compiles=("default",)), replace(base, batches=batches)]
    threads = 1 if grid.threads != (1,) else cores
    if threads not in grid.threads and cores > 1:
        others.append(replace(base, threads=(threads,)))
    if keeps:
        others.append(replace(base, allocators=(KEEP,)))
    settings = Settings.of(repeat=REPEAT, launches=launches)
    return [(each, settings) for each in (base, *others)]


def read_trials(folder: Path, first: str, second: str) -> list[Trial]:
    """The trials in a profile's folder; none where none were made.

    Raises:
        ResultsError: Damaged records.
    """
    if not has_run(folder / FOLDER):
        return []
    loaded = load([folder / FOLDER])
    times = loaded.times
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()}
        for row in loaded.measurements.to_dict("records")
        if row["status"] == "ok"
    ]
    # A network's first case is the one in which nothing is changed.
    plans: dict[str, str] = {}
    for item in loaded.runs[0]["plan"]:
        case = Case.of(item["case"])
        plans.setdefault(case.model, case.case_id)
    trials = []
    for model in (first, second):
        mine = [row for row in rows if row["model"] == model]
        base = next((row for row in mine if row["case_id"] == plans.get(model)), None)
        if base is None:
            # Without it nothing can be said of what a change does.
            continue
        for row in mine:
            change = ", ".join(_changes(row, base))
            partner = [r for r in rows if r["model"] == first and _same(r, row)]
            against = compared(partner[0], row, times) if partner and model == second else None
            trials.append(
                Trial(
                    model=model,
                    change=change,
                    seconds=row["median_s"] / row["batch"],
                    low_s=row["ci_low_s"] / row["batch"],
                    high_s=row["ci_high_s"] / row["batch"],
                    gain=_gain(row, base, compared(base, row, times)),
                    against=_three(against) if against else None,
                    compile_s=_known(row["compile_s"]),
                    system_share=_known(row["system_share"]),
                )
            )
    return trials


def _known(value: float) -> float | None:
    """A cell of a table, where what is not known is no number."""
    return None if value != value else value


_AXES = ("compile", "batch", "threads", "allocator")


def _same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(row[axis] == other[axis] for axis in _AXES)


def _changes(row: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    words = {
        "compile": f"torch.compile ({row['compile']})",
        "batch": f"batch {row['batch']}",
        "threads": format_threads(row["threads"]),
        "allocator": KEPT,
    }
    return (words[axis] for axis in _AXES if row[axis] != base[axis])


def _three(found: Mapping[str, Any]) -> tuple[float, float, float]:
    return found["ratio"], found["ratio_low"], found["ratio_high"]


def _gain(
    row: Mapping[str, Any], base: Mapping[str, Any], found: Mapping[str, Any]
) -> tuple[float, float, float]:
    """Images per second over those without the change."""
    images = row["batch"] / base["batch"]
    ratio, low, high = _three(found)
    return ratio * images, low * images, high * images


def changed(trials: Sequence[Trial], model: str) -> list[Trial]:
    """A network's trials in which something was changed."""
    return [trial for trial in trials if trial.model == model and trial.change]
