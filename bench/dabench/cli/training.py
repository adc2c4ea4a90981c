"""``dabench train``."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from dabench.base.errors import UsageError, bad_value, check_choice
from dabench.base.started import Started
from dabench.cli.clusters import Spread, check_spread
from dabench.cli.options import check_alone
from dabench.cli.output import print_json, print_line, print_table, resuming
from dabench.plan.grids import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dabench.training.config import TrainConfig
    from dabench.training.deciding import Claim, Question
    from dabench.training.scene import Scene
    from dabench.training.suite import Planned, SuiteObserver
    from dabench.training.world import World

INTERRUPTED = 130


class _Shown(TypedDict):
    """What is shown of a training, and written for others to show."""

    quiet: bool
    json: bool
    tensorboard: bool


Root = Path | None


def _root(dataset: str) -> Any:
    return typer.Option(f"--{dataset}-root", help=f"Where {dataset} is.", show_default=False)


Gta5Root = Annotated[Root, _root("gta5")]
CityscapesRoot = Annotated[Root, _root("cityscapes")]
CamvidRoot = Annotated[Root, _root("camvid")]


def _option(flag: str, text: str) -> Any:
    metavar = flag.removeprefix("--").upper().replace("-", "_")
    return typer.Option(flag, metavar=metavar, help=text, show_default=False)


def train(
    pair: Annotated[
        str | None,
        typer.Argument(metavar="PAIR", help="gta2city, city2city, gta2gta, day2dusk, ..."),
    ] = None,
    method: Annotated[
        str | None,
        _option(
            "--method",
            "source-only, augment, target, adversarial, control, advent, multi-level, minent, "
            "self-training, mic, fda, dsbn, adabn; combined with +, as in self-training+fda; "
            "several with commas. Default: adversarial across domains, augment within one.",
        ),
    ] = None,
    disc: Annotated[
        str | None,
        _option(
            "--disc", "disc, dw-disc, diag-disc, light-disc, light2-disc; several with commas."
        ),
    ] = None,
    model: Annotated[str | None, _option("--model", "A segmenter. Default stdc1-bisenet.")] = None,
    epochs: Annotated[int | None, _option("--epochs", "Passes over the source.")] = None,
    steps: Annotated[int | None, _option("--steps", "Optimiser steps, in place of epochs.")] = None,
    seconds: Annotated[
        float | None, _option("--seconds", "Of optimiser steps, in place of epochs.")
    ] = None,
    budget: Annotated[
        str | None,
        _option("--budget", "What runs have in common: images (default) or seconds."),
    ] = None,
    size: Annotated[str | None, _option("--size", "HxW images are resized to.")] = None,
    crop: Annotated[str | None, _option("--crop", "HxW of a random training window.")] = None,
    batch: Annotated[int | None, _option("--batch", "Images per step and domain.")] = None,
    seeds: Annotated[
        str | None, _option("--seeds", "Such as 0,1,2: a run each. Default 0.")
    ] = None,
    decide: Annotated[
        str | None,
        _option("--decide", "A claim that seeds are added for, such as 'advent > adabn by 1'."),
    ] = None,
    max_seeds: Annotated[
        int | None, _option("--max-seeds", "Of a claim, in all. Default 10.")
    ] = None,
    limit: Annotated[int | None, _option("--limit", "At most so many frames per split.")] = None,
    lr: Annotated[float | None, _option("--lr", "Of the segmenter. Default 0.01.")] = None,
    disc_lr: Annotated[
        float | None, _option("--disc-lr", "Of the discriminator. Default 1e-4.")
    ] = None,
    adversarial_weight: Annotated[
        float | None, _option("--lambda", "Weight of the adversarial term. Default 0.001.")
    ] = None,
    disc_input: Annotated[
        str | None, _option("--disc-input", "softmax, logits or entropy. Default softmax.")
    ] = None,
    aux_weight: Annotated[
        float | None, _option("--aux-lambda", "At multi-level's second head. Default 0.0002.")
    ] = None,
    entropy_weight: Annotated[
        float | None, _option("--entropy-weight", "Of minent's term. Default 0.001.")
    ] = None,
    fda_beta: Annotated[
        float | None, _option("--fda-beta", "Reach of fda's exchange. Default 0.01.")
    ] = None,
    teacher_momentum: Annotated[
        float | None, _option("--teacher-momentum", "Of the mean teacher. Default 0.99.")
    ] = None,
    confidence: Annotated[
        float | None, _option("--confidence", "Above it the teacher is sure. Default 0.968.")
    ] = None,
    mask_ratio: Annotated[
        float | None, _option("--mask-ratio", "Share that mic hides. Default 0.7.")
    ] = None,
    mask_block: Annotated[
        int | None, _option("--mask-block", "Pixels of mic's patches. Default height / 16.")
    ] = None,
    recipe: Annotated[
        str | None,
        _option("--recipe", "paper (rates follow the epoch) or adaptsegnet (the step)."),
    ] = None,
    augment: Annotated[
        str | None, _option("--augment", "Of jitter,flip,crop, or none. Default all.")
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise/--no-normalise", help="By ImageNet's statistics.")
    ] = True,
    ohem: Annotated[bool, typer.Option("--ohem", help="Loss on hard pixels only.")] = False,
    detail: Annotated[bool, typer.Option("--detail", help="With STDC's detail loss.")] = False,
    clip: Annotated[float | None, _option("--clip", "Largest gradient norm.")] = None,
    evaluation: Annotated[
        str | None, _option("--eval", "official (Cityscapes' mIoU) or paper.")
    ] = None,
    split: Annotated[
        str | None, _option("--eval-split", "train, val or test. Default: the reported one.")
    ] = None,
    eval_every: Annotated[
        int | None, _option("--eval-every", "Epochs between evaluations. Default 1.")
    ] = None,
    device: Annotated[str | None, _option("--device", "auto, cpu, cuda[:N], mps.")] = None,
    dtype: Annotated[
        str | None,
        _option("--dtype", "auto (measured), fp32, bf16, fp16; or segmenter's,discriminator's."),
    ] = None,
    memory_format: Annotated[
        str | None, _option("--memory-format", "nhwc or nchw. Default nhwc.")
    ] = None,
    threads: Annotated[int | None, _option("--threads", "Threads of CPU kernels.")] = None,
    workers: Annotated[int | None, _option("--workers", "Processes that load data.")] = None,
    nproc: Annotated[
        int | None, _option("--nproc", "Processes that train together. Default 1.")
    ] = None,
    batch_norm: Annotated[
        str | None,
        _option("--batch-norm", "Statistics of: local (each process's images), sync, frozen."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="ray|ray://HOST:PORT",
            help="Trains on the nodes of a Ray cluster, each run on a GPU or on --threads cores.",
            show_default=False,
        ),
    ] = None,
    storage: Annotated[
        str | None,
        _option("--storage", "Of a cluster: a URL or path for checkpoints, by fsspec."),
    ] = None,
    backbone_weights: Annotated[
        str | None,
        _option("--backbone-weights", "ImageNet checkpoint, or resnet18: torchvision's."),
    ] = None,
    gta5_root: Gta5Root = None,
    cityscapes_root: CityscapesRoot = None,
    camvid_root: CamvidRoot = None,
    resume_from: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Continue the interrupted run here."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the records.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Curves for TensorBoard beside the records.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a segmenter on one domain and score it on another.

    Where the pair's datasets are not on disk, a synthetic stand-in is drawn
    and everything it gives is labelled so.
    """
    # Not by truth: zero is a value, and to be refused where it makes no sense.
    given = {k: v for k, v in locals().items() if v is not None and v is not False}
    from dabench.cli.processes import processes_asked, said_once

    started = Started.of(os.environ)
    with said_once(started):
        given["processes"] = processes_asked(nproc, started)
        code = (_begun if resume_from is None else _resumed)(given, started)
    raise typer.Exit(code)


