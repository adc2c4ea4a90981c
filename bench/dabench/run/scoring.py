"""Accuracy of a trained network per way to run it, each scored in a worker of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dabench.base.errors import UsageError
from dabench.data.domain import Domain, Frame
from dabench.data.prepare import Prepared, prepare
from dabench.device.machine import describe_host
from dabench.plan.axes import ALL, BY_DEFAULT
from dabench.plan.cases import Case, PlannedCase, expand
from dabench.plan.devices import resolve_all
from dabench.plan.networks import identities
from dabench.plan.references import Reference
from dabench.plan.settings import Grid, Settings
from dabench.plan.trained import AFTER, BEFORE, Trained, trained_at
from dabench.plan.variants import VARIANT_RULE
from dabench.records.folder import RunFolder, check_new_run, check_same_machine, read_run
from dabench.records.scores import KIND, ScoreRecord, ScoreRow, read_scores
from dabench.records.timings import read_plan
from dabench.records.trainings import FrameRow
from dabench.run.calibrating import (
    NOWHERE,
    CalibratedPool,
    Roots,
    calibrations,
    calibrations_again,
)
from dabench.run.counts import CountRequest, count_beside
from dabench.run.launcher import Launcher
from dabench.run.runner import WorkerPool
from dabench.run.session import check_same_networks, probe
from dabench.scoring.metrics import SCORES

PLAIN: Mapping[str, Any] = {
    "compile": "off", "fuse": "off", "runtime": "eager", "dtype": "fp32", "memory_format": "nchw",
}  # fmt: skip
"""The way that the others are held against."""


Told = Callable[[Case], object]
"""Told of each way before it is scored."""


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled frames.

    Attributes:
        asked: As the user named the domain.
        domain: The domain.
        split: Of it.
    """

    asked: str
    domain: Domain
    split: str

    def described(self, frames: Prepared) -> dict[str, Any]:
        """What ``run.json`` says of it, and of the frames that it is."""
        return {
            "asked": self.asked,
            "name": self.domain.name,
            "split": self.split,
            "synthetic": self.domain.synthetic,
            "frames": len(frames),
            "digest": frames.digest,
        }


@dataclass(frozen=True, slots=True)
class Scored:
    """A finished run.

    Attributes:
        plan: Its ways, the plain one first.
        rows: One per way, in this order.
        environment: The machine.
    """

    plan: list[PlannedCase]
    rows: list[ScoreRow]
    environment: dict[str, Any]


def score_into(
    folder: Path,
    grids: Sequence[tuple[Grid, Settings]],
    data: Data,
    *,
    command: str,
    told: Told,
    times: bool = False,
    roots: Roots = NOWHERE,
) -> Scored:
    """Scores every way of some grids of one trained network, and the plain one.

    Args:
        folder: For the records.
        grids: Ways of inference, the network's name ``trained:...``; of the settings the seed and
            the time limit of a way count.
        data: What is predicted; its classes are the network's.
        command: What the user asked for, for the record.
        told: Told of each way.
        times: Whether passes on the frames are timed against passes on random input.
        roots: Dataset -> where it is, as far as somebody said: int8 is calibrated on it.

    Raises:
        UsageError: Anything wrong with the request; nothing was scored.
        DataError: A frame cannot be read.
    """
    for each in grids:
        expand(*each)
    check_new_run(folder)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        plan, calibrated = calibrations(_plan(grids, environment), roots)
        first = plan[0].case
        scorer = _Scorer.of(first, data, launcher, times=times)
        trained = scorer.trained
        run = RunFolder.create(
            folder,
            KIND,
            command=command,
            environment=environment,
            networks=identities([first.model]),
            plan=[planned.to_dict() for planned in plan],
            rules={"variants": VARIANT_RULE},
            data=data.described(scorer.frames),
            classes=list(trained.classes),
            evaluation=trained.evaluation,
            times=times,
            **calibrated.to_dict(),
            before=f"{BEFORE}, {'normalised' if trained.normalised else 'not normalised'}",
            after=AFTER,
        )
        with run:
            pool = CalibratedPool(launcher, calibrated)
            rows = replace(scorer, pool=pool).score_all(run, plan, [], told)
    return Scored(plan, rows, environment)


def resume_scores(folder: Path, data: Data, *, told: Told, roots: Roots = NOWHERE) -> Scored:
    """Continues an interrupted run: the ways that have no row yet.

    Raises:
        UsageError: No such run, another machine, or a network or frames that have changed.
        ResultsError: Its records are damaged.
    """
    document = read_run(folder, KIND)
    with Launcher() as launcher:
        check_same_machine(folder, document["environment"], describe_host() | probe(launcher))
        check_same_networks(folder, document["networks"])
        plan = read_plan(folder, document)
        calibrated = calibrations_again(folder, document, plan, roots)
        times = bool(document.get("times"))
        scorer = _Scorer.of(plan[0].case, data, launcher, times=times)
        if scorer.frames.digest != document["data"]["digest"]:
            raise UsageError("--resume: the frames are not those of the run")
        with RunFolder.open(folder, KIND) as run:
            pool = CalibratedPool(launcher, calibrated)
            rows = replace(scorer, pool=pool).score_all(run, plan, read_scores(folder), told)
    return Scored(plan, rows, document["environment"])


