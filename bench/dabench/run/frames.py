"""Frames taken apart: each case in fresh processes, in turn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dabench.base.errors import UsageError, bad_value
from dabench.data.labels import read_image
from dabench.device.machine import describe_host
from dabench.plan.cases import Case, PlannedCase, expand, launch_order
from dabench.plan.devices import resolve_all
from dabench.plan.networks import identities
from dabench.plan.settings import MIN_LAUNCHES, Grid, Settings
from dabench.plan.variants import VARIANT_RULE
from dabench.records.folder import (
    RUN,
    RunFolder,
    bad_row,
    check_new_run,
    check_same_machine,
    read_run,
)
from dabench.records.frames import KIND, FrameLaunch, FrameRecord, read_frame_launches
from dabench.records.timings import read_plan
from dabench.run.calibrating import CalibratedPool, calibrations, calibrations_again
from dabench.run.launcher import Launcher
from dabench.run.runner import WorkerPool, folder_name
from dabench.run.session import check_same_networks, probe

PASSES = 10
"""Of each kind in a launch, where nobody says otherwise."""

Told = Callable[[Case], object]


@dataclass(frozen=True, slots=True)
class Source:
    """What a frame is.

    Attributes:
        text: The path of an image, or ``raw:HxW``.
        height: In pixels.
        width: Likewise.
        sha256: Of the file; empty for a camera's frame, which is random.
    """

    text: str
    height: int
    width: int
    sha256: str = ""


def parse_source(text: str) -> Source:
    """Reads what a frame is: the path of an image, or ``raw:HxW``.

    Raises:
        UsageError: Neither; the message says why.
        DataError: The file is no image.
    """
    if (size := _raw(text)) is not None:
        if min(size) < 1:
            raise bad_value("--frame", text, _FORM)
        return Source(text, *size)
    if text.startswith("raw:"):
        raise bad_value("--frame", text, _FORM)
    path = Path(text)
    if not path.is_file():
        raise bad_value("--frame", text, f"{_FORM}; there is no such file")
    height, width = read_image(path, upright=True).shape[:2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(str(path.resolve()), height, width, digest)


_FORM = "it takes the path of an image, or raw:HxW for a camera's frame, such as raw:1080x1920"


def _raw(text: str) -> tuple[int, int] | None:
    kind, _, size = text.partition(":")
    height, _, width = size.lower().partition("x")
    if kind != "raw" or not (height.isdecimal() and width.isdecimal()):
        return None
    return int(height), int(width)


def check_cases(plan: Sequence[PlannedCase]) -> None:
    """Checks that cases can be given a frame.

    Raises:
        UsageError: One cannot; the message says which.
    """
    for case in (planned.case for planned in plan):
        if case.channels != 3:
            raise UsageError(f"--frame: {case.model} takes {case.channels} channels; a frame has 3")
        for option, value, usual in (
            ("--batch", case.batch, 1),
            ("--mode", case.mode, "eval"),
            ("--protocol", case.protocol, "steady"),
            ("--input", case.input, "device"),
            ("--concurrency", case.concurrency, 1),
        ):
            if value != usual:
                raise bad_value(option, value, f"with --frame it is {usual}")


def frames_into(
    folder: Path,
    grid: Grid,
    settings: Settings,
    source: Source,
    *,
    command: str,
    told: Told,
) -> list[FrameLaunch]:
    """Times a frame's way through every case of a grid.

    Args:
        folder: For the records.
        grid: The cases; a batch of one, in eval mode.
        settings: Launches, samples of a launch, seed, warm-up and time limit count.
        source: Of `parse_source`.
        command: What the user asked for, for the record.
        told: Told of each launch.

    Raises:
        UsageError: Anything wrong with the request; nothing was measured.
    """
    check_cases(expand(grid, settings))
    check_new_run(folder)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
        resolved, left_out = resolve_all([(grid, settings)], environment)
        plan = [planned for each in resolved for planned in expand(*each)]
        plan, calibrated = calibrations(plan)
        if not plan:
            raise bad_value("--dtype", ",".join(grid.dtypes), "; ".join(left_out))
        run = RunFolder.create(
            folder,
            KIND,
            command=command,
            environment=environment,
            networks=identities(grid.models),
            plan=[planned.to_dict() for planned in plan],
            rules={"variants": VARIANT_RULE},
            left_out=left_out,
            source=asdict(source),
            **calibrated.to_dict(),
        )
        with run:
            return _carry_out(run, plan, source, CalibratedPool(launcher, calibrated), told)


def resume_frames(folder: Path, *, told: Told) -> list[FrameLaunch]:
    """Continues an interrupted run.

    Raises:
        UsageError: No such run, another machine, or networks that have changed.
        ResultsError: Its records are damaged.
    """
    document = read_run(folder, KIND)
    with Launcher() as launcher:
        check_same_machine(folder, document["environment"], describe_host() | probe(launcher))
        check_same_networks(folder, document.get("networks", {}))
        with RunFolder.open(folder, KIND) as run:
            plan = read_plan(folder, document)
            calibrated = calibrations_again(folder, document, plan)
            with bad_row(folder / RUN, 1):
                then = Source(**document["source"])
            source = parse_source(then.text)
            if source != then:
                raise UsageError(f"--resume: {then.text} has changed since {folder} was begun")
            return _carry_out(run, plan, source, CalibratedPool(launcher, calibrated), told)


def _carry_out(
    run: RunFolder, plan: Sequence[PlannedCase], source: Source, pool: WorkerPool, told: Told
) -> list[FrameLaunch]:
    record = FrameRecord(run)
    done = read_frame_launches(run.path)
    counts = Counter(each.case_id for each in done)
    failed = {each.case_id for each in done if each.status != "ok"}
    with TemporaryDirectory(prefix="dabench-", ignore_cleanup_errors=True) as scratch:
        for number in range(max((p.settings.launches or MIN_LAUNCHES for p in plan), default=0)):
            seed = plan[0].settings.seed
            for planned in launch_order(plan, round_index=number, seed=seed):
                case_id = planned.case.case_id
                if case_id in failed or counts[case_id] > number:
                    continue
                if number >= (planned.settings.launches or MIN_LAUNCHES):
                    continue
                launch = _launch(planned, len(done), source, pool, Path(scratch), told)
                record.add(launch)
                done.append(launch)
                counts[case_id] += 1
                if launch.status != "ok":
                    failed.add(case_id)
    return done


def _launch(
    planned: PlannedCase,
    number: int,
    source: Source,
    pool: WorkerPool,
    scratch: Path,
    told: Told,
) -> FrameLaunch:
    case, settings = planned.case, planned.settings
    if planned.impossible is not None:
        return FrameLaunch(number, case.case_id, "unsupported", planned.impossible)
    told(case)
    found: dict[str, Any] = {}
    request: Mapping[str, Any] = {
        "kind": "frame",
        "case": case.to_dict(),
        "seed": settings.seed,
        "scratch": str(scratch / folder_name(case)),
        "source": source.text if source.sha256 else (source.height, source.width),
        "warmup": max(settings.warmup, 1),
        "passes": settings.repeat or PASSES,
    }
    last = pool.run(dict(request), found.update, timeout_s=settings.timeout_s)
    if last["kind"] != "done":
        return FrameLaunch(number, case.case_id, last["status"], last["reason"])
    return FrameLaunch(
        number,
        case.case_id,
        stages=tuple(found["stages"]),
        whole=tuple(found["whole"]),
        apart=tuple(map(tuple, found["apart"])),
        difference=found["difference"],
        device_name=found["device_name"],
        emulated=found["emulated"],
        notes=found["notes"],
    )