def _roots(given: Mapping[str, Any]) -> dict[str, Path | None]:
    return {name: given.get(f"{name}_root") for name in ("gta5", "cityscapes", "camvid")}


def _to_show(given: Mapping[str, Any]) -> _Shown:
    return {
        "quiet": "quiet" in given, "json": "json" in given, "tensorboard": "tensorboard" in given,
    }  # fmt: skip


def _begun(given: Mapping[str, Any], started: Started) -> int:
    """Checks what is asked for, and begins it: here, in several processes, or on a cluster."""
    from dabench.cli.processes import cut_off, made_once, start, together
    from dabench.data.roots import find_places
    from dabench.records.folder import new_run_folder
    from dabench.training.scene import set_scene

    pair, out, split, on = (given.get(name) for name in ("pair", "out", "split", "on"))
    places, shown = find_places(_roots(given)), _to_show(given)
    check_spread(on, given.get("storage"), given["processes"])
    if pair is None:
        raise UsageError(f"train needs a pair; choices: {', '.join(places.pairs)}")
    if split is not None:
        check_choice("--eval-split", split, ("train", "val", "test"))
    asked = _settings(given)
    places.pair(pair)
    scene = set_scene(pair, places)
    plan, question, chosen = _planned(given, scene, *asked)
    name = f"{scene.slug}-{'-'.join(chosen)}"
    if on is not None:
        spread = Spread(on, given.get("storage"), places, _roots(given))
        with new_run_folder(out, name) as folder:
            return run_suite(
                scene, folder, plan, split=split, question=question, spread=spread, **shown
            )
    if given["processes"] > started.size:
        with new_run_folder(out, name) as folder:
            return start(given["processes"], folder)
    with together(started) as world, contextlib.ExitStack() as stack:
        again = made_once(world, lambda: cut_off(out, started))
        if again is not None:
            return run_suite(scene, Path(again), None, split=split, world=world, **shown)
        new = new_run_folder(out or started.folder, name)
        path = made_once(world, lambda: str(stack.enter_context(new)))
        return run_suite(
            scene, Path(path), plan, split=split, question=question, world=world, **shown
        )


