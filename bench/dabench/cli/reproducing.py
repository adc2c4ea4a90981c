"""``dabench reproduce``: every experiment of the paper, and the report of them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError
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
        bool, typer.Option("--quick/--full", help="One seed and few steps, or three seeds.")
    ] = True,
    pair: Annotated[str, typer.Option(help="gta2city or day2dusk.")] = "gta2city",
    seeds: Annotated[str | None, typer.Option(help="In place of 0, or 0,1,2.")] = None,
    steps: Annotated[int | None, typer.Option(help="Per training.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of CPU kernels, in training.")] = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="With the discriminators' times.")
    ] = True,
    gta5_root: Gta5Root = None,
    cityscapes_root: CityscapesRoot = None,
    camvid_root: CamvidRoot = None,
    resume_from: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Continue the interrupted one here."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the records.")] = None,
    reports: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports"),
    name: Annotated[str, typer.Option(help="Of the report.")] = "reproduce",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run every experiment of the paper and write its tables and figures.

    The discriminators' times as the paper took them; training without and with
    augmentation, AdaBN, the control, the adversary with three discriminators,
    and in-domain training on target and source.
    """
    from dabench.data.roots import find_places
    from dabench.records.folder import new_run_folder

    places = find_places({"gta5": gta5_root, "cityscapes": cityscapes_root, "camvid": camvid_root})
    if resume_from is not None:
        folder = resume_from
        plan = _read_plan(folder)
    else:
        from dabench.training.scene import set_scene

        plan = {
            "pair": pair,
            "seeds": list(parse_seeds(seeds or ("0" if quick else "0,1,2"))),
            "steps": QUICK_STEPS if quick and steps is None else steps,
            "threads": threads,
            "timing": ("paper-quick" if quick else "paper-cpu") if timing else None,
        }
        scene = set_scene(pair, places)
        base_config(scene, _settings(plan))
        with new_run_folder(out, f"{scene.slug}-reproduce") as folder:
            _write_plan(folder, plan)
    parts = _parts(folder, plan, places, quiet=quiet)
    from dabench.report import write_report

    for path in write_report(list(parts), folder=reports, name=name):
        print_line(str(path))
    raise typer.Exit(0 if all(parts.values()) else 1)


def _parts(folder: Path, plan: dict[str, Any], places: Places, *, quiet: bool) -> dict[Path, bool]:
    """Runs, or continues, each part; returns their folders and whether all of it went well."""
    from dabench.records.folder import has_run
    from dabench.training.scene import set_scene
    from dabench.training.suite import plan_suite

    parts: dict[Path, bool] = {}
    scene = set_scene(plan["pair"], places)
    base = base_config(scene, _settings(plan))
    suites: list[tuple[str, Scene, Any]] = [
        (scene.slug, scene, plan_suite(base, METHODS, DISCS, plan["seeds"]))
    ]
    if scene.pair.name in _IN_SOURCE:
        inside = set_scene(_IN_SOURCE[scene.pair.name], places)
        config = base_config(inside, _settings(plan))
        suites.append((inside.slug, inside, plan_suite(config, ("augment",), DISCS, plan["seeds"])))
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
    if plan["timing"] is not None:
        part = folder / "timing"
        command = shlex.join(["dabench", *sys.argv[1:]])
        if has_run(part):
            continue_timing(part, Shown(quiet, json=False))
        else:
            run_timing(load_grids(plan["timing"]), part, Shown(quiet, json=False), command=command)
        parts[part] = True
    return parts


def _settings(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: plan[name] for name in ("steps", "threads") if plan[name] is not None}


def _write_plan(folder: Path, plan: dict[str, Any]) -> None:
    from dabench.base.files import json_text, write_atomically

    if (folder / PLAN).exists():
        raise UsageError(f"--out: {str(folder)!r} holds a run already; --resume continues it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PLAN, json_text(plan))
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error


def _read_plan(folder: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        raise UsageError(f"--resume: {str(folder)!r} holds no run of dabench reproduce") from None
    return plan
