"""The networks by name: a plain dict of frozen specs, readable without torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from torch import nn

Family = Literal["segmenter", "discriminator", "classifier", "other"]

STDC_PAPER = "Fan et al., CVPR 2021 (STDC)"
BISENET_PAPER = "Yu et al., ECCV 2018 (BiSeNet)"
DABENCH_PAPER = "Berardo, Cardona and De Marco (real-time domain adaptation)"
RTDA_PAPER = "Tavera, Masone and Caputo, 2021 (RTDA)"


class UnknownModelError(ValueError):
    """A model name that is not in the registry; the message lists the choices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What is known of a network before it is built.

    Attributes:
        name: Its name in the registry.
        family: Decides the loss, the optimiser and the defaults of a benchmark.
        builder: ``module:function`` that makes the network. A string, so that
            the registry can be read without importing torch.
        options: Keyword arguments the builder always gets.
        channels: Channels of the input image, or of the class map a
            discriminator looks at.
        height: Default input height in pixels.
        width: Default input width in pixels.
        num_classes: Default number of classes. For a discriminator these are
            its input channels.
        outputs: Names of what training mode returns, main output first.
        size_multiple: Height and width must be multiples of this.
        min_train_batch: Smallest batch training mode accepts.
        stages: Prefix of a module's path -> the stage it belongs to, in the
            papers' words; the first that fits counts.
        summary: One line for a person.
        source: Where the network was published.
    """

    name: str
    family: Family
    builder: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    channels: int = 3
    height: int = 512
    width: int = 1024
    num_classes: int = 19
    outputs: tuple[str, ...] = ("main",)
    size_multiple: int = 1
    min_train_batch: int = 1
    stages: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    summary: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON document of the spec."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **document,
            "options": dict(self.options),
            "outputs": list(self.outputs),
            "stages": dict(self.stages),
        }

    def stage_of(self, path: str) -> str:
        """The stage a module belongs to; its first name where no stage is known."""
        for prefix, stage in self.stages.items():
            if path == prefix or path.startswith((f"{prefix}.", f"{prefix} ")):
                return stage
        return path.partition(".")[0].partition(" ")[0] or self.name


# Blocks of the backbone per stage at 1/8, 1/16 and 1/32, behind the two stem layers.
_STDC_BLOCKS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}


def _stages_of_stdc(arch: str, root: str) -> dict[str, str]:
    stages = {f"{root}features.{i}": f"stage {i + 1}" for i in range(2)}
    index = 2
    for stage, blocks in enumerate(_STDC_BLOCKS[arch], start=3):
        for _ in range(blocks):
            stages[f"{root}features.{index}"] = f"stage {stage}"
            index += 1
    return stages


def _stages_of_bisenet(backbone: str) -> Mapping[str, str]:
    root = "cp.backbone."
    known = _stages_of_stdc(backbone, root) if backbone in _STDC_BLOCKS else {}
    return MappingProxyType(
        {
            **known,
            "cp.backbone": "backbone",
            "cp.arm16": "ARM",
            "cp.arm32": "ARM",
            "cp": "context path",
            "sp": "spatial path",
            "ffm": "FFM",
            "conv_out": "main head",
            "conv_out16": "auxiliary heads",
            "conv_out32": "auxiliary heads",
            "conv_out_sp8": "detail head",
            "(functional)": "upsampling",
            "(loss)": "loss",
        }
    )


_STAGES_OF_DISCRIMINATORS = MappingProxyType({"(functional)": "upsampling", "(loss)": "loss"})


def _stages_of_discriminator(*, separable: bool) -> Mapping[str, str]:
    steps = 4 if separable else 2
    # The last block of the separable form has no activations: two layers follow block 4.
    layers = {f"conv_layers.{i}": f"block {min(i // steps, 4) + 1}" for i in range(4 * steps + 2)}
    return MappingProxyType(
        {**layers, "conv_layers": "between layers", **_STAGES_OF_DISCRIMINATORS}
    )


def _stages_of_light(layers: int) -> Mapping[str, str]:
    blocks = {f"conv{number}": f"block {number}" for number in range(1, layers)}
    last = {"classifier": f"block {layers}", "leaky_relu": "between layers"}
    return MappingProxyType({**blocks, **last, **_STAGES_OF_DISCRIMINATORS})


def _segmenter(name: str, *, summary: str, source: str, **options: object) -> ModelSpec:
    detail = () if options.get("spatial_path") else ("detail",)
    return ModelSpec(
        name=name,
        family="segmenter",
        builder="dabench_models.bisenet:bisenet",
        options=MappingProxyType(options),
        outputs=("main", "aux16", "aux32", *detail),
        # Its global-context branch normalises one value per channel and image.
        min_train_batch=2,
        stages=_stages_of_bisenet(str(options["backbone"])),
        summary=summary,
        source=source,
    )


def _discriminator(name: str, builder: str, *, summary: str, **options: object) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="discriminator",
        builder=f"dabench_models.discriminators:{builder}",
        options=MappingProxyType(options),
        channels=19,
        # The paper writes (19, 1024, 512): height 1024, width 512.
        height=1024,
        width=512,
        size_multiple=32,
        stages=_stages_of_discriminator(separable=builder != "standard"),
        summary=summary,
        source=DABENCH_PAPER,
    )


def _light_discriminator(name: str, builder: str, layers: int, *, summary: str) -> ModelSpec:
    plain = _discriminator(name, builder, summary=summary)
    return replace(
        plain, size_multiple=2**layers, stages=_stages_of_light(layers), source=RTDA_PAPER
    )


def _classifier(name: str, *, summary: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="classifier",
        builder="dabench_models.stdc:stdc_classifier",
        options=MappingProxyType({"arch": name}),
        height=224,
        width=224,
        num_classes=1000,
        stages=MappingProxyType(_stages_of_stdc(name, "")),
        summary=summary,
        source=STDC_PAPER,
    )


_SPECS = (
    _segmenter(
        "stdc1-bisenet",
        summary="STDC1 backbone, detail guidance in place of a spatial path",
        source=STDC_PAPER,
        backbone="stdc1",
    ),
    _segmenter(
        "stdc2-bisenet",
        summary="STDC2 backbone, detail guidance in place of a spatial path",
        source=STDC_PAPER,
        backbone="stdc2",
    ),
    _segmenter(
        "stdc1-bisenet-sp",
        summary="STDC1 as context path beside BiSeNet's spatial path",
        source=f"{DABENCH_PAPER}, section III.B",
        backbone="stdc1",
        spatial_path=True,
    ),
    _segmenter(
        "stdc2-bisenet-sp",
        summary="STDC2 as context path beside BiSeNet's spatial path",
        source=f"{DABENCH_PAPER}, section III.B",
        backbone="stdc2",
        spatial_path=True,
    ),
    _segmenter(
        "bisenet-r18",
        summary="BiSeNet on ResNet-18",
        source=BISENET_PAPER,
        backbone="resnet18",
        spatial_path=True,
    ),
    _discriminator("disc", "standard", summary="five plain 4x4 stride-2 convolutions"),
    _discriminator("dw-disc", "depthwise", summary="depthwise separable, with biases"),
    _discriminator(
        "diag-disc",
        "diagonalwise",
        summary="depthwise as masked grouped convolution, as published: no biases",
    ),
    _discriminator(
        "diag-disc-bias",
        "diagonalwise",
        summary="diag-disc with biases: the same function as dw-disc",
        bias=True,
    ),
    _light_discriminator(
        "light-disc", "light", 5, summary="RTDA's: depthwise separable, nothing between the halves"
    ),
    _light_discriminator(
        "light2-disc", "light2", 3, summary="RTDA's smallest: three layers, not upsampled"
    ),
    _classifier("stdc1", summary="STDC1 ImageNet classifier"),
    _classifier("stdc2", summary="STDC2 ImageNet classifier"),
)

MODELS: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
"""Every network by name."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "stdc1-seg": "stdc1-bisenet",
        "stdc2-seg": "stdc2-bisenet",
        "bisenet": "bisenet-r18",
        "standard": "disc",
        "depthwise": "dw-disc",
        "diagonalwise": "diag-disc",
    }
)
"""Short or habitual names for those in `MODELS`."""


def resolve(name: str) -> ModelSpec:
    """Looks a model up by name or alias.

    Raises:
        UnknownModelError: The name is neither; the message names the nearest
            one and lists all.
    """
    key = ALIASES.get(name, name)
    if key in MODELS:
        return MODELS[key]
    near = difflib.get_close_matches(name, [*MODELS, *ALIASES], n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    raise UnknownModelError(f"unknown model {name!r};{hint} choices: {', '.join(MODELS)}")


def build(name: str, num_classes: int | None = None, **options: object) -> nn.Module:
    """Builds a network with its own initialisation, in training mode.

    Args:
        name: A name or alias of the registry.
        num_classes: Classes; for a discriminator its input channels. The
            spec's default if None.
        **options: Passed to the builder over the spec's own options, for
            example ``bias=True`` for ``diag-disc``.

    Returns:
        The network, on the CPU (or torch's default device).

    Raises:
        UnknownModelError: The name is neither a name nor an alias.
        TypeError: An option that the builder does not take.
    """
    spec = resolve(name)
    module, function = spec.builder.split(":")
    builder = getattr(importlib.import_module(module), function)
    classes = spec.num_classes if num_classes is None else num_classes
    return cast("nn.Module", builder(num_classes=classes, **{**spec.options, **options}))
