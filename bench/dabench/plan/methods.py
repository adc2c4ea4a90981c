"""The methods of adaptation by name: a plain dict of frozen facts, readable without torch.

A method is training on labelled source images and what it adds to it. Methods that add
different things combine: ``self-training+fda``. How to add one: CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dabench.base.errors import bad_value, check_choice

Kind = Literal["base", "adversary", "addition", "statistics"]

OPTION = "--method"
PLUS = "+"
BASE = "augment"
"""What methods add to unless another base is named with them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """What a method does with source and target.

    Attributes:
        name: As it is typed.
        kind: A name joins at most one ``base``, one ``adversary`` and one kind of
            ``statistics`` of batch norm, and any number of ``addition``.
        parts: ``module:function`` below `dabench.training.methods` that makes what it adds to
            a training step. Strings, so that the methods can be read without torch.
        summary: One line for a person.
        source: Where it was published.
        settings: Fields of `dabench.training.config.TrainConfig` that are its own; their
            defaults are the published ones, or what the field says of them.
        augments: Whether training frames are augmented.
        needs_target: Whether training uses target images without labels in any way.
        sees_target: Whether they, or what is made of them, pass through the segmenter in
            training.
        learns_target: Whether what passes then trains the segmenter.
        judged: Whether a discriminator is trained with it.
        fools: Whether it trains the segmenter against a discriminator.
        taught: Whether a mean teacher labels target images.
        on_target: Whether training uses the target's own labels.
        own_norms: Whether the target has batch norms of its own.
        recomputes: Whether batch norm's statistics are recomputed on target images after
            training.
    """

    name: str
    kind: Kind
    parts: tuple[str, ...] = ()
    summary: str
    source: str = ""
    settings: tuple[str, ...] = ()
    augments: bool = True
    needs_target: bool = False
    sees_target: bool = False
    learns_target: bool = False
    judged: bool = False
    fools: bool = False
    taught: bool = False
    on_target: bool = False
    own_norms: bool = False
    recomputes: bool = False


def _adversary(
    name: str, part: str, *settings: str, summary: str, source: str = "", fools: bool = True
) -> Method:
    """A method with a discriminator, which the segmenter is trained against or not."""
    return Method(
        name=name, kind="adversary", parts=(f"adversarial:{part}",), summary=summary,
        source=source, settings=settings, needs_target=True, sees_target=True,
        learns_target=fools, judged=True, fools=fools,
    )  # fmt: skip


def _addition(
    name: str, module: str, *settings: str, summary: str, source: str, taught: bool = False
) -> Method:
    """A method whose loss is on what passes of the target."""
    return Method(
        name=name, kind="addition", parts=(f"{module}:part",), summary=summary, source=source,
        settings=settings, needs_target=True, sees_target=True, learns_target=True, taught=taught,
    )  # fmt: skip


