"""Whether a way to run a network keeps its accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dabench.findings.certainty import MIOU, RESAMPLES, TAIL, Scored, resampled_miou, scored_of
from dabench.findings.tables import machine_name
from dabench.plan.axes import variant_of
from dabench.records.calibrations import calibration_lines
from dabench.records.counts import read_counts
from dabench.records.folder import read_run
from dabench.records.scores import KEEP, KIND, ScoreRow, read_score_frames, read_scores
from dabench.records.timings import read_plan
from dabench.records.trainings import FRAMES
from dabench.timing.pairs import PAIRS
from dabench.timing.statistics import Interval
from dabench.timing.verdicts import DELTA, verdict

FEWEST = 8
"""Frames below which resampling them says nothing."""

KEEP_RULE = (
    f"of the plain network's mIoU, the interval over images (95% of {RESAMPLES} resamplings of the "
    "evaluated frames, both on the same ones): kept where all of it is at least what is to be "
    f"kept, lost where none is; undecided of fewer than {FEWEST} frames"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A way's mIoU over the plain network's.

    Attributes:
        share: Of all frames, with its interval over images.
        verdict: ``kept``, ``lost`` or ``undecided``; `PLAIN` of the plain network itself.
    """

    share: Interval
    verdict: str


PLAIN = "plain"
UNKNOWN = "unknown"
"""What is said of a way that has nothing to be held against."""


def kept(ours: Scored, plain: Scored, keep: float, evaluation: str) -> Kept | None:
    """Holds a way's mIoU against the plain network's on the same frames.

    Args:
        ours: The way's pixels.
        plain: The plain network's.
        keep: The share that is to be kept.
        evaluation: ``official`` or ``paper``.

    Returns:
        None where the plain network's is 0.
    """
    one, other = (
        float(MIOU[evaluation](each.hit.sum(0), each.union.sum(0))) for each in (ours, plain)
    )
    if not other:
        return None
    ones, others = (resampled_miou(each, evaluation) for each in (ours, plain))
    shares = np.divide(ones, others, out=np.ones_like(ones), where=others > 0)
    low, high = (float(each) for each in np.percentile(shares, (TAIL, 100 - TAIL)))
    verdict = "kept" if low >= keep else "lost" if high < keep else "undecided"
    if len(ours.names) < FEWEST:
        verdict = "undecided"
    return Kept(Interval(one / other, low, high), verdict)


def ways_kept(
    folder: Path, document: Mapping[str, Any], rows: Sequence[ScoreRow], keep: float
) -> list[Kept | None]:
    """What each way of a run keeps; None where that cannot be said, for want of a score.

    Args:
        folder: Of the run.
        document: Its ``run.json``.
        rows: One per way; the first is the plain network.
        keep: The share that is to be kept.

    Raises:
        ResultsError: A damaged table.
    """
    classes, evaluation = len(document["classes"]), document["evaluation"]
    scored = {
        way: scored_of(frames, classes, folder / FRAMES)
        for way, frames in read_score_frames(folder).items()
        # Frames are written before their way's row, which may be missing yet.
        if way < len(rows) and rows[way].status == "ok"
    }
    plain = scored.pop(0, None)
    if plain is None:
        return [None] * len(rows)
    held = (
        kept(scored[way], plain, keep, evaluation) if way in scored else None
        for way in range(1, len(rows))
    )
    return [Kept(Interval(1.0, 1.0, 1.0), PLAIN), *held]


REAL_RULE = (
    f"time of a pass on the frames over that on random input, in turn in one process, {PAIRS} of "
    f"each, with Student's 95% interval; a difference of more than {DELTA:.0%} is a flag: times "
    "on random input are then not those of the network at work"
)


def real_of(row: ScoreRow) -> str | None:
    """Whether passes on real images are ``slower``, ``faster`` or the ``same``; None if unknown."""
    return None if row.real is None else verdict(row.real)


COLUMNS = (
    "run_id", "machine", "data", "split", "synthetic", "evaluation", "before", "after", "model",
    "weights", "graph", "device", "batch", "height", "width", "way", "dtype", "memory_format",
    "threads", "calibrated", "status", "reason", "of_frames", "miou", "accuracy", "difference",
    "emulated", "keep", "kept", "kept_low", "kept_high", "verdict", "real_ratio", "real_low",
    "real_high", "real",
)  # fmt: skip


def ways_frame(runs: Sequence[Path], keep: float = KEEP) -> pd.DataFrame:
    """The ways of some runs, a row each, with `COLUMNS`.

    Raises:
        ResultsError: Damaged records.
    """
    rows = [row for run in runs for row in _rows(run, keep)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(folder: Path, keep: float) -> Iterator[dict[str, Any]]:
    document = read_run(folder, KIND)
    cases = {each.case.case_id: each.case for each in read_plan(folder, document)}
    scores = read_scores(folder)
    graph = next((count.get("graph", "") for count in read_counts(folder)), "")
    for row, found in zip(scores, ways_kept(folder, document, scores, keep), strict=True):
        case = cases[row.case_id]
        shared = {**document, **document["data"], **case.to_dict(), **row.to_dict()}
        share = None if found is None else found.share
        yield {
            **{name: shared[name] for name in COLUMNS if name in shared},
            "machine": machine_name(document["environment"], None, case.device),
            "data": document["data"]["name"],
            "of_frames": document["data"]["frames"],
            "weights": document["networks"][case.model]["sha256"],
            "graph": graph,
            "way": variant_of(case),
            "calibrated": "; ".join(calibration_lines(document)),
            "keep": keep,
            "kept": share and share.estimate,
            "kept_low": share and share.low,
            "kept_high": share and share.high,
            "verdict": UNKNOWN if found is None else found.verdict,
            "real": real_of(row),
        }
