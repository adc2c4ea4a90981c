"""``timm``: the table of timm's ``benchmark.py``, which holds no samples."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError
from dabench.base.files import write_atomically
from dabench.exchange.runs import WholeRun
from dabench.records.measurements import Measurement
from dabench.records.summary import Summary, graph_of

COLUMNS = (
    "model", "infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_img_size",
    "infer_gmacs", "train_samples_per_sec", "train_step_time", "train_batch_size",
    "train_img_size", "param_count",
)  # fmt: skip
"""In timm's order: images per second, ms per step, 1e9 multiply-adds per image, 1e6 parameters."""


class Timm:
    """One row per way of measuring a model: its median, not timm's mean."""

    suffix = ".csv"

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes the forward of eval mode and the whole step of training.

        Raises:
            UsageError: There is neither.
        """
        rows = [row for run in runs for row in _rows(run)]
        if not rows:
            raise UsageError("--format: timm's table takes forwards in eval mode and whole steps")
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(out, text.getvalue())
        return [
            "samples, launches and intervals: a row is a median",
            "device, precision, layout, threads and way of running",
            "the input's height, where it is not its width",
            "phases other than the forward of eval mode and the whole step of training",
            "protocols other than steady",
            "cases that failed, and why",
        ]

    def read(self, path: Path) -> list[WholeRun]:
        """Refuses.

        Raises:
            UsageError: Always: there are no samples in it.
        """
        raise UsageError(f"{path}: timm's table holds no samples; nothing can be imported from it")


def _rows(run: WholeRun) -> Iterator[dict[str, Any]]:
    summary = Summary(run.counts, run.uncounted)
    for planned in run.plan:
        count = summary.counts.get(graph_of(planned.case), {})
        for row in summary.rows(planned, run.of(planned.case.case_id)):
            kind = {"eval": "infer", "train": "train"}.get(row.mode)
            phase = "forward" if kind == "infer" else "total"
            if row.status == "ok" and row.protocol == "steady" and kind and row.phase == phase:
                yield _row(row, kind, count)


def _row(row: Measurement, kind: str, count: Mapping[str, Any]) -> dict[str, Any]:
    assert row.median_s is not None
    seconds = row.median_s / row.passes
    found: dict[str, Any] = {
        "model": row.model,
        f"{kind}_samples_per_sec": round(row.batch / seconds, 2),
        f"{kind}_step_time": round(1e3 * seconds, 3),
        f"{kind}_batch_size": row.batch,
        f"{kind}_img_size": row.width,
    }
    if kind == "infer" and "macs" in count:
        found["infer_gmacs"] = round(count["macs"] / 1e9, 2)
    if "params" in count:
        found["param_count"] = round(count["params"] / 1e6, 2)
    return found
