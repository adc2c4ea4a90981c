"""Several training runs over one pair: methods, discriminators, seeds; resumable as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dabench.base.errors import UsageError, bad_value
from dabench.device.machine import describe_host, describe_torch
from dabench.network import checkpoint
from dabench.plan.devices import resolve_device
from dabench.plan.methods import label_of, method_of, without_recomputing
from dabench.plan.trained import RELEASED, WEIGHTS
from dabench.records.folder import (
    Following,
    RunFolder,
    check_new_run,
    check_same_machine,
    has_run,
    read_run,
)
from dabench.records.trainings import SUITE, EpochRow, read_result
from dabench.training.backbone import backbone_file
from dabench.training.config import TrainConfig
from dabench.training.deciding import (
    Claim,
    Question,
    Side,
    answer,
    further_seeds,
    question_of,
)
from dabench.training.frames import gather, run_document
from dabench.training.learners import settle
from dabench.training.scene import Scene
from dabench.training.train import (
    FAILURES,
    Training,
    TrainObserver,
    begun_record,
    failed,
    finish,
    resume,
    start,
)
from dabench.training.world import ALONE, World

Configs = Mapping[str, Mapping[str, Any]]
"""Name of a run -> its configuration, as a suite's document has them."""
Results = Mapping[str, Mapping[str, Any]]
"""Name of a run -> its result."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a suite, with the name of its folder."""

    name: str
    config: TrainConfig


class SuiteObserver(TrainObserver, Protocol):
    """Sees a suite go by."""

    def run(self, name: str, number: int, of: int, batch: int) -> None:
        """A run begins, with so many images per step."""

    def done(self, name: str, result: Mapping[str, Any]) -> None:
        """A run ended, well or not."""


class Silent:
    """An observer of a process that leaves telling to another."""

    def run(self, name: str, number: int, of: int, batch: int) -> None:
        """Nothing."""

    def done(self, name: str, result: Mapping[str, Any]) -> None:
        """Nothing."""

    def preparing(self, what: str, done: int, of: int) -> None:
        """Nothing."""

    def step(self, step: int, of: int, epoch: int, result: Mapping[str, float], lr: float) -> None:
        """Nothing."""

    def epoch(self, row: EpochRow) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def plan_suite(
    base: TrainConfig, methods: Sequence[str], discs: Sequence[str], seeds: Sequence[int]
) -> list[Planned]:
    """Every method for every seed, those against a discriminator with every one of them.

    Seeds are outermost, so that an interrupted suite has whole comparisons, not
    half of the methods. The control's discriminator has no say: one is enough.
    """
    sides = [
        Side(method, disc)
        for method in methods
        for disc in (discs if method_of(method).fools else discs[:1])
    ]
    return _planned(base, sides, seeds)


def _planned(base: TrainConfig, sides: Sequence[Side], seeds: Sequence[int]) -> list[Planned]:
    planned: dict[str, Planned] = {}
    for seed in seeds:
        for side in sides:
            config = replace(base, method=side.method, disc=side.disc, seed=seed)
            name = f"{config.label.replace(' ', '-')}-seed{seed}"
            planned[name] = Planned(name, config)
    return list(planned.values())


def plan_decision(
    base: TrainConfig,
    claim: Claim,
    methods: Sequence[str],
    discs: Sequence[str],
    seeds: Sequence[int],
    most: int,
) -> tuple[list[Planned], Question]:
    """A suite, and what of it is to go on until a claim is decided.

    Every method has the seeds; those of the claim may have more, up to ``most``.
    """
    sides = (claim.better, claim.than)
    # The training that a side only recomputes statistics of comes first.
    twins = [Side(without_recomputing(side.method), side.disc) for side in sides
             if method_of(side.method).recomputes]  # fmt: skip
    needed = list(dict.fromkeys([*twins, *sides]))
    further = further_seeds(seeds, most)
    plan = {
        planned.name: planned
        for planned in (
            *_planned(base, needed, seeds),
            *plan_suite(base, methods, discs, seeds),
            *_planned(base, needed, further),
        )
    }
    question = Question(
        text=claim.text,
        better=claim.better.label,
        than=claim.than.label,
        by=claim.by,
        seeds=(*seeds, *further),
        first=len(seeds),
    )
    return list(plan.values()), question


