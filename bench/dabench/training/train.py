"""The training loop: epochs, schedules, checkpoints, records."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor

from dabench.base.errors import DabenchError, UsageError
from dabench.data.labels import Classes
from dabench.data.loader import Augment, Batch, steps_per_epoch, training_batches
from dabench.device.memory import freed_pages_kept
from dabench.device.registry import open_device
from dabench.network import checkpoint
from dabench.plan.methods import method_of
from dabench.plan.trained import CHECKPOINTS, WEIGHTS
from dabench.records.trainings import PICTURES, EpochRow, FrameRow, TrainRecord
from dabench.scoring.evaluate import Evaluated
from dabench.scoring.metrics import SCORES, Scores
from dabench.timing.clock import host_clock
from dabench.training.backbone import backbone_file
from dabench.training.budget import Budget, BudgetError
from dabench.training.config import TrainConfig
from dabench.training.evaluate import confusion_on, recompute_statistics
from dabench.training.frames import (
    DataObserver,
    Frames,
    check_same_frames,
    digests_of,
    gather,
    run_document,
)
from dabench.training.health import CHANCE_LOSS, at_chance
from dabench.training.learners import configured, segmenter_of, settle
from dabench.training.methods.build import parts_of
from dabench.training.pictures import draw_predictions
from dabench.training.scene import Scene
from dabench.training.step import StepResult, Trainer, poly
from dabench.training.stopwatch import Stopwatch
from dabench.training.world import ALONE, World
from dabench_models import WeightsError, load_weights
from dabench_models.bisenet import BiSeNet

TARGET_SEED = 1 << 20
"""Added to the seed for the order of the target's frames."""


class TrainObserver(DataObserver, Protocol):
    """Sees a run go by; for progress displays."""

    def step(self, step: int, of: int, epoch: int, result: Mapping[str, float], lr: float) -> None:
        """A step is done."""

    def epoch(self, row: EpochRow) -> None:
        """An epoch is done."""


class NotFiniteError(DabenchError):
    """The loss is no longer a number."""


FAILURES = (NotFiniteError, BudgetError)
"""What ends one run of a suite and not the suite."""


def failed(error: DabenchError) -> dict[str, Any]:
    """The result of a run that one of `FAILURES` ended.

    ``refused``: what was asked for cannot be done, whatever comes out.
    """
    return {
        "status": "failed",
        "reason": str(error),
        "refused": isinstance(error, BudgetError),
    }


