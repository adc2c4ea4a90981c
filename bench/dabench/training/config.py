"""What a training run is asked to do: frozen, checked on creation, free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from dabench.base.errors import UsageError, bad_value, check_choice
from dabench.plan.methods import PLUS, label_of, method_of
from dabench.plan.networks import RESNET18, spec_of
from dabench_models import MODELS

DISCRIMINATORS = tuple(n for n, spec in MODELS.items() if spec.family == "discriminator")
DTYPES = ("auto", "fp32", "bf16", "fp16")
RECIPES = ("paper", "adaptsegnet")
EVALUATIONS = ("official", "paper")
AUGMENTATIONS = ("jitter", "flip", "crop")
DISC_INPUTS = ("softmax", "logits", "entropy")
BATCH_NORMS = ("local", "sync", "frozen")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run.

    Attributes:
        pair: Name of the pair; what it stands for is in the run's record.
        method: As `dabench.plan.methods.method_of` takes it.
        disc: The discriminator of methods that train one.
        model: A segmenter of the registry.
        epochs: Passes over the source; of this, ``steps`` and ``seconds`` one is given.
        steps: Optimiser steps in all.
        seconds: Of optimiser steps in all, waiting for data included and evaluation not.
        height: Of the images the network is trained and evaluated on, pixels.
        width: Likewise.
        crop: (height, width) of a random window for training, or None.
        batch: Images per step and domain.
        lr: Of the segmenter (SGD).
        disc_lr: Of the discriminator (Adam).
        adversarial_weight: Lambda, the weight of the adversarial term in the loss.
        aux_weight: Likewise at the second head of ``multi-level``.
        disc_input: What of a prediction the discriminator sees: one of `DISC_INPUTS`;
            ``advent`` shows it ``entropy`` in any case.
        entropy_weight: Of the term of ``minent``.
        fda_beta: How far ``fda`` reaches into frequencies, as a share of the shorter side.
        teacher_momentum: Of the mean teacher of ``self-training`` and ``mic``.
        confidence: The probability from which a pixel of the teacher's counts as sure.
        mask_ratio: The share of its patches that ``mic`` hides.
        mask_block: Side of a patch in pixels; None takes a sixteenth of the height.
        recipe: ``paper``: learning rates follow the epoch; ``adaptsegnet``: they
            follow the step.
        augment: Which of `AUGMENTATIONS`; ``crop`` does nothing unless the field ``crop`` is set.
        normalise: Bring images to ImageNet's mean and deviation; else they are 0 to 1.
        ohem: Whether the segmentation loss takes hard pixels only.
        detail: Whether the STDC paper's detail loss is added.
        clip: Largest gradient norm, or None.
        seed: Of weights, order and augmentation.
        eval_every: Epochs between evaluations; the last epoch is always evaluated.
        evaluation: ``official`` (Cityscapes' mIoU) or ``paper`` (that of its repository).
        limit: At most so many frames per split, or None.
        memory_format: ``nhwc`` is faster on CPUs and tensor cores.
        threads: Threads of CPU kernels; None leaves torch's default.
        segmenter_dtype: ``auto`` measures which is faster, then keeps it.
        disc_dtype: Likewise.
        workers: Processes that load data; 0 loads it in the training process.
        processes: That train together, each on its share of every batch.
        batch_norm: Whose statistics normalise in training: ``local``, those of a process's
            images; ``sync``, those of all processes'; ``frozen``, the running ones, which then
            stay what they began as.
        backbone_weights: Path of an ImageNet checkpoint of the backbone, `RESNET18` for
            torchvision's, or None.

    Raises:
        UsageError: A value, or a combination of values, that is not allowed.
    """

    pair: str
    method: str
    disc: str = "disc"
    model: str = "stdc1-bisenet"
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    height: int = 512
    width: int = 1024
    crop: tuple[int, int] | None = None
    batch: int = 2
    lr: float = 0.01
    disc_lr: float = 1e-4
    adversarial_weight: float = 0.001
    aux_weight: float = 0.0002
    disc_input: str = "softmax"
    entropy_weight: float = 0.001
    fda_beta: float = 0.01
    teacher_momentum: float = 0.99
    confidence: float = 0.968
    mask_ratio: float = 0.7
    mask_block: int | None = None
    recipe: str = "paper"
    augment: tuple[str, ...] = AUGMENTATIONS
    normalise: bool = True
    ohem: bool = False
    detail: bool = False
    clip: float | None = None
    seed: int = 0
    eval_every: int = 1
    evaluation: str = "official"
    limit: int | None = None
    device: str = "auto"
    memory_format: str = "nhwc"
    threads: int | None = None
    segmenter_dtype: str = "auto"
    disc_dtype: str = "auto"
    workers: int = 0
    processes: int = 1
    batch_norm: str = "local"
    backbone_weights: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", method_of(self.method).name)
        _one_of("--disc", (self.disc,), DISCRIMINATORS)
        _one_of("--recipe", (self.recipe,), RECIPES)
        _one_of("--disc-input", (self.disc_input,), DISC_INPUTS)
        _one_of("--eval", (self.evaluation,), EVALUATIONS)
        _one_of("--augment", self.augment, AUGMENTATIONS)
        _one_of("--dtype", (self.segmenter_dtype, self.disc_dtype), DTYPES)
        _one_of("--memory-format", (self.memory_format,), ("nchw", "nhwc"))
        _one_of("--batch-norm", (self.batch_norm,), BATCH_NORMS)
        if [self.epochs, self.steps, self.seconds].count(None) != 2:
            raise UsageError("--epochs, --steps, --seconds: give one of the three")
        _check("nproc", self.processes, self.processes >= 1, "a whole number of at least 1")
        for name in ("epochs", "steps", "eval_every", "limit", "threads", "mask_block"):
            value = getattr(self, name)
            _check(name, value, value is None or value >= 1, "a whole number of at least 1")
        _check("batch", self.batch, self.batch >= 2, "at least 2: batch norm cannot train on one")
        for name in ("lr", "disc_lr", "clip", "seconds"):
            value = getattr(self, name)
            _check(name, value, value is None or 0 < value < math.inf, "a number above 0")
        for name, weight in (
            ("lambda", self.adversarial_weight),
            ("aux-lambda", self.aux_weight),
            ("entropy-weight", self.entropy_weight),
        ):
            _check(name, weight, 0 <= weight < math.inf, "at least 0")
        self._check_method()
        _check("workers", self.workers, self.workers >= 0, "a whole number of at least 0")
        _check("seeds", self.seed, self.seed >= 0, "whole numbers of at least 0")
        if self.disc_dtype == "fp16" != self.segmenter_dtype:
            allowed = "a discriminator in fp16 needs the segmenter in fp16, whose losses are scaled"
            raise bad_value("--dtype", f"{self.segmenter_dtype},fp16", allowed)
        if self.crop is None and self.augment == ("crop",):
            raise bad_value("--augment", "crop", "--crop must say how large")
        self._check_sizes()
        self._check_processes()

    def _check_processes(self) -> None:
        many, each = self.processes, self.batch / self.processes
        if each != int(each):
            allowed = f"it must be a multiple of {many}, since {many} processes share it"
            raise bad_value("--batch", self.batch, allowed)
        if self.batch_norm == "local" and each < 2:
            allowed = (
                f"at least {2 * many} for {many} processes: batch norm cannot train on one image; "
                "or --batch-norm sync"
            )
            raise bad_value("--batch", self.batch, allowed)
        kind, _, index = self.device.partition(":")
        if many > 1 and (index or kind not in ("auto", "cpu", "cuda")):
            raise bad_value("--device", self.device, "several processes take auto, cpu or cuda")
        method = method_of(self.method)
        if self.batch_norm == "frozen" and (method.own_norms or method.recomputes):
            allowed = f"{self.method!r} is about statistics that change"
            raise bad_value("--batch-norm", self.batch_norm, allowed)

    def _check_method(self) -> None:
        _check("fda-beta", self.fda_beta, 0 <= self.fda_beta < 0.5, "at least 0 and below 0.5")
        for name in ("teacher_momentum", "confidence", "mask_ratio"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < 1, "at least 0 and below 1")
        method = method_of(self.method)
        others = {"minent", "self-training", "mic"} & set(self.method.split(PLUS))
        if method.own_norms and not (self.adversarial_weight or others):
            # Their scale and shift would stay what they began as.
            raise bad_value(
                "--lambda", self.adversarial_weight, "'dsbn' must learn from the target"
            )

    def _check_sizes(self) -> None:
        spec = spec_of(self.model)
        if self.detail and "detail" not in spec.outputs:
            raise bad_value("--detail", self.model, "only segmenters with a detail head take it")
        if spec.family != "segmenter":
            raise bad_value("--model", self.model, "training takes a segmenter")
        if self.backbone_weights == RESNET18 and self.model != "bisenet-r18":
            allowed = f"{self.model} takes a file; torchvision's is for bisenet-r18"
            raise bad_value("--backbone-weights", RESNET18, allowed)
        size = (self.height, self.width)
        multiple = 32
        for option, (height, width) in (("--size", size), ("--crop", self.crop or size)):
            if height < multiple or width < multiple or height % multiple or width % multiple:
                allowed = f"height and width must be multiples of {multiple}"
                raise bad_value(option, f"{height}x{width}", allowed)
        if self.crop is not None and (self.crop[0] > self.height or self.crop[1] > self.width):
            allowed = f"it must fit into the image, {self.height}x{self.width}"
            raise bad_value("--crop", f"{self.crop[0]}x{self.crop[1]}", allowed)

    @property
    def label(self) -> str:
        """A name for tables and folders: the method, and what else tells it apart."""
        return label_of(self.method, self.disc)

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `TrainConfig.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> TrainConfig:
        """Reads what `to_dict` wrote."""
        crop = document["crop"]
        lists = {"crop": crop and tuple(crop), "augment": tuple(document["augment"])}
        return cls(**{**document, **lists})

    def differences(self, other: TrainConfig) -> list[str]:
        """Names of the settings that differ."""
        names = (field.name for field in fields(self))
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def _check(name: str, value: object, ok: bool, allowed: str) -> None:
    if not ok:
        raise bad_value(f"--{name.replace('_', '-')}", value, f"it takes {allowed}")


def _one_of(option: str, values: Sequence[str], choices: Sequence[str]) -> None:
    for value in values:
        check_choice(option, value, choices)
