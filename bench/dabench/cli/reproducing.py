"""``dabench reproduce``: every experiment of the paper, and the report of them."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import ResultsError, UsageError, bad_value, check_choice
from dabench.base.files import parse_json
from dabench.base.typed import check_types
from dabench.cli.options import check_alone, check_file_name
from dabench.cli.output import print_line, resuming
from dabench.cli.timing import Shown, continue_timing, run_timing
from dabench.cli.training import (
    CamvidRoot,
    CityscapesRoot,
    Gta5Root,
    base_config,
    parse_seeds,
    run_suite,
)
from dabench.plan.grids import load_grids

if TYPE_CHECKING:
    from dabench.data.roots import Places
    from dabench.training.scene import Scene

PLAN = "reproduce.json"
METHODS = ("source-only", "augment", "adabn", "control", "adversarial", "target")
DISCS = ("disc", "dw-disc", "diag-disc")
QUICK_STEPS = 300
# The paper's second experiment: train and test on the source's own domain.
_IN_SOURCE = {"gta2city": "gta2gta", "day2dusk": "day2day"}


def reproduce(
    quick: Annotated[
        bool | None,
        typer.Option(
            "--quick/--full", help="One seed and few steps, or three seeds.", show_default="quick"
        ),
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="gta2city or day2dusk.", show_default="gta2city")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="In place of 0, or 0,1,2.")] = None,
    steps: Annotated[int | None, typer.Option(help="Per training.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of CPU kernels, in training.")] = None,
    timing: Annotated[
        bool | None,
        typer.Option(
            "--timing/--no-timing", help="With the discriminators' times.", show_default="timing"
        ),
    ] = None,
    gta5_root: Gta5Root = None,
    cityscapes_root: CityscapesRoot = None,
    camvid_root: CamvidRoot = None,
    resume_from: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Continue the interrupted one here."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the records.")] = None,
    reports: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="reports")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the report.", show_default="reproduce")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run every experiment of the paper and write its tables and figures.

    The discriminators' times as the paper took them; training without and with
    augmentation, AdaBN, the control, the adversary with three discriminators,
    and in-domain training on target and source.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from dabench.data.roots import find_places

    places = find_places({"gta5": gta5_root, "cityscapes": cityscapes_root, "camvid": camvid_root})
    if resume_from is not None:
        check_alone(given, _ANEW)
        folder = resume_from
        plan = _read_plan(folder)
    else:
        small = quick is not False
        plan = _Plan(
            pair="gta2city" if pair is None else pair,
            seeds=list(parse_seeds(seeds or ("0" if small else "0,1,2"))),
            steps=QUICK_STEPS if small and steps is None else steps,
            threads=threads,
            timing=None if timing is False else _PRESETS[small],
        )
    plan = replace(
        plan,
        name=plan.name if name is None else name,
        reports=plan.reports if reports is None else str(reports),
    )
    # Before anything is drawn or trained for it.
    _check_report(plan)
    if resume_from is None:
        folder = _begin(plan, places, out)
    _make_reports(plan)
    parts = _parts(folder, plan, places, quiet=quiet)
    from dabench.report import write_report

    for path in write_report(list(parts), folder=Path(plan.reports), name=plan.name):
        print_line(str(path))
    raise typer.Exit(0 if all(parts.values()) else 1)


_PRESETS = {True: "paper-quick", False: "paper-cpu"}
_ANEW = frozenset({"gta5_root", "cityscapes_root", "camvid_root", "reports", "name", "quiet"})
"""What may be said of a run that goes on: it is no part of what is measured."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is run, as it is kept.

    Attributes:
        pair: Of domains.
        seeds: Of each training.
        steps: Of each training; None is what is usual.
        threads: Likewise.
        timing: The preset that times the discriminators, if any.
        name: Of the report.
        reports: Its folder.
    """

    pair: str
    seeds: list[int]
    steps: int | None
    threads: int | None
    timing: str | None
    name: str = "reproduce"
    reports: str = "reports"

    @property
    def settings(self) -> dict[str, Any]:
        """Of each training."""
        found = {"steps": self.steps, "threads": self.threads}
        return {name: value for name, value in found.items() if value is not None}


def _check_report(plan: _Plan) -> None:
    """Checks that the report can be written; nothing is made yet.

    Raises:
        UsageError: It cannot.
    """
    check_file_name("--name", plan.name)
    folder = Path(plan.reports)
    try:
        places = (folder, *folder.absolute().parents)
        there = next(each for each in places if each.exists() or each.is_symlink())
    except OSError as error:
        raise bad_value("--reports", plan.reports, f"cannot be made: {error.strerror}") from None
    if not there.is_dir():
        raise bad_value("--reports", plan.reports, f"cannot be made: {str(there)!r} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise bad_value("--reports", plan.reports, "cannot be written to")


def _make_reports(plan: _Plan) -> None:
    """Makes the report's folder.

    Raises:
        UsageError: It cannot be made after all.
    """
    try:
        Path(plan.reports).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise bad_value("--reports", plan.reports, f"cannot be made: {error.strerror}") from None


def _parts(folder: Path, plan: _Plan, places: Places, *, quiet: bool) -> dict[Path, bool]:
    """Runs, or continues, each part; returns their folders and whether all of it went well."""
    from dabench.records.folder import has_run
    from dabench.training.scene import set_scene
    from dabench.training.suite import plan_suite

    parts: dict[Path, bool] = {}
    scene = set_scene(plan.pair, places)
    base = base_config(scene, plan.settings)
    suites: list[tuple[str, Scene, Any]] = [
        (scene.slug, scene, plan_suite(base, METHODS, DISCS, plan.seeds))
    ]
    if scene.pair.name in _IN_SOURCE:
        inside = set_scene(_IN_SOURCE[scene.pair.name], places)
        config = base_config(inside, plan.settings)
        suites.append((inside.slug, inside, plan_suite(config, ("augment",), DISCS, plan.seeds)))
    for slug, of, runs in suites:
        part = folder / slug
        begun = has_run(part)
        code = run_suite(
            of,
            part,
            None if begun else runs,
            split=None,
            quiet=quiet,
            json=False,
            again=resuming("reproduce", folder),
        )
        parts[part] = code == 0
    if plan.timing is not None:
        part = folder / "timing"
        command = shlex.join(["dabench", *sys.argv[1:]])
        if has_run(part):
            continue_timing(part, Shown(quiet, json=False))
        else:
            run_timing(load_grids(plan.timing), part, Shown(quiet, json=False), command=command)
        parts[part] = True
    return parts


def _begin(plan: _Plan, places: Places, out: Path | None) -> Path:
    """Keeps the plan of a new run that can be trained; its folder.

    Raises:
        UsageError: What is asked for cannot be trained, or a run is there already.
        DataError: A root without frames.
    """
    from dabench.records.folder import new_run_folder
    from dabench.training.scene import set_scene

    if out is not None and (out / PLAN).exists():
        raise UsageError(f"--out: {str(out)!r} holds a run already; --resume continues it")
    scene = set_scene(plan.pair, places)
    base_config(scene, plan.settings)
    with new_run_folder(out, f"{scene.slug}-reproduce") as folder:
        _write_plan(folder, plan)
    return folder


def _write_plan(folder: Path, plan: _Plan) -> None:
    from dabench.base.files import json_text, write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PLAN, json_text(asdict(plan)))
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error


def _read_plan(folder: Path) -> _Plan:
    """The plan of a run.

    Raises:
        UsageError: There is none.
        ResultsError: It is damaged.
    """
    path = folder / PLAN
    try:
        document = parse_json(path, path.read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(f"--resume: {str(folder)!r} holds no run of dabench reproduce") from None
    except UnicodeDecodeError:
        raise ResultsError(f"{path}: not what dabench writes: no text") from None
    try:
        check_types(_Plan, document)
        plan = _Plan(**document)
        if not isinstance(plan.seeds, list):
            raise TypeError(f"seeds {plan.seeds!r}")
        parse_seeds(",".join(map(str, plan.seeds)))
        if plan.timing is not None:
            check_choice("timing", plan.timing, _PRESETS.values())
    except (TypeError, AttributeError, UsageError) as error:
        raise ResultsError(f"{path}: not what dabench writes: {error}") from None
    return plan
