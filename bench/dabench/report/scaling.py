"""The section on processes that train together."""

from __future__ import annotations

import pandas as pd

from dabench.findings.scaling import scaling
from dabench.findings.trainings import TrainingResults
from dabench.report.text import Writer


def scaling_table(out: Writer, loaded: TrainingResults) -> None:
    """How much faster more processes are; nothing where no two numbers were run."""
    found = scaling(loaded)
    if found.empty:
        return
    out.heading("Training in several processes")
    rows = pd.DataFrame(
        {
            "data": found["data"],
            "run": found["label"],
            "in training": found["norm"],
            "processes": found["processes"].astype(str),
            "threads of each": found["threads"].astype(str),
            "runs": found["runs"].astype(str),
            "images/s": found["images_per_s"].map("{:.1f}".format),
            "times as fast": found["speedup"].map("{:.2f}".format),
            "efficiency": found["efficiency"].map("{:.0%}".format),
            "averaging gradients": found["exchange"].map("{:.0%}".format),
        }
    )
    out.table(
        rows,
        "The same batch shared by more processes: source images per second in training, median "
        "over whole epochs; how many times the fewest processes' that is; that over how many times "
        "as many processes there are (1 would be perfect); the share of the time that averaging "
        "gradients over them takes, waiting for the slowest included.",
    )