def _plan(
    grids: Sequence[tuple[Grid, Settings]], environment: Mapping[str, Any]
) -> list[PlannedCase]:
    """The ways, the plain one first; what becomes of memory changes no prediction."""
    grids = [(replace(each, allocators=(BY_DEFAULT,)), rest) for each, rest in grids]
    grid, settings = grids[0]
    plain = replace(
        grid,
        compiles=(PLAIN["compile"],),
        fuses=(PLAIN["fuse"],),
        runtimes=(PLAIN["runtime"],),
        dtypes=(PLAIN["dtype"],),
        memory_formats=(PLAIN["memory_format"],),
        calibrations=(),
        keep_floats=(ALL,),
    )
    resolved, _ = resolve_all([(plain, settings), *grids], environment)
    planned = [each for one in resolved for each in expand(*one)]
    return list({each.case.case_id: each for each in planned}.values())


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Scores ways to run one network on the same frames."""

    trained: Trained
    listed: Sequence[Frame]
    frames: Prepared
    pool: WorkerPool
    times: bool

    @classmethod
    def of(cls, case: Case, data: Data, pool: WorkerPool, *, times: bool) -> _Scorer:
        """For a case's network and size."""
        trained = trained_at(Path(Reference.of(case.model).factory))
        listed = data.domain.frames(data.split)
        return cls(trained, listed, prepare(listed, (case.height, case.width)), pool, times)

    def score_all(
        self, run: RunFolder, plan: Sequence[PlannedCase], known: Iterable[ScoreRow], told: Told
    ) -> list[ScoreRow]:
        """Scores the ways that are not known; a row per way of the plan."""
        first = plan[0].case
        shape = {name: getattr(first, name) for name in ("channels", "height", "width", "mode")}
        # For the name of its graph beside the scores.
        item = {"name": first.model, "batch": first.batch, **shape}
        count_beside(run, self.pool, CountRequest(items=[item]))
        record = ScoreRecord(run)
        rows = {row.case_id: row for row in known}
        for way, planned in enumerate(plan):
            case_id = planned.case.case_id
            if case_id in rows:
                continue
            counted: list[FrameRow] = []
            if planned.impossible is not None:
                row = ScoreRow(case_id=case_id, status="unsupported", reason=planned.impossible)
            else:
                told(planned.case)
                row, counted = self._score(planned)
            rows[case_id] = row
            record.add(way, planned.case, row, counted)
        return [rows[planned.case.case_id] for planned in plan]

    def _score(self, planned: PlannedCase) -> tuple[ScoreRow, list[FrameRow]]:
        """One way's row, and the pixels of its frames."""
        found: dict[str, Any] = {}
        case_id = planned.case.case_id
        with TemporaryDirectory(prefix="dabench-", ignore_cleanup_errors=True) as scratch:
            request = {
                "kind": "score",
                "case": planned.case.to_dict(),
                "seed": planned.settings.seed,
                "scratch": scratch,
                "classes": len(self.trained.classes),
                "normalised": self.trained.normalised,
                "digest": self.frames.digest,
                "times": self.times,
                "frames": [
                    (each.name, str(each.image), str(each.label), each.encoding)
                    for each in self.listed
                ],
            }
            last = self.pool.run(request, found.update, timeout_s=planned.settings.timeout_s)
        if not found:
            return ScoreRow(case_id=case_id, status=last["status"], reason=last["reason"]), []
        scores = SCORES[self.trained.evaluation](np.array(found["counts"]))
        row = ScoreRow(
            case_id=case_id,
            status="ok",
            frames=len(found["frames"]),
            miou=scores.miou,
            accuracy=scores.accuracy,
            difference=found["difference"],
            emulated=found["emulated"],
            **(found["real"] or {}),
        )
        return row, list(_frame_rows(self.frames.names, found["frames"]))


def _frame_rows(names: Sequence[str], frames: Iterable[Mapping[str, Any]]) -> Iterator[FrameRow]:
    """Rows of classes that a frame has."""
    for index, (name, frame) in enumerate(zip(names, frames, strict=True)):
        parts = zip(frame["hit"], frame["truth"], frame["predicted"], strict=True)
        for number, (hit, truth, predicted) in enumerate(parts):
            if truth or predicted:
                yield FrameRow(index, name, number, hit, truth, predicted)
