"""Times and accuracies of one and the same graph: what tells graphs apart, and the join."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dabench.findings.certainty import MIOU, TAIL, Scored, resampled_miou, scored_of
from dabench.plan.axes import INT8
from dabench.plan.cases import Case
from dabench.plan.trained import EARLIER
from dabench.plan.ways import COMPUTING
from dabench.records.calibrations import read_digests
from dabench.records.counts import read_counts
from dabench.records.folder import read_run
from dabench.records.scores import KIND, read_score_frames, read_scores
from dabench.records.summary import graph_of
from dabench.records.timings import read_plan
from dabench.records.trainings import FRAMES
from dabench.timing.statistics import Interval


@dataclass(frozen=True, slots=True)
class Identity:
    """What a time and an accuracy must share to be said of one thing.

    Batch and threads are none of it, but for the batch of int8, whose ranges are found by batches:
    they change how long a network takes and not what it says.

    Attributes:
        weights: Digest of the file of the weights.
        graph: Digest of the operators that run (`dabench.counting.counted.ModelCount`).
        device: Its kind.
        shape: Channels, height and width of the input.
        way: Values of `dabench.plan.ways.COMPUTING`.
        calibration: Digest of the images that int8 was calibrated on, their batch, and the bits of
            its weights; empty where nothing is quantised.
        processing: What an image goes through before and after the network.
    """

    weights: str
    graph: str
    device: str
    shape: tuple[int, int, int]
    way: tuple[str, ...]
    calibration: str = ""
    processing: tuple[str, ...] = tuple(EARLIER.values())


class Identities:
    """The identities of the cases of a run.

    Args:
        folder: Of the run, of timings or of scores.

    Raises:
        UsageError: No run there.
        ResultsError: Damaged records.
    """

    def __init__(self, folder: Path) -> None:
        document = read_run(folder)
        self._networks: Mapping[str, Any] = document.get("networks", {})
        self._calibrations = read_digests(folder, document)
        self._native: Mapping[str, Any] = document["environment"].get("native", {})
        # A network is counted at one batch; its graph is that of every batch.
        self._graphs = {
            tuple(count[name] for name in ("model", "channels", "height", "width", "mode")): str(
                count.get("graph", "")
            )
            for count in read_counts(folder)
        }

    def graph(self, case: Case) -> str:
        """The digest of a case's graph; empty where it is not known."""
        return self._graphs.get(graph_of(case), "")

    def of(self, case: Case) -> Identity | None:
        """That of a case; None where weights or graph are not known."""
        network = self._networks.get(case.model) or {}
        weights = network.get("sha256")
        graph = self.graph(case)
        if not weights or not graph:
            return None
        kind = case.device.partition(":")[0]
        return Identity(
            weights,
            graph,
            kind,
            (case.channels, case.height, case.width),
            tuple(str(getattr(case, key)) for key in COMPUTING),
            self._calibration(case, self._native.get(kind, ())),
            tuple(network.get(name, usual) for name, usual in EARLIER.items()),
        )

    def _calibration(self, case: Case, native: Collection[str]) -> str:
        if case.dtype != INT8:
            return ""
        # Where there are no dot products in it, its weights are narrower.
        bits = "8 bits" if INT8 in native else "7 bits"
        images = self._calibrations.get((case.model, case.calibration), case.calibration)
        return f"{images}, batch {case.batch}, {bits}"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How right a way is.

    Attributes:
        miou: With its 95% interval over images.
        scored: Its pixels, frame by frame.
        frames: Digest of the evaluated frames and the classes: accuracies on others are of
            something else.
        evaluation: ``official`` or ``paper``.
        data: What was predicted: the dataset's name and the split.
        synthetic: Whether it was drawn.
        real: Time of a pass on its images over that on random input; None where nobody compared.
    """

    miou: Interval
    scored: Scored
    frames: str
    evaluation: str
    data: str
    synthetic: bool
    real: Interval | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What runs of scores say.

    Attributes:
        known: What is scored; the last score counts where there are several.
        failed: What could not be, with the reason.
    """

    known: Mapping[Identity, Accuracy]
    failed: Mapping[Identity, str]


def read_accuracies(folders: Iterable[Path]) -> Scores:
    """The scores of runs by what they are of.

    Raises:
        UsageError: No run of scores there.
        ResultsError: Damaged records.
    """
    known: dict[Identity, Accuracy] = {}
    failed: dict[Identity, str] = {}
    for folder in folders:
        document = read_run(folder, KIND)
        identities = Identities(folder)
        cases = {planned.case.case_id: planned.case for planned in read_plan(folder, document)}
        frames = read_score_frames(folder)
        for way, row in enumerate(read_scores(folder)):
            identity = identities.of(cases[row.case_id])
            if identity is None:
                continue
            if row.status != "ok":
                failed[identity] = f"{row.status}: {row.reason}"
            elif way in frames:
                scored = scored_of(frames[way], len(document["classes"]), folder / FRAMES)
                known[identity] = _accuracy(scored, document, row.real)
    return Scores(known, failed)


def _accuracy(scored: Scored, document: Mapping[str, Any], real: Interval | None) -> Accuracy:
    evaluation, data = document["evaluation"], document["data"]
    estimate = float(MIOU[evaluation](scored.hit.sum(0), scored.union.sum(0)))
    drawn = resampled_miou(scored, evaluation)
    low, high = (float(each) for each in np.percentile(drawn, (TAIL, 100 - TAIL)))
    return Accuracy(
        Interval(estimate, min(low, estimate), max(high, estimate)),
        scored,
        " ".join((data["digest"], *document["classes"])),
        evaluation,
        f"{data['name']}, {data['split']} split, {data['frames']} frames",
        data["synthetic"],
        real,
    )


def as_accurate(ours: Accuracy, best: Accuracy) -> bool:
    """Whether nothing says that one is less accurate than another that has the higher mIoU.

    On the same frames by resampling them for both at once; else only equal figures are equal.
    """
    if (ours.frames, ours.evaluation) != (best.frames, best.evaluation):
        return ours.miou.estimate >= best.miou.estimate
    pairs = (resampled_miou(each.scored, each.evaluation) for each in (ours, best))
    difference = next(pairs) - next(pairs)
    return float(np.percentile(difference, 100 - TAIL)) >= 0