def start_suite(
    plan: Sequence[Planned],
    scene: Scene,
    *,
    folder: Path,
    command: str,
    split: str | None,
    observer: SuiteObserver,
    question: Question | None = None,
    world: World = ALONE,
    job: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Runs a plan in a new folder; returns the results by name of run.

    A run whose loss is not a number, or whose seconds are too few for its method, is a failed
    result; the others go on.

    Args:
        plan: The runs, in order.
        scene: The data.
        folder: Of the records.
        command: What the user asked for.
        split: Evaluated instead of the reported one.
        observer: Told of the progress.
        question: What further seeds are to decide.
        world: The processes that train together, all of which call this.
        job: What they are called together, by which a restart finds the folder.

    Raises:
        UsageError: The folder holds a run or cannot be written, or the device is not there.
        DataError: Frames are missing, unreadable or without usable labels.
        ResultsError: The disk is full or gone.
    """
    world.share(lambda: check_new_run(folder))
    asked = [{"name": each.name, **each.config.to_dict()} for each in plan]
    world.check_same("the options", [split, *asked])
    weights = plan[0].config.backbone_weights
    if weights is not None:
        # Before the minutes that decoding takes.
        backbone_file(weights)
    environment = {**describe_host(), **describe_torch()}
    configs = settled(plan, environment, len(scene.target.classes), observer, world)
    document: dict[str, Any] = {
        "command": command,
        "environment": environment,
        "data": scene.describe(split),
        "split": split,
        "runs": {name: config.to_dict() for name, config in configs.items()},
        "decide": None if question is None else question.to_dict(),
        **({} if job is None else {"job": job}),
        **({} if world.size == 1 else {"machines": world.size // world.local_size}),
    }
    run = (
        RunFolder.create(folder, SUITE, **document) if world.first else Following(folder, document)
    )
    return _run_all(run, scene, observer, world)


def settled(
    plan: Sequence[Planned],
    environment: Mapping[str, Any],
    classes: int,
    observer: SuiteObserver,
    world: World = ALONE,
) -> dict[str, TrainConfig]:
    """The configurations of a suite's runs as this machine carries them out, by name.

    Raises:
        UsageError: The device is not there.
    """
    device = _device(plan[0].config.device, environment, world)
    # One measurement per network, so that runs that are compared compute alike.
    segmenter = plan[0].config.segmenter_dtype
    discs: dict[str, str] = {}
    configs = {}
    for planned in plan:
        threads = planned.config.threads or world.threads or None
        config = replace(planned.config, device=device, segmenter_dtype=segmenter, threads=threads)
        judged = method_of(config.method).judged
        if judged:
            config = replace(config, disc_dtype=discs.get(config.disc, config.disc_dtype))
        config = settle(config, classes, observer, world)
        segmenter = config.segmenter_dtype
        if judged:
            discs[config.disc] = config.disc_dtype
        configs[planned.name] = config
    return configs


def _device(name: str, environment: Mapping[str, Any], world: World) -> str:
    """The device of a suite, of which there must be one for each process.

    Raises:
        UsageError: There is none, or there are too few.
    """
    device = resolve_device(name, environment)
    gpus = len(environment["gpus"])
    if world.size > 1 and device == "cuda" and gpus < world.local_size:
        raise bad_value("--nproc", world.local_size, f"this machine has {gpus} CUDA GPUs")
    if world.size > 1 and device not in ("cpu", "cuda"):
        raise bad_value("--device", device, "several processes take cpu or cuda")
    return device


def read_suite(folder: Path) -> dict[str, Any]:
    """Reads a suite's document.

    Raises:
        UsageError: No suite there.
    """
    return read_run(folder, SUITE)


def resume_suite(
    folder: Path, scene: Scene, *, observer: SuiteObserver, world: World = ALONE
) -> dict[str, dict[str, Any]]:
    """Continues an interrupted suite: what is done stays, what was cut off goes on.

    Raises:
        UsageError: Other data, another machine or as many processes than it was begun with.
    """
    document = world.share(lambda: read_suite(folder))
    many = processes_of(document)
    if many != world.size:
        raise bad_value("--nproc", world.size, f"{folder} was begun with {many}")
    if differing := data_differences(document, scene):
        raise UsageError(f"--resume: the data differ from the run's in {', '.join(differing)}")
    environment = {**describe_host(), **describe_torch()}
    world.share(lambda: check_same_machine(folder, document["environment"], environment))
    run = RunFolder.open(folder, SUITE) if world.first else Following(folder, document)
    return _run_all(run, scene, observer, world)


def processes_of(document: Mapping[str, Any]) -> int:
    """How many processes train together in the runs of a suite."""
    return max((config.get("processes", 1) for config in document["runs"].values()), default=1)


def _run_all(
    run: RunFolder, scene: Scene, observer: SuiteObserver, world: World
) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    folder, runs = run.path, run.document["runs"]
    question = question_of(run.document)
    with run:
        for number, (name, config) in enumerate(runs.items()):
            if is_spared(config, question, runs, results):
                break
            result = world.share(partial(read_result, folder / name))
            if result is None:
                observer.run(name, number + 1, len(runs), config["batch"])
                parsed = TrainConfig.of(config)
                result = run_one(folder, name, parsed, run.document, scene, observer, world)
                observer.done(name, result)
            results[name] = result
        run.write_json(RELEASED, released(runs, results))
    return results


def is_spared(
    config: Mapping[str, Any], question: Question | None, runs: Configs, results: Results
) -> bool:
    """Whether a run is one of the further seeds of a claim that is decided."""
    if question is None or config["seed"] not in question.seeds[question.first :]:
        return False
    decision = answer(question, scores_of(runs, results))
    return decision is not None and decision.verdict != "undecided"


def data_differences(document: Mapping[str, Any], scene: Scene) -> list[str]:
    """In what the data differ from those that a suite was begun with."""
    now = scene.describe(document["split"])
    return [name for name in now if document["data"].get(name) != now[name]]


def released(runs: Configs, results: Results) -> dict[str, str]:
    """Label -> the run of its median seed; of two in the middle the worse, never the best."""
    of_label: dict[str, list[tuple[float, str]]] = {}
    for name, label, _, miou in _scored(runs, results):
        of_label.setdefault(label, []).append((miou, name))
    return {label: sorted(each)[(len(each) - 1) // 2][1] for label, each in of_label.items()}


def scores_of(runs: Configs, results: Results) -> dict[str, dict[int, float]]:
    """Label -> seed -> mIoU."""
    scores: dict[str, dict[int, float]] = {}
    for _, label, seed, miou in _scored(runs, results):
        scores.setdefault(label, {})[seed] = miou
    return scores


def _scored(runs: Configs, results: Results) -> Iterator[tuple[str, str, int, float]]:
    """Name, label, seed and mIoU of the runs that have one."""
    for name, result in results.items():
        miou = result.get("miou")
        # None where no evaluated pixel had a label: such a score is stored as nothing.
        if result["status"] == "ok" and miou is not None and math.isfinite(miou):
            config = runs[name]
            yield name, label_of(config["method"], config["disc"]), config["seed"], miou


def run_one(
    folder: Path,
    name: str,
    config: TrainConfig,
    suite: Mapping[str, Any],
    scene: Scene,
    observer: SuiteObserver,
    world: World = ALONE,
) -> dict[str, Any]:
    """Carries out one run of a suite, from its last checkpoint if it has one.

    Args:
        folder: Of the suite.
        name: Of the run, and of its folder there.
        config: What to do.
        suite: The suite's document.
        scene: The data.
        observer: Told of the progress.
        world: The processes that train together, all of which call this.
    """
    document = {key: suite[key] for key in ("command", "environment", "node") if key in suite}
    split = suite["split"]
    begun = world.share(lambda: has_run(folder / name))
    twin: str | None = world.share(lambda: trained_twin(folder, config, suite))
    try:
        if twin is not None:
            return _adapt_statistics(
                folder, name, config, folder / twin, document, scene, split, observer, world
            )
        if begun:
            return resume(
                config, scene, folder=folder / name, split=split, observer=observer, world=world
            )
        return start(
            config, scene, folder=folder / name, document=document, split=split,
            observer=observer, world=world,
        )  # fmt: skip
    except FAILURES as error:
        return failed(error)


def trained_twin(folder: Path, config: TrainConfig, suite: Mapping[str, Any]) -> str | None:
    """The name of the finished run that ``adabn`` continues from, if the suite has it."""
    method = method_of(config.method)
    if not method.recomputes:
        return None
    twin = without_recomputing(method.name)
    runs: Configs = suite["runs"]
    for name, other in runs.items():
        theirs = TrainConfig.of(dict(other))
        wanted = replace(config, method=twin, disc=config.disc if method.judged else theirs.disc)
        if theirs == wanted and (folder / name / WEIGHTS).exists():
            return name
    return None


def _adapt_statistics(
    folder: Path,
    name: str,
    config: TrainConfig,
    twin: Path,
    document: Mapping[str, Any],
    scene: Scene,
    split: str | None,
    observer: SuiteObserver,
    world: World,
) -> dict[str, Any]:
    """AdaBN on the weights of a run trained without it: no training of its own."""
    frames = gather(config, scene, split, observer)
    settle(config, len(scene.target.classes), observer, world)
    full = run_document(document, config, scene, split, frames)
    full["weights_of"] = twin.name
    record = begun_record(folder / name, full, world, replace=True)
    training = Training(config, frames, scene.target.classes, record, observer, world)
    result = world.share(lambda: read_result(twin)) or {}
    content = world.share_bytes((twin / WEIGHTS).read_bytes)
    weights = checkpoint.parse(content, twin / WEIGHTS)["segmenter"]["network"]
    training.adopt(weights, epochs=result["epochs"], steps=result["steps"])
    return finish(training, record)