def _planned(
    given: Mapping[str, Any],
    scene: Scene,
    settings: dict[str, Any],
    methods: tuple[str, ...],
    discs: tuple[str, ...],
    seeds: tuple[int, ...],
) -> tuple[list[Planned], Question | None, Sequence[str]]:
    """The runs, what further ones are to decide, and the methods that name the folder."""
    from dabench.training.suite import plan_decision, plan_suite

    base = base_config(scene, settings)
    discs = discs or ("disc",)
    if "decide" not in given:
        chosen = methods or (("adversarial",) if scene.pair.crosses else ("augment",))
        return plan_suite(base, chosen, discs, seeds), None, chosen
    claim, most = _claim(given, discs[0], seeds)
    plan, question = plan_decision(base, claim, methods, discs, seeds, most)
    return plan, question, methods or (claim.better.method, claim.than.method)


def _resumed(given: Mapping[str, Any], started: Started) -> int:
    """Goes on with a run, where and in as many processes as it was begun."""
    from dabench.cli.processes import made_once, start, together
    from dabench.data.roots import find_places
    from dabench.training.scene import set_scene
    from dabench.training.suite import processes_of, read_suite

    roots = _roots(given)
    allowed = {"resume_from", "quiet", "json", "normalise", "tensorboard", "processes", "on",
               *(f"{name}_root" for name in roots)}  # fmt: skip
    check_alone(given, allowed)
    folder, on, places = given["resume_from"], given.get("on"), find_places(roots)
    spread = None if on is None else Spread(on, None, places, roots)
    with together(started) as world:
        document = made_once(world, lambda: read_suite(folder))
        if "cluster" in document and spread is None:
            raise UsageError(f"--resume: {folder} was begun on a cluster; name it by --on")
        if world is not None or processes_of(document) == 1:
            scene = set_scene(document["data"]["asked"], places)
            shown = _to_show(given)
            return run_suite(scene, folder, None, split=None, world=world, spread=spread, **shown)
    return start(processes_of(document), folder)


_FIELDS = (
    "model", "epochs", "steps", "seconds", "batch", "limit", "lr", "disc_lr", "adversarial_weight",
    "aux_weight", "disc_input", "entropy_weight", "fda_beta", "teacher_momentum", "confidence",
    "mask_ratio", "mask_block", "recipe", "ohem", "detail", "clip", "evaluation", "eval_every",
    "device", "memory_format", "threads", "workers", "processes", "batch_norm", "backbone_weights",
)  # fmt: skip
LENGTHS = frozenset({"epochs", "steps", "seconds"})