class Training:
    """One run, from its configuration or from a checkpoint.

    Args:
        config: What to do; ``auto`` must be resolved already (`settle`).
        frames: The data.
        classes: Of the labels.
        record: Where rows go.
        observer: Told of the progress.
        world: The processes that train together.
    """

    def __init__(
        self,
        config: TrainConfig,
        frames: Frames,
        classes: Classes,
        record: TrainRecord,
        observer: TrainObserver,
        world: World = ALONE,
    ) -> None:
        self.config, self.frames, self.classes = config, frames, classes.names
        self._classes = classes
        self._record, self._observer, self.world = record, observer, world
        self._method = method_of(config.method)
        self._device = open_device(world.device(config.device))
        self._where = self._device.torch_device()
        self.steps_per_epoch = steps_per_epoch(len(frames.training), config.batch)
        # The end of so many seconds must be the same for all.
        clock = {} if world.size == 1 else {"clock": world.clock}
        self.budget = Budget(config, self.steps_per_epoch, **clock)
        self.steps = self.epochs_done = 0
        self._adopted = False
        self.evaluated: Evaluated
        self._watch = Stopwatch(host_clock, self._device.synchronize)
        self._trainer = Trainer(
            segmenter_of(config, len(classes), self._where, world),
            parts_of(config, len(classes), self._where),
            passes_target=self._method.sees_target,
            own_norms=self._method.own_norms,
            ohem=config.ohem,
            detail=config.detail,
            normalised=config.normalise,
            watch=self._watch,
            # Elsewhere the device's own queue takes one pass after the other.
            threads=torch.get_num_threads() if self._where.type == "cpu" else 1,
            seed=config.seed,
            world=world,
        )

    @property
    def network(self) -> BiSeNet:
        """The segmenter as it is evaluated: with the target's batch norms where these are apart."""
        return self._trainer.target_network

    def run(self) -> Scores:
        """Trains to the end; the scores are those of the last epoch.

        Raises:
            NotFiniteError: A loss or a weight is not a number.
            BudgetError: The seconds it may take are fewer than its first step takes.
            DataError: A label of an evaluated frame cannot be read.
            ResultsError: The disk is full or gone.
        """
        checkpoints = self._record.folder / CHECKPOINTS
        batches = iter(()) if self._over else self.batches(self.steps)
        scores: Scores | None = None
        while not self._over:
            row = self.epoch(self.epochs_done, batches)
            # From here on, as after a checkpoint, all have the same.
            self._trainer.average_buffers()
            if self._over or row.epoch % self.config.eval_every == 0:
                begin = host_clock()
                scores = self.evaluate()
                row = replace(
                    row,
                    eval_s=host_clock() - begin,
                    miou=scores.miou,
                    accuracy=scores.accuracy,
                )
            self._record.epoch(row)
            self._check_weights(row.step)
            self.epochs_done = row.epoch
            if self.world.first:
                checkpoint.save(checkpoints, row.step, self._state())
            self._observer.epoch(row)
        if scores is None or self._method.recomputes:
            scores = self._final_scores()
        return scores

    def _final_scores(self) -> Scores:
        """Scores of the network as it is now; of AdaBN after its statistics are new."""
        if self._method.recomputes:
            assert self.frames.target is not None
            network = self._alone()
            recompute_statistics(
                network,
                self.frames.target,
                device=self._where,
                precision=self._trainer.segmenter.precision,
                normalised=self.config.normalise,
                batch=self.config.batch,
            )
            self.network.load_state_dict(network.state_dict())
        return self.evaluate()

    def _alone(self) -> BiSeNet:
        """The network, or its twin whose batch norms know of no other process.

        Each process recomputes all statistics.
        """
        if self.world.size == 1:
            return self.network
        config = replace(self.config, batch_norm="local", processes=1)
        twin = segmenter_of(config, len(self.classes), self._where).network
        twin.load_state_dict(self.network.state_dict())
        assert isinstance(twin, BiSeNet)
        return twin

    def evaluate(self) -> Scores:
        """Scores on the evaluation frames; what they rest on is then in ``evaluated``."""
        self.evaluated = confusion_on(
            self.network,
            self.frames.evaluation,
            classes=len(self.classes),
            device=self._where,
            normalised=self.config.normalise,
            world=self.world,
        )
        return SCORES[self.config.evaluation](self.evaluated.counts)

    def frames_counted(self) -> Iterator[FrameRow]:
        """Rows of ``frames.csv`` for the last evaluation."""
        names = self.frames.evaluation.names
        for index, (name, frame) in enumerate(zip(names, self.evaluated.frames, strict=True)):
            parts = zip(frame.hit, frame.truth, frame.predicted, strict=True)
            for number, (hit, truth, predicted) in enumerate(parts):
                if truth or predicted:
                    yield FrameRow(index, name, number, hit, truth, predicted)

    def draw(self, path: Path) -> None:
        """Writes a picture of a few evaluated frames."""
        frames = self.frames.evaluation
        draw_predictions(
            self.network, frames, self._classes, self._where, path, normalised=self.config.normalise
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a checkpoint's state.

        Raises:
            UsageError: It is of another configuration; names what differs.
        """
        differing = self.config.differences(TrainConfig.of(state["config"]))
        if differing:
            raise UsageError(f"--resume: the checkpoint differs in {', '.join(differing)}")
        for name, learner in self._trainer.learners.items():
            learner.network.load_state_dict(state[name]["network"])
            learner.optimizer.load_state_dict(state[name]["optimizer"])
            learner.precision.scaler.load_state_dict(state[name]["scaler"])
        if self._method.own_norms:
            self.network.load_state_dict(state["target_network"])
        for part in self._trainer.parts:
            part.restore(state.get("parts", {}).get(part.name, {}))
        torch.set_rng_state(state["rng"])
        self.epochs_done = state["epochs_done"]
        whole_epochs = self.epochs_done * self.steps_per_epoch
        self.steps = state.get("steps", min(whole_epochs, self.budget.steps))
        spent = sum(row.seconds for row in self._record.rows)
        self.budget.resume(self.world.share(lambda: spent))

    def adopt(self, weights: Mapping[str, Tensor], *, epochs: int, steps: int) -> None:
        """Takes over the weights of a finished training; none of its own follows."""
        self.network.load_state_dict(weights)
        self.epochs_done, self.steps = epochs, steps
        self._adopted = True

    def begin(self) -> None:
        """Begins with the published weights of the backbone, if any are asked for.

        Raises:
            UsageError: They are not there or do not fit.
        """
        if self.config.backbone_weights is None:
            return
        segmenter = self._trainer.segmenter.network
        assert isinstance(segmenter, BiSeNet)
        try:
            load_weights(segmenter.cp.backbone, backbone_file(self.config.backbone_weights))
        except WeightsError as error:
            raise UsageError(f"--backbone-weights: {error}") from error
        self._trainer.copy_norms()

    def _state(self) -> dict[str, Any]:
        learners = {
            name: {
                "network": learner.network.state_dict(),
                "optimizer": learner.optimizer.state_dict(),
                "scaler": learner.precision.scaler.state_dict(),
            }
            for name, learner in self._trainer.learners.items()
        }
        own = {"target_network": self.network.state_dict()} if self._method.own_norms else {}
        return {
            **learners,
            **own,
            "parts": {part.name: part.state() for part in self._trainer.parts},
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            "epochs_done": self.epochs_done,
            "steps": self.steps,
            "rng": torch.get_rng_state(),
        }

    def weights(self) -> dict[str, Any]:
        """What evaluation and prediction need: no optimiser, no discriminator."""
        return {
            "segmenter": {"network": self.network.state_dict()},
            "config": self.config.to_dict(),
            "classes": list(self.classes),
        }

    def batches(self, first: int) -> Iterator[tuple[Batch, Batch | None]]:
        """Batches of source and, where the method uses it, target, from a step on."""
        config = self.config
        wanted = config.augment if self._method.augments else ()
        crop = config.crop if "crop" in wanted else None
        augment = Augment(jitter="jitter" in wanted, flip="flip" in wanted, crop=crop)
        stream = partial(
            training_batches,
            batch=config.batch,
            first=first,
            last=self.budget.steps,
            workers=config.workers,
            pin_memory=self._where.type == "cuda",
            part=self.world.part(config.batch),
        )
        source = stream(self.frames.training, augment, seed=config.seed)
        if self.frames.target is None or not self._method.parts:
            return ((batch, None) for batch in source)
        # The target keeps its own colours: they are what is to be learnt.
        plain = replace(augment, jitter=False)
        target = stream(self.frames.target, plain, seed=config.seed + TARGET_SEED)
        return zip(source, target, strict=True)

    @freed_pages_kept()
    def epoch(self, epoch: int, batches: Iterator[tuple[Batch, Batch | None]]) -> EpochRow:
        """Trains one epoch, counted from 0; evaluates nothing.

        Raises:
            NotFiniteError: A loss is not a number.
        """
        config, budget = self.config, self.budget
        self._trainer.train()
        first = epoch * self.steps_per_epoch
        gathered: list[dict[str, float]] = []
        self._watch.reset()
        budget.begin_epoch()
        worked = time.process_time()
        factor = 1.0
        for step in range(first, first + self.steps_per_epoch):
            if gathered and budget.is_spent(step):
                break
            factor = poly(budget.progress(step))
            self._set_lr(factor)
            with self._watch.part("data"):
                batch, other = next(batches)
                images = self._to_device(batch.images)
                labels = batch.labels.to(self._where, non_blocking=True)
                target = None if other is None else self._to_device(other.images)
                target_names = [] if other is None else other.names
            values = self.world.means(_numbers(self._trainer.step(images, labels, target, step)))
            if not all(map(math.isfinite, values.values())):
                raise self._not_finite(step, [*batch.names, *target_names], values)
            gathered.append(values)
            of, lr = budget.steps_in_all(step + 1), config.lr * factor
            self._observer.step(step + 1, of, epoch + 1, values, lr)
        cpu_s = torch.tensor([time.process_time() - worked], dtype=torch.float64)
        self.steps = first + len(gathered)
        means = {name: fmean(values[name] for values in gathered) for name in gathered[0]}
        return EpochRow(
            epoch=epoch + 1,
            step=self.steps,
            images=len(gathered) * config.batch,
            seconds=budget.end_epoch(),
            cpu_s=float(self.world.total(cpu_s)),
            **{f"{part}_s": seconds for part, seconds in self._watch.reset().items()},
            eval_s=None,
            lr=config.lr * factor,
            disc_lr=config.disc_lr * factor if self._method.judged else None,
            miou=None,
            accuracy=None,
            **means,
        )

    @property
    def _over(self) -> bool:
        return self._adopted or self.budget.is_spent(self.steps)

    def _set_lr(self, factor: float) -> None:
        for name, learner in self._trainer.learners.items():
            lr = self.config.lr if name == "segmenter" else self.config.disc_lr
            for group in learner.optimizer.param_groups:
                group["lr"] = lr * factor

    def _to_device(self, images: Tensor) -> Tensor:
        nhwc = self.config.memory_format == "nhwc"
        layout = torch.channels_last if nhwc else torch.contiguous_format
        return images.to(self._where, non_blocking=True).contiguous(memory_format=layout)

    def _check_weights(self, step: int) -> None:
        """Keeps weights that are no numbers out of the checkpoints.

        A loss can be fine and its gradients not: the weights show it a step later.
        """
        for learner in self._trainer.learners.values():
            for parameter in learner.parameters:
                if not torch.isfinite(parameter).all():
                    raise self._not_finite(step - 1, [], {"a weight": math.nan})

    def _not_finite(
        self, step: int, frames: Sequence[str], values: Mapping[str, float]
    ) -> NotFiniteError:
        names = ", ".join(name for name, value in values.items() if not math.isfinite(value))
        state = f"epoch {self.epochs_done}" if self.epochs_done else "none"
        others = "" if self.world.size == 1 else " of process 0, of several"
        return NotFiniteError(
            f"{names} is not a number at step {step + 1}; frames{others}: "
            f"{', '.join(frames) or '-'}; "
            f"last good checkpoint: {state} in {self._record.folder / CHECKPOINTS}"
        )


def start(
    config: TrainConfig,
    scene: Scene,
    *,
    folder: Path,
    document: Mapping[str, Any],
    split: str | None,
    observer: TrainObserver,
    world: World = ALONE,
) -> dict[str, Any]:
    """Trains one run in a new folder; returns its result.

    Args:
        config: What to do.
        scene: The data.
        folder: Of the records.
        document: What ``run.json`` says beside it.
        split: Evaluated instead of the reported one.
        observer: Told of the progress.
        world: The processes that train together, all of which call this.

    Raises:
        DabenchError: Bad data, a full disk, or a loss that is not a number.
    """
    frames = gather(config, scene, split, observer)
    world.check_same("the frames", digests_of(frames))
    config = settle(config, len(scene.target.classes), observer, world)
    record = begun_record(folder, run_document(document, config, scene, split, frames), world)
    training = Training(config, frames, scene.target.classes, record, observer, world)
    training.begin()
    return finish(training, record)


def begun_record(
    folder: Path, document: Mapping[str, Any], world: World, *, replace: bool = False
) -> TrainRecord:
    """A run's new record, which the first process writes and the others follow."""
    if world.first:
        return TrainRecord.create(folder, document, replace=replace)
    return TrainRecord.follow(folder)


def resume(
    config: TrainConfig,
    scene: Scene,
    *,
    folder: Path,
    split: str | None,
    observer: TrainObserver,
    world: World = ALONE,
) -> dict[str, Any]:
    """Continues an interrupted run from its last whole checkpoint, or from its start.

    Raises:
        UsageError: The frames or the configuration are not those it was begun with.
        DabenchError: As `start`.
    """
    configured(config, world)
    frames = gather(config, scene, split, observer)

    def last() -> bytes:
        check_same_frames(folder, frames)
        content, damaged = checkpoint.last_whole(folder / CHECKPOINTS)
        for path in damaged:
            observer.note(f"{path} is damaged; the one before is used")
        return content

    content = world.share_bytes(last)
    world.check_same("the frames", digests_of(frames))
    state = checkpoint.parse(content, folder / CHECKPOINTS) if content else None
    epochs = 0 if state is None else state["epochs_done"]
    record = TrainRecord.resume(folder, epochs) if world.first else TrainRecord.follow(folder)
    training = Training(config, frames, scene.target.classes, record, observer, world)
    if state is not None:
        training.restore(state)
    else:
        training.begin()
    return finish(training, record)


def finish(training: Training, record: TrainRecord) -> dict[str, Any]:
    """Runs to the end and writes the outcome."""
    with record.run:
        return _finish(training, record)


def _finish(training: Training, record: TrainRecord) -> dict[str, Any]:
    begin, first = time.monotonic(), training.world.first
    try:
        scores = training.run()
    except FAILURES as error:
        record.result(failed(error))
        raise
    if first:
        checkpoint.write(record.folder / WEIGHTS, training.weights())
    result = {
        "status": "ok",
        "miou": scores.miou,
        "accuracy": scores.accuracy,
        "epochs": training.epochs_done,
        "steps": training.steps,
        "seconds": time.monotonic() - begin,
        **({} if method_of(training.config.method).recomputes else _best(record.rows)),
        **health(record.rows),
    }
    if first:
        training.draw(record.folder / PICTURES)
        frames = training.frames_counted()
        record.finish(result, training.classes, scores.iou, scores.pixels, frames)
        # Last: until the result is on disk, a run that is cut off needs them.
        checkpoint.remove_all(record.folder / CHECKPOINTS)
    return result


def _best(rows: Sequence[EpochRow]) -> dict[str, Any]:
    """The best epoch, which only the labels of the evaluated frames can tell."""
    scored = [row for row in rows if row.miou is not None]
    best = max(scored, key=lambda row: row.miou or 0.0, default=None)
    if best is None:
        return {}
    return {
        "best_miou": best.miou,
        "best_epoch": best.epoch,
        "best_selected_on": "labels of the evaluated frames",
    }


def health(rows: Sequence[EpochRow]) -> dict[str, Any]:
    """The discriminator's state at the end, and whether it ever left chance."""
    losses = [row.disc_loss for row in rows if row.disc_loss is not None]
    if not losses:
        return {"disc_loss": None, "disc_at_chance": None}
    last = rows[-1]
    return {
        "disc_loss": losses[-1],
        "disc_chance_loss": CHANCE_LOSS,
        "disc_at_chance": at_chance(losses),
        "belief_source": last.belief_source,
        "belief_target": last.belief_target,
        "disc_accuracy": last.disc_accuracy,
    }


_COLUMNS = {
    "segmentation": "loss",
    "adversarial": "adversarial_loss",
    "discriminator": "disc_loss",
    "on_source": "belief_source",
    "on_target": "belief_target",
    "accuracy": "disc_accuracy",
    "aux_adversarial": "aux_adversarial_loss",
    "aux_discriminator": "aux_disc_loss",
    "entropy": "entropy",
    "mixed": "mixed_loss",
    "masked": "masked_loss",
    "confident": "confident",
}
"""Field of `StepResult` -> column of an epoch, its mean."""


def _numbers(result: StepResult) -> dict[str, float]:
    values = {column: getattr(result, name) for name, column in _COLUMNS.items()}
    return {column: value.item() for column, value in values.items() if value is not None}
