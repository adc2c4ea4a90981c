"""What a report says of methods of adaptation: what they are, and what they cost and give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isinf

import pandas as pd

from dabench.findings.certainty import IMAGES_RULE, Scored, over_images, read_scored
from dabench.findings.trainings import Comparison, TrainingResults, compare
from dabench.plan.methods import BASE, METHODS, PLUS
from dabench.report.text import Writer
from dabench.timing.seeds import LEVEL, MOST_NEEDED, POWER, more_seeds

MIN_SEEDS = 2
EFFECT = 0.01
"""The difference of mIoU, a point, that seeds are to tell from none."""

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
        devices = group["train_s"] * group["processes"]
        hours = (group["cpu_s"] if on_cpu else devices).mean() / 3600
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


def certainty_table(out: Writer, comparisons: Sequence[Comparison], scored: ScoredRuns) -> None:
    """Whether seeds or images limit what differences say, and how many seeds would decide."""
    rows = []
    for found in comparisons:
        over_seeds = found.difference.high - found.difference.estimate
        images = scored.over_images(found.label, found.by_seed, found.against)
        limit = "-"
        if images is not None and not isinf(over_seeds):
            limit = "seeds" if over_seeds >= images else "images"
        rows.append(
            {
                "compared": f"{found.label} - {found.against}",
                "points": f"{100 * found.difference.estimate:+.1f}",
                "± over seeds": "-" if isinf(over_seeds) else f"{100 * over_seeds:.1f}",
                "± over images": "-" if images is None else f"{100 * images:.1f}",
                "limited by": limit,
                "verdict": found.verdict,
                f"more seeds for {100 * EFFECT:.0f} point": _needed(found),
            }
        )
    if rows:
        chance = LEVEL * len(rows)
        out.table(
            pd.DataFrame(rows),
            "How sure the differences of mIoU are. Over seeds: half of the 95% interval (Student's "
            f"t); {IMAGES_RULE}. More seeds, for undecided pairs: with which a difference of "
            f"{100 * EFFECT:.0f} point would be decided with a probability of {POWER:.0%}, should "
            "seeds go on to scatter so; 0: it would have been. Each pair is judged by itself: of "
            f"these {len(rows)}, {chance:.1f} would be decided by chance if nothing differed, and "
            "more where seeds were added after a look at them: `--decide` allows for that. Few "
            "images that are alike say less than resampling them shows.",
        )


def _needed(found: Comparison) -> str:
    if found.verdict != "undecided":
        return "-"
    needed = more_seeds(list(found.by_seed.values()), EFFECT)
    if len(found.by_seed) < MIN_SEEDS:
        return "one seed tells nothing"
    return f"over {MOST_NEEDED}" if needed is None else str(needed)


class ScoredRuns:
    """The frames of runs, each read once.

    Args:
        good: Rows of runs with a result, of one pair of domains and one protocol.
        loaded: What they were read with.
    """

    def __init__(self, good: pd.DataFrame, loaded: TrainingResults) -> None:
        self._runs = {
            (row["label"], row["seed"]): loaded.folders[row["suite"], row["run"]]
            for row in good.to_dict("records")
        }
        own = loaded.classes.merge(good[["suite", "run"]]) if "run" in loaded.classes else None
        self._classes = int((loaded.classes if own is None else own)["index"].max()) + 1
        self._evaluation = str(good["evaluation"].iloc[0])
        self._known: dict[tuple[str, int], Scored | None] = {}

    def _of(self, label: str, seed: int) -> Scored | None:
        key = (label, seed)
        if key not in self._known:
            self._known[key] = read_scored(self._runs[key], self._classes)
        return self._known[key]

    def over_images(self, label: str, seeds: Iterable[int], against: str = "") -> float | None:
        """Half of the interval over images of a mIoU, or of a difference; None if nothing is known.

        Args:
            label: The training.
            seeds: Its mean is over these.
            against: The other one of a difference.
        """
        seeds = list(seeds)
        sides = []
        for name in (label, against) if against else (label,):
            known = [scored for seed in seeds if (scored := self._of(name, seed)) is not None]
            if len(known) < len(seeds):
                return None
            sides.append(known)
        return over_images(sides[0], sides[1] if against else [], self._evaluation)
