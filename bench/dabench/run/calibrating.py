"""What int8 is calibrated on: images for trained networks, by case; random input for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dabench.base.errors import DataError, UsageError
from dabench.data.calibration import Calibration, calibration_of
from dabench.plan.axes import DYNAMIC, INT8
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.references import Reference
from dabench.plan.trained import is_trained, trained_at
from dabench.records.calibrations import FIELD, read_digests
from dabench.run.runner import Message, WorkerPool

Roots = Mapping[str, Path | None]
NOWHERE: Roots = MappingProxyType({})
"""Only the environment and the configuration file say where datasets are."""


@dataclass(frozen=True, slots=True)
class Calibrations:
    """What the cases of a plan are calibrated on.

    Attributes:
        known: By network and number of images.
    """

    known: Mapping[tuple[str, str], Calibration]

    def of(self, case: Case) -> Calibration | None:
        """What a case is calibrated on; None is random input, or nothing."""
        return self.known.get((case.model, case.calibration))

    def to_dict(self) -> dict[str, Any]:
        """A part of ``run.json``, nothing where nothing is calibrated."""
        document: dict[str, dict[str, Any]] = {}
        for (model, count), each in self.known.items():
            document.setdefault(model, {})[count] = each.to_dict()
        return {FIELD: document} if document else {}


def calibrations(
    plan: Sequence[PlannedCase], roots: Roots = NOWHERE
) -> tuple[list[PlannedCase], Calibrations]:
    """Chooses the images of every case that needs some.

    Returns:
        The plan, where cases whose images cannot be had are impossible, and the images.
    """
    known: dict[tuple[str, str], Calibration] = {}
    reasons: dict[tuple[str, str], str] = {}
    found = []
    for planned in plan:
        case = planned.case
        key = (case.model, case.calibration)
        new = key not in known and key not in reasons
        if planned.impossible is None and _needs_images(case) and new:
            trained = trained_at(Path(Reference.of(case.model).factory))
            try:
                known[key] = calibration_of(
                    trained.target,
                    int(case.calibration),
                    planned.settings.seed,
                    roots,
                )
            except (DataError, UsageError) as error:
                reasons[key] = str(error)
            except OSError as error:
                # Without the file: records name no folder.
                reasons[key] = f"no calibration images: {error.strerror}"
        reason = reasons.get(key) if _needs_images(case) else None
        found.append(replace(planned, impossible=planned.impossible or reason))
    return found, Calibrations(known)


def calibrations_again(
    folder: Path, document: Mapping[str, Any], plan: Sequence[PlannedCase], roots: Roots = NOWHERE
) -> Calibrations:
    """The images of a run that was begun before.

    Raises:
        UsageError: They cannot be had, or are not those that it was begun with.
        ResultsError: The record does not say what those were.
    """
    again, found = calibrations(plan, roots)
    for before, now in zip(plan, again, strict=True):
        if before.impossible is None and now.impossible is not None:
            raise UsageError(f"{folder}: {now.impossible}")
    then = read_digests(folder, document)
    if any(then.get(key) != each.digest for key, each in found.known.items()):
        raise UsageError(f"{folder} was calibrated on other images than are there now")
    return found


class CalibratedPool:
    """A pool whose requests for a case name the images that it is calibrated on.

    Args:
        pool: Starts the processes.
        chosen: The images.
    """

    def __init__(self, pool: WorkerPool, chosen: Calibrations) -> None:
        self._pool = pool
        self._chosen = chosen

    def run(
        self, request: Message, receive: Callable[[Message], None], *, timeout_s: float
    ) -> Message:
        """Runs a request in a fresh process and returns the last message."""
        if (case := request.get("case")) and (found := self._chosen.of(Case.of(case))):
            images = [str(path) for path in found.images]
            request = {**request, "calibration": {"images": images, "digest": found.digest}}
        return self._pool.run(request, receive, timeout_s=timeout_s)


def _needs_images(case: Case) -> bool:
    return case.dtype == INT8 and case.calibration != DYNAMIC and is_trained(case.model)