_ALL = (
    Method(
        name="source-only",
        kind="base",
        summary="labelled source images as they are",
        augments=False,
    ),
    Method(name="augment", kind="base", summary="labelled source images, augmented"),
    Method(
        name="target",
        kind="base",
        summary="the target's own labels, the upper bound",
        on_target=True,
    ),
    _adversary(
        "adversarial", "adversarial", "adversarial_weight", "disc_input", "disc_lr",
        summary="a discriminator on softmax maps, fooled by the segmenter",
        source="Tsai et al., CVPR 2018 (AdaptSegNet, single level)",
    ),
    _adversary(
        "control", "control", "disc_input", "disc_lr",
        summary="the adversarial path with lambda = 0", fools=False,
    ),
    _adversary(
        "advent", "advent", "adversarial_weight", "disc_lr",
        summary="adversarial on weighted self-information",
        source="Vu et al., CVPR 2019 (AdvEnt)",
    ),
    _adversary(
        "multi-level", "multi_level", "adversarial_weight", "aux_weight", "disc_input", "disc_lr",
        summary="adversarial at two heads, each with a discriminator",
        source="Tsai et al., CVPR 2018 (AdaptSegNet, multi-level)",
    ),
    _addition(
        "minent", "minent", "entropy_weight",
        summary="low entropy of target predictions",
        source="Vu et al., CVPR 2019 (MinEnt)",
    ),
    _addition(
        "self-training", "self_training", "teacher_momentum", "confidence",
        summary="a mean teacher's labels, classes of the source pasted in",
        source="Tranheden et al., WACV 2021 (DACS)", taught=True,
    ),
    _addition(
        "mic", "mic", "teacher_momentum", "confidence", "mask_ratio", "mask_block",
        summary="a mean teacher's labels for masked images",
        source="Hoyer et al., CVPR 2023 (MIC)", taught=True,
    ),
    Method(
        name="fda",
        kind="addition",
        parts=("fda:part",),
        summary="source images with low frequencies of the target's",
        source="Yang and Soatto, CVPR 2020 (FDA)",
        settings=("fda_beta",),
        needs_target=True,
    ),
    Method(
        name="dsbn",
        kind="statistics",
        summary="batch norms of its own for the target",
        source="Chang et al., CVPR 2019 (DSBN)",
        needs_target=True,
        own_norms=True,
    ),
    Method(
        name="adabn",
        kind="statistics",
        summary="batch norm's statistics recomputed on target images after training",
        source="Li et al., 2016 (AdaBN)",
        needs_target=True,
        recomputes=True,
    ),
)  # fmt: skip

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})
"""Every method by name, in the order in which a combination names them."""


_ANY = (
    "needs_target", "sees_target", "learns_target", "judged", "fools", "taught", "on_target",
    "own_norms", "recomputes",
)  # fmt: skip
"""What holds for a combination as soon as it holds for one method of it."""


def method_of(text: str, option: str = OPTION) -> Method:
    """Reads ``advent``, or a combination such as ``self-training+fda``.

    Args:
        text: As it was typed.
        option: Where, for what is said of it.

    Returns:
        The method; a combination is one, too, named in the order of `METHODS`.

    Raises:
        UsageError: An unknown name, or methods that do not go together.
    """
    names = [name.strip() for name in text.split(PLUS)]
    for name in names:
        check_choice(option, name, METHODS)
    chosen = [method for method in METHODS.values() if method.name in names]
    if len(chosen) < len(names):
        raise bad_value(option, text, "each method once")
    for kind in ("base", "adversary", "statistics"):
        of_kind = [method.name for method in chosen if method.kind == kind]
        if len(of_kind) > 1:
            raise bad_value(option, text, f"{' and '.join(of_kind)} exclude each other")
    if len(chosen) > 1:
        # It is what the others add to.
        chosen = [method for method in chosen if method.name != BASE]
    joined = chosen[0] if len(chosen) == 1 else _joined(chosen)
    if joined.on_target and not all(each.on_target or each.recomputes for each in chosen):
        raise bad_value(option, text, "'target' has the target's labels; it combines with adabn")
    if joined.own_norms and not joined.learns_target:
        # Their scale and shift would stay what they began as.
        passing = [method.name for method in METHODS.values() if method.learns_target]
        raise bad_value(option, text, f"'dsbn' goes with one of {', '.join(passing)}")
    return joined


def _joined(methods: Sequence[Method]) -> Method:
    flags = {flag: any(getattr(method, flag) for method in methods) for flag in _ANY}
    return Method(
        name=PLUS.join(method.name for method in methods),
        kind=methods[0].kind,
        parts=tuple(part for method in methods for part in method.parts),
        summary="; ".join(method.summary for method in methods),
        source="; ".join(method.source for method in methods if method.source),
        settings=tuple(dict.fromkeys(name for method in methods for name in method.settings)),
        augments=all(method.augments for method in methods),
        **flags,
    )


def without_recomputing(name: str) -> str:
    """The method whose trained weights serve one that only recomputes statistics after it."""
    rest = [part for part in name.split(PLUS) if not METHODS[part].recomputes]
    return PLUS.join(rest) or BASE


def label_of(name: str, disc: str) -> str:
    """A name for tables and folders: the method, with its discriminator if it has one."""
    return f"{name} {disc}" if method_of(name).judged else name