def _settings(
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """Fields of the configuration, methods, discriminators and seeds, checked."""
    from dabench.plan.methods import BASE
    from dabench.plan.networks import RESNET18
    from dabench.training.config import TrainConfig

    _check_budget(given)
    settings = {name: given[name] for name in _FIELDS if name in given}
    settings["normalise"] = "normalise" in given
    if "size" in given:
        settings["height"], settings["width"] = parse("size", given["size"])
    if "crop" in given:
        settings["crop"] = parse("size", given["crop"])
    if "augment" in given:
        settings["augment"] = () if given["augment"] == "none" else _parts(given["augment"])
    if "dtype" in given:
        kinds = _parts(given["dtype"])
        if not 1 <= len(kinds) <= 2:
            raise bad_value("--dtype", given["dtype"], "it takes one value, or two with a comma")
        settings["segmenter_dtype"], settings["disc_dtype"] = kinds[0], kinds[-1]
    methods, discs = _parts(given.get("method", "")), _parts(given.get("disc", ""))
    seeds = parse_seeds(given.get("seeds", "0,1,2" if "decide" in given else "0"))
    if "decide" in given:
        _claim(given, (discs or ("disc",))[0], seeds)
    elif "max_seeds" in given:
        raise UsageError("--max-seeds: it is of a claim, which --decide gives")
    weights = settings.get("backbone_weights")
    if weights not in (None, RESNET18) and not Path(weights).is_file():
        raise bad_value("--backbone-weights", weights, "it takes an existing file")
    limits = {} if LENGTHS & settings.keys() else {"steps": 1}
    for method in methods or (BASE,):
        for disc in discs or ("disc",):
            for seed in seeds:
                # Checked before any data are looked for.
                TrainConfig(
                    pair="", method=method, disc=disc, seed=seed, **(_SIZE | settings | limits)
                )
    return settings, methods, discs, seeds


def _claim(given: Mapping[str, Any], disc: str, seeds: Sequence[int]) -> tuple[Claim, int]:
    """The claim that is to be decided, and how many seeds there may be."""
    from dabench.training.deciding import MOST_SEEDS, parse_claim

    claim = parse_claim(given["decide"], disc)
    most = given.get("max_seeds", max(MOST_SEEDS, len(seeds)))
    if most < max(3, len(seeds)):
        raise bad_value("--max-seeds", most, f"at least {max(3, len(seeds))} for these seeds")
    return claim, most


def _check_budget(given: Mapping[str, Any]) -> None:
    budget = given.get("budget")
    if budget is None:
        return
    check_choice("--budget", budget, ("images", "seconds"))
    if budget == "seconds" and "seconds" not in given:
        raise bad_value("--budget", budget, "--seconds must say how many")
    if budget == "images" and "seconds" in given:
        raise bad_value("--budget", budget, "--seconds is the other budget")


_SIZE = {"height": 4096, "width": 4096}


def parse_seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` as numbers.

    Raises:
        UsageError: Anything else.
    """
    try:
        seeds = tuple(int(part) for part in _parts(text))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise bad_value("--seeds", text, "it takes whole numbers of at least 0, with commas")
    if len(set(seeds)) < len(seeds):
        raise bad_value("--seeds", text, "each seed once")
    return seeds


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def base_config(scene: Scene, settings: dict[str, Any]) -> TrainConfig:
    """The configuration for a scene: what was set, over the defaults of its kind."""
    from dabench.training.config import TrainConfig
    from dabench.training.defaults import defaults_for

    fields = defaults_for(scene)
    if LENGTHS & settings.keys():
        fields = {name: v for name, v in fields.items() if name not in LENGTHS}
    return TrainConfig(pair=scene.pair.name, method="augment", **(fields | settings))


def run_suite(
    scene: Scene,
    folder: Path,
    plan: Sequence[Planned] | None,
    *,
    split: str | None,
    quiet: bool,
    json: bool,
    tensorboard: bool = False,
    again: str | None = None,
    question: Question | None = None,
    world: World | None = None,
    spread: Spread | None = None,
) -> int:
    """Starts or, without a plan, resumes a suite; prints what came of it.

    Args:
        scene: The data.
        folder: Of the records.
        plan: The runs; None continues those in the folder.
        split: Evaluated instead of the reported one.
        quiet: No progress.
        json: One document on standard output in place of a table.
        tensorboard: Write curves for TensorBoard too.
        again: The command that continues after an interruption.
        question: What further seeds are to decide.
        world: The processes that train together, all of which call this; None is one.
        spread: The cluster whose machines train; None is this machine.

    Returns:
        The exit code: 0 if every run has a result, 2 if one was refused, else 1.
    """
    from dabench.training.world import ALONE

    world = world or ALONE
    if not json and world.first:
        _banner(scene)
    results = None
    with contextlib.ExitStack() as stack:
        observer = _observer(
            stack, folder, quiet=quiet or json, tensorboard=tensorboard, first=world.first
        )
        with contextlib.suppress(KeyboardInterrupt):
            if spread is not None:
                results = spread.results(folder, scene, plan, split, observer, question)
            else:
                results = _trained(scene, folder, plan, split, observer, question, world)
    if results is None:
        where = "" if spread is None else f" --on {spread.on}"
        again = again or f"{resuming('train', folder)}{where}"
        if world.first:
            print_line(f"Interrupted; '{again}' continues.", stderr=True)
        raise typer.Exit(INTERRUPTED)
    if not world.first:
        # One that ended with the code of a failed run would end the first at its table.
        return 0
    _print_suite(scene, folder, results, json=json)
    if any(result.get("refused") for result in results.values()):
        return 2
    return 0 if all(result["status"] == "ok" for result in results.values()) else 1


def _trained(
    scene: Scene,
    folder: Path,
    plan: Sequence[Planned] | None,
    split: str | None,
    observer: SuiteObserver,
    question: Question | None,
    world: World,
) -> dict[str, dict[str, Any]]:
    """What comes of a suite that this machine trains; arguments as of `run_suite`."""
    from dabench.cli.processes import command_of
    from dabench.training.suite import resume_suite, start_suite

    if plan is None:
        return resume_suite(folder, scene, observer=observer, world=world)
    started = Started.of(os.environ)
    return start_suite(
        plan, scene, folder=folder, command=command_of(started), split=split, observer=observer,
        question=question, world=world,
        # Where dabench starts processes itself, nobody starts them again.
        job=None if started.folder else started.job,
    )  # fmt: skip


def _observer(
    stack: contextlib.ExitStack, folder: Path, *, quiet: bool, tensorboard: bool, first: bool
) -> SuiteObserver:
    """Who hears of a suite until the stack is left: of several processes the first one's user."""
    from dabench.cli.progress import TrainProgress
    from dabench.training.suite import Silent

    if not first:
        return Silent()
    progress = stack.enter_context(TrainProgress(quiet=quiet))
    if not tensorboard:
        return progress
    from dabench.training.tensorboard import TensorBoard

    return stack.enter_context(TensorBoard(folder, progress))


def _print_suite(
    scene: Scene, folder: Path, results: Mapping[str, Mapping[str, Any]], *, json: bool
) -> None:
    """What came of a suite, as a table or one document."""
    from dabench.training.suite import read_suite

    document = read_suite(folder)
    decided = _answer(document, results)
    if json:
        facts = {key: document[key] for key in ("environment", "data")} | {"runs": results}
        print_json(facts | ({} if decided is None else {"decision": decided}))
    else:
        _print_results(scene, folder, results)
        if decided is not None:
            print_line(decided["words"])
        print_line(f"Records: {folder}", stderr=True)


def _answer(
    document: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """What the seeds say of a suite's claim; None if it has none."""
    from dabench.training.deciding import answer, in_words, question_of
    from dabench.training.suite import scores_of

    question = question_of(document)
    if question is None:
        return None
    # Runs of seeds that were not needed have none: then a look has decided.
    decision = answer(question, scores_of(document["runs"], results), over=True)
    facts = {} if decision is None else asdict(decision)
    return {"claim": question.text, "words": in_words(question, decision), **facts}


def _banner(scene: Scene) -> None:
    text = f"{scene.title}"
    if scene.synthetic:
        text = (
            f"SYNTHETIC stand-in for {scene.pair.name}, which needs datasets: frames are drawn; "
            "scores say nothing about GTA5 or Cityscapes"
        )
    elif scene.asked != scene.pair.name:
        text = f"{scene.asked} needs GTA5 and Cityscapes; CamVid is here: {scene.title}"
    print_line(text, stderr=True)


def _print_results(scene: Scene, folder: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    from dabench.records.trainings import read_epochs
    from dabench.training.health import signs_of

    rows: list[tuple[str, ...]] = []
    for name, result in results.items():
        if result["status"] != "ok":
            rows.append((scene.title, name, "-", "-", "-", result.get("reason", "")))
            continue
        found = signs_of(read_epochs(folder / name), fewest=1)
        loss = result.get("disc_loss")
        # Where no evaluated pixel has a label; records hold no number then.
        shares = (
            "-" if share is None or math.isnan(share) else f"{share:.1%}"
            for share in (result.get("miou"), result.get("accuracy"))
        )
        rows.append(
            (
                scene.title,
                name,
                *shares,
                "-" if loss is None else f"{loss:.3f}",
                ", ".join(sign.flag for sign in found),
            )
        )
    print_table(
        "",
        ("data", "run", "mIoU", "pixel accuracy", "disc. loss", "flags"),
        rows,
        words=("data", "run", "flags"),
    )
