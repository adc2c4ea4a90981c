"""``dabench choose``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError
from dabench.base.units import format_bytes, format_interval, format_seconds
from dabench.cli.loads import NAMES
from dabench.cli.options import (
    Json,
    Out,
    Quiet,
    ResumeFrom,
    Several,
    check_alone,
    named,
    option,
    typed,
)
from dabench.cli.output import error_line, print_json, print_line, print_table, resumable
from dabench.cli.timing import progress
from dabench.cli.training import CamvidRoot, CityscapesRoot, Gta5Root
from dabench.plan.references import split_names

if TYPE_CHECKING:
    from dabench.findings.candidates import Candidate
    from dabench.findings.choices import Choice
    from dabench.plan.cases import Case
    from dabench.run.choosing import Asked

Roots = Mapping[str, Path | None]


def choose(
    models: Annotated[
        Several, option("--models", "Networks. Default: all segmenters of 'dabench models'.")
    ] = None,
    checkpoints: Annotated[
        Several, option("--checkpoints", "Runs of 'dabench train', scored on --data.")
    ] = None,
    ways: Annotated[
        Several,
        option(
            "--ways",
            "Ways to run them, such as nhwc+fuse, openvino+bf16, compile=freeze. Default: the "
            "usual ones of the device, on a CPU without torch.compile.",
        ),
    ] = None,
    deadline: Annotated[str | None, option("--deadline", "For a pass, such as 33ms.")] = None,
    percentile: Annotated[
        str | None,
        option("--percentile", "Of the passes to be within it. Default 50.", NAMES),
    ] = None,
    miou: Annotated[str | None, option("--miou", "At least so much, such as 70%.")] = None,
    memory: Annotated[str | None, option("--memory", "At most so much, such as 1G.")] = None,
    energy: Annotated[str | None, option("--energy", "Of an image, such as 2J.")] = None,
    data: Annotated[
        str | None, option("--data", "cityscapes, gta5, camvid, camvid:dusk, ...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Default: the reported one.")] = None,
    device: Annotated[
        Several, option("--device", "auto (the best there is), cpu, cuda[:N], mps, xla.")
    ] = None,
    batch: Annotated[Several, option("--batch", "Images per pass. Default 1.")] = None,
    size: Annotated[
        Several, option("--size", "HxW of the input. Default: the network's own.")
    ] = None,
    threads: Annotated[
        Several, option("--threads", "Threads of CPU kernels. Default: torch's.")
    ] = None,
    seed: Annotated[
        str | None, option("--seed", "Of weights, inputs and launch order. Default 0.")
    ] = None,
    max_time: Annotated[
        str | None,
        option("--max-time", "No round of launches begins that would end later. Default 10min."),
    ] = None,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    gta5_root: Gta5Root = None,
    cityscapes_root: CityscapesRoot = None,
    camvid_root: CamvidRoot = None,
) -> None:
    """Say which network to deploy, run how: for a deadline, an accuracy, a memory.

    Every way to run every network is timed once; the slower half is left alone after one launch,
    half of the rest after two, and so on. What is left of trained networks is scored, on the
    graph that was timed. Without checkpoints time and memory decide.

    Exit codes: 0 something is sure to keep every limit, 1 nothing is, 2 the request cannot be met.
    """
    given = named(locals())
    roots = {"gta5": gta5_root, "cityscapes": cityscapes_root, "camvid": camvid_root}
    if resume_from is not None:
        check_alone(given, {f"{name}_root" for name in roots})
        _go_on(resume_from, roots, quiet=quiet or json)
        _end(resume_from, quiet=quiet, json=json)
        return
    from dabench.records.folder import new_run_folder
    from dabench.run.choosing import check_data, choose_into, data_for

    asked = _asked(given)
    check_data(asked.models, asked.limits, data)
    if data is None and (unused := sorted(given.keys() & {"split", *(f"{n}_root" for n in roots)})):
        raise UsageError(f"--{unused[0].replace('_', '-')}: it is of --data, which is not given")
    opened = None if data is None else data_for(data, split, asked.models, roots)
    command = shlex.join(["dabench", *sys.argv[1:]])
    with new_run_folder(out, "choose") as folder:
        with resumable("choose", folder), progress(quiet=quiet or json) as observer:
            choose_into(
                folder,
                asked,
                opened,
                command=command,
                observer=observer,
                told=_told(quiet=quiet or json),
                roots=roots,
            )
        _end(folder, quiet=quiet, json=json)


def _go_on(folder: Path, roots: Roots, *, quiet: bool) -> None:
    from dabench.run.choosing import asked_of, data_for, resume_choice

    asked, data = asked_of(folder)
    opened = None if data is None else data_for(data["asked"], data["split"], asked.models, roots)
    with resumable("choose", folder), progress(quiet=quiet) as observer:
        resume_choice(folder, opened, observer=observer, told=_told(quiet=quiet), roots=roots)


def _asked(given: Mapping[str, Any]) -> Asked:
    """What the options say.

    Raises:
        UsageError: A value that one does not take.
    """
    from dabench.records.choices import limits_of
    from dabench.run.choosing import asked_for

    shape, settings = typed({key: given[key] for key in _SHAPE if key in given})
    return asked_for(
        models=_split(given, "models"),
        checkpoints=_split(given, "checkpoints"),
        ways=_split(given, "ways"),
        limits=limits_of(given),
        shape=shape,
        seed=settings.get("seed", 0),
    )


_SHAPE = ("device", "batch", "size", "threads", "seed")


def _split(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(part for text in given.get(key, ()) for part in split_names(text))


def _told(*, quiet: bool) -> Callable[[Case], None]:
    from dabench.plan.ways import way_name

    def told(case: Case) -> None:
        if not quiet:
            error_line(f"scoring {case.model} {way_name(case)}")

    return told


def _end(folder: Path, *, quiet: bool, json: bool) -> None:
    """Prints what came out.

    Raises:
        typer.Exit: Nothing is sure to keep every limit.
    """
    from dabench.findings.choices import CHOICE_RULE, choice_of

    choice = choice_of(folder)
    if json:
        rows = choice.to_frame().astype(object)
        print_json(
            {
                "limits": choice.limits.to_dict(),
                "candidates": rows.where(rows.notna(), None).to_dict("records"),
                "front": list(choice.front),
                "chosen": choice.chosen and choice.chosen.case.case_id,
                "open": list(choice.open),
                "says": list(choice.says),
                "command": choice.command,
            }
        )
    else:
        _print(choice)
        print_line(f"{CHOICE_RULE[0].upper()}{CHOICE_RULE[1:]}.")
        if not quiet:
            error_line(f"Records: {folder}")
    if choice.chosen is None:
        raise typer.Exit(1)


_WORDS = ("network", "way", "keeps limits", "front")


def _print(choice: Choice) -> None:
    from dabench.records.choices import MEDIAN

    timed = [each for each in choice.candidates if each.seconds is not None]
    scored = any(each.accuracy is not None for each in timed)
    first = choice.candidates[0].case
    kind = "median" if choice.limits.percentile == MEDIAN else choice.limits.percentile
    print_table(
        f"{first.device}, batch {first.batch}",
        (
            "network", "way", kind, "95% interval", "launches", "memory", *["mIoU"] * scored,
            *["95% over images"] * scored, "keeps limits", "front",
        ),
        ([*_cells(each, scored=scored), _standing(each, choice)] for each in timed),
        words=_WORDS,
    )  # fmt: skip
    for each in choice.candidates:
        if each.seconds is None:
            print_line(f"{each.name}: {each.status}: {each.reason}")
    for sentence in choice.says:
        print_line(sentence)
    if choice.command:
        print_line(choice.command)


def _cells(each: Candidate, *, scored: bool) -> list[str]:
    assert each.seconds is not None
    accuracy = ["-", "-"]
    if each.accuracy is not None:
        miou = each.accuracy.miou
        accuracy = [f"{miou.estimate:.2%}", f"{miou.low:.2%} to {miou.high:.2%}"]
    keeps = {"met": "yes", "missed": f"no ({each.why})"}.get(each.admissible, each.why)
    return [
        each.case.model,
        each.name.removeprefix(f"{each.case.model} "),
        format_seconds(each.seconds.estimate),
        format_interval(each.seconds.low, each.seconds.high) if each.launches > 1 else "-",
        str(each.launches),
        format_bytes(each.peak_bytes),
        *accuracy * scored,
        keeps,
    ]


def _standing(each: Candidate, choice: Choice) -> str:
    if each is choice.chosen:
        return "take"
    if each.name in choice.open:
        return "not surely slower"
    return "front" if each.name in choice.front else ""


def export_model(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Of 'dabench choose'.")],
    out: Annotated[Path, typer.Option(help="A new folder for the files.")],
    way: Annotated[
        str | None,
        option("--way", "Another one that was timed than was chosen, such as onnxruntime."),
    ] = None,
) -> None:
    """Write the chosen network as files that run without dabench: ONNX, manifest, script."""
    from dabench.exchange import deployment

    manifest = deployment.export_model(run, out, way)
    files = (manifest["file"], *manifest["beside"])
    for name in (*files, deployment.MANIFEST, deployment.SCRIPT):
        print_line(str(out / name))
    if manifest["measured"]["admissible"] != "met":
        error_line(f"it is not sure to keep the limits: {manifest['measured'].get('why', '')}")
    script = shlex.join(["python", str(out / deployment.SCRIPT)])
    error_line(
        f"{manifest['network']} for {manifest['runtime']}; to write the class of each pixel: "
        f"{script} IMAGE OUT.png"
    )
