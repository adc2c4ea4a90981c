"""How much faster several processes train together than one."""

from __future__ import annotations

import pandas as pd

from dabench.findings.trainings import TrainingResults, sharing_of, task_of

SCALING_COLUMNS = (
    "data", "label", "norm", "processes", "threads", "runs", "images_per_s", "speedup",
    "efficiency", "exchange",
)  # fmt: skip

_SAME = ["data", "task", "label", "machine", "device", "threads", "norm"]
"""What runs that differ in their processes must have in common."""


def scaling(loaded: TrainingResults) -> pd.DataFrame:
    """Runs of one task in different numbers of processes, a row for each number.

    Returns:
        `SCALING_COLUMNS`: ``images_per_s`` is the median over whole epochs, evaluation not
        included; ``speedup`` that over the rate of the fewest processes; ``efficiency`` the
        speedup over how many times as many processes there are; ``exchange`` the share of the
        time that averaging gradients takes. Empty where no two numbers were run.
    """
    good = loaded.runs[loaded.runs["status"] == "ok"]
    norms = good["protocol"].map(sharing_of).str.split(", ").str[-1]
    good = good.assign(task=good["protocol"].map(task_of), norm=norms)
    # One process's images are all there are: it stands beside either.
    alone = good[(good["processes"] == 1) & (norms == "")]
    kinds = list(dict.fromkeys(norms[good["processes"] > 1]))
    beside = [alone.assign(norm=norm) for norm in kinds if "frozen" not in norm]
    good = pd.concat([good[norms != ""], *beside])
    rows = []
    for same, runs in good.groupby(_SAME, sort=False):
        if runs["processes"].nunique() < 2:
            continue
        first: tuple[int, float] | None = None
        for processes, group in runs.groupby("processes"):
            epochs = loaded.epochs.merge(group[["suite", "run"]])
            # The last one may be cut short.
            whole = epochs[epochs.groupby(["suite", "run"])["images"].transform("max")
                           == epochs["images"]]  # fmt: skip
            rate = float((whole["images"] / whole["seconds"]).median())
            many = int(str(processes))
            first = first or (many, rate)
            facts = dict(zip(_SAME, same, strict=True))
            rows.append(
                {
                    "data": facts["data"],
                    "label": facts["label"],
                    "norm": facts["norm"],
                    "processes": many,
                    "threads": facts["threads"],
                    "runs": len(group),
                    "images_per_s": rate,
                    "speedup": rate / first[1],
                    "efficiency": rate / first[1] * first[0] / many,
                    "exchange": float((whole["exchange_s"] / whole["seconds"]).mean()),
                }
            )
    return pd.DataFrame(rows, columns=list(SCALING_COLUMNS))
