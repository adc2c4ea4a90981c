"""Functional oracle for the published STDC-Seg networks and discriminators.

Nothing here is an ``nn.Module``: every network is a plain function of a state dict in the
published format, so a test can feed the same tensors to a module and to this file and compare.
Sources of the facts: MichaelFan01/STDC-Seg (``nets/stdcnet.py``, ``models/model_stages.py``),
Riden15/Real-time-Domain-Adaptation-in-Semantic-Segmentation (``model/discriminator.py``) and
taveraantonio/RTDA (``models/discriminator.py``).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Arch = Literal["stdc1", "stdc2"]
Kind = Literal["disc", "dw-disc", "diag-disc"]
Shape = tuple[int, ...]
Features = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

BN_EPS = 1e-5
LEAKY_SLOPE = 0.2
STEM = ((3, 32), (32, 64))
STAGE_WIDTHS = (256, 512, 1024)
STAGE_DEPTHS: dict[Arch, Shape] = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
ALIASES = ("x2", "x4", "x8", "x16", "x32")
BACKBONE_PREFIX = "cp.backbone."
CONTEXT_WIDTH = 128
BUFFER_SUFFIXES = ("running_mean", "running_var", "num_batches_tracked", "mask")
DISC_WIDTHS = (64, 128, 256, 512, 1)
DISC_KERNEL = 4
LIGHT_WIDTHS: dict[str, Shape] = {"light-disc": DISC_WIDTHS, "light2-disc": (64, 128, 1)}


# Keys and shapes


def _bn_keys(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _conv_bn_keys(name: str, inputs: int, outputs: int, kernel: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv.weight", (outputs, inputs, kernel, kernel)
    yield from _bn_keys(f"{name}.bn", outputs)


def _block_keys(name: str, inputs: int, width: int, stride: int) -> Iterator[tuple[str, Shape]]:
    half, quarter, eighth = width // 2, width // 4, width // 8
    chain = ((inputs, half, 1), (half, quarter, 3), (quarter, eighth, 3), (eighth, eighth, 3))
    for j, (source, target, kernel) in enumerate(chain):
        yield from _conv_bn_keys(f"{name}.conv_list.{j}", source, target, kernel)
    if stride == 2:
        yield f"{name}.avd_layer.0.weight", (half, 1, 3, 3)
        yield from _bn_keys(f"{name}.avd_layer.1", half)


def _stage_slices(arch: Arch) -> list[range]:
    """The positions in ``features`` that make up each of the five output scales."""
    slices = [range(i, i + 1) for i in range(len(STEM))]
    for depth in STAGE_DEPTHS[arch]:
        start = slices[-1].stop
        slices.append(range(start, start + depth))
    return slices


def stdc_classifier_keys(arch: Arch) -> dict[str, Shape]:
    """Every key and shape of the published backbone checkpoint, alias keys left out."""
    keys: dict[str, Shape] = {}
    for i, (inputs, outputs) in enumerate(STEM):
        keys.update(_conv_bn_keys(f"features.{i}", inputs, outputs, 3))
    inputs = STEM[-1][1]
    for width, positions in zip(STAGE_WIDTHS, _stage_slices(arch)[len(STEM) :], strict=True):
        for i in positions:
            stride = 2 if i == positions.start else 1
            keys.update(_block_keys(f"features.{i}", inputs, width, stride))
            inputs = width
    keys.update(_conv_bn_keys("conv_last", inputs, 1024, 1))
    keys["fc.weight"] = (1024, 1024)
    keys.update(_bn_keys("bn", 1024))
    keys["linear.weight"] = (1000, 1024)
    return keys


def _head_keys(name: str, inputs: int, mid: int, classes: int) -> Iterator[tuple[str, Shape]]:
    yield from _conv_bn_keys(f"{name}.conv", inputs, mid, 3)
    yield f"{name}.conv_out.weight", (classes, mid, 1, 1)


def _arm_keys(name: str, inputs: int) -> Iterator[tuple[str, Shape]]:
    yield from _conv_bn_keys(f"{name}.conv", inputs, CONTEXT_WIDTH, 3)
    yield f"{name}.conv_atten.weight", (CONTEXT_WIDTH, CONTEXT_WIDTH, 1, 1)
    yield from _bn_keys(f"{name}.bn_atten", CONTEXT_WIDTH)


def segmenter_keys(arch: Arch, num_classes: int = 19) -> dict[str, Shape]:
    """Every key and shape of the published segmentation checkpoint, alias keys left out."""
    wide8, wide16, wide32 = STAGE_WIDTHS
    keys = {BACKBONE_PREFIX + key: shape for key, shape in stdc_classifier_keys(arch).items()}
    keys.update(_arm_keys("cp.arm16", wide16))
    keys.update(_arm_keys("cp.arm32", wide32))
    keys.update(_conv_bn_keys("cp.conv_head32", CONTEXT_WIDTH, CONTEXT_WIDTH, 3))
    keys.update(_conv_bn_keys("cp.conv_head16", CONTEXT_WIDTH, CONTEXT_WIDTH, 3))
    keys.update(_conv_bn_keys("cp.conv_avg", wide32, CONTEXT_WIDTH, 1))
    keys.update(_conv_bn_keys("ffm.convblk", wide8 + CONTEXT_WIDTH, 256, 1))
    keys["ffm.conv1.weight"] = (64, 256, 1, 1)
    keys["ffm.conv2.weight"] = (256, 64, 1, 1)
    keys.update(_head_keys("conv_out", 256, 256, num_classes))
    keys.update(_head_keys("conv_out16", CONTEXT_WIDTH, 64, num_classes))
    keys.update(_head_keys("conv_out32", CONTEXT_WIDTH, 64, num_classes))
    keys.update(_head_keys("conv_out_sp16", wide16, 64, 1))
    keys.update(_head_keys("conv_out_sp8", wide8, 64, 1))
    keys.update(_head_keys("conv_out_sp4", STEM[1][1], 64, 1))
    keys.update(_head_keys("conv_out_sp2", STEM[0][1], 64, 1))
    return keys


def _diag_groups(channels: int) -> int:
    groups = max(channels // 32, 1)
    if channels % groups:
        raise ValueError(f"{channels} channels do not split into {groups} groups")
    return groups


def discriminator_keys(kind: Kind, channels: int = 19) -> dict[str, Shape]:
    """Every key and shape of a discriminator checkpoint.

    Positions count the activations too: a plain layer takes two places of the sequence (conv,
    LeakyReLU), a separable one four (depthwise, LeakyReLU, pointwise, LeakyReLU), and the last
    layer has no activation at all, so its two convolutions are neighbours.
    """
    keys: dict[str, Shape] = {}
    inputs = channels
    for layer, outputs in enumerate(DISC_WIDTHS):
        if kind == "disc":
            name = f"conv_layers.{2 * layer}"
            keys[f"{name}.weight"] = (outputs, inputs, DISC_KERNEL, DISC_KERNEL)
            keys[f"{name}.bias"] = (outputs,)
        else:
            depthwise, pointwise = _separable_names(layer)
            if kind == "dw-disc":
                keys[f"{depthwise}.weight"] = (inputs, 1, DISC_KERNEL, DISC_KERNEL)
                keys[f"{depthwise}.bias"] = (inputs,)
            else:
                shape = (inputs, inputs // _diag_groups(inputs), DISC_KERNEL, DISC_KERNEL)
                keys[f"{depthwise}.mask"] = shape
                keys[f"{depthwise}.weight"] = shape
            keys[f"{pointwise}.weight"] = (outputs, inputs, 1, 1)
            if kind == "dw-disc":
                keys[f"{pointwise}.bias"] = (outputs,)
        inputs = outputs
    return keys


def _light_names(kind: str) -> list[str]:
    inner = [f"conv{number + 1}" for number in range(len(LIGHT_WIDTHS[kind]) - 1)]
    return [*inner, "classifier"]


def light_discriminator_keys(kind: str, channels: int = 19) -> dict[str, Shape]:
    """Every key and shape of a checkpoint of RTDA's light discriminators."""
    keys: dict[str, Shape] = {}
    inputs = channels
    for name, outputs in zip(_light_names(kind), LIGHT_WIDTHS[kind], strict=True):
        keys[f"{name}.depth_wise.weight"] = (inputs, 1, DISC_KERNEL, DISC_KERNEL)
        keys[f"{name}.depth_wise.bias"] = (inputs,)
        keys[f"{name}.point_wise.weight"] = (outputs, inputs, 1, 1)
        keys[f"{name}.point_wise.bias"] = (outputs,)
        inputs = outputs
    return keys


def light_discriminator(state: Mapping[str, Tensor], x: Tensor, kind: str) -> Tensor:
    """Run one of RTDA's light discriminators."""
    for name in _light_names(kind):
        weight = state[f"{name}.depth_wise.weight"]
        bias = state[f"{name}.depth_wise.bias"]
        x = F.conv2d(x, weight, bias, stride=2, padding=1, groups=len(weight))
        x = F.conv2d(x, state[f"{name}.point_wise.weight"], state[f"{name}.point_wise.bias"])
        if name != "classifier":
            x = F.leaky_relu(x, LEAKY_SLOPE)
    if kind == "light2-disc":
        return x
    return F.interpolate(x, scale_factor=32, mode="bilinear", align_corners=False)


def _separable_names(layer: int) -> tuple[str, str]:
    first = 4 * layer
    gap = 1 if layer == len(DISC_WIDTHS) - 1 else 2
    return f"conv_layers.{first}", f"conv_layers.{first + gap}"


def parameter_count(keys: Mapping[str, Shape]) -> int:
    """The number of trainable values: buffers and masks are not counted."""
    return sum(math.prod(s) for k, s in keys.items() if k.split(".")[-1] not in BUFFER_SUFFIXES)


# Values


def diagonal_mask(shape: Shape) -> Tensor:
    """The 0/1 mask keeping input channel ``c % per_group`` for each output channel ``c``."""
    outputs, per_group = shape[:2]
    kept = torch.arange(per_group)[None, :] == (torch.arange(outputs) % per_group)[:, None]
    return kept[:, :, None, None].expand(shape).float()


def random_state(keys: Mapping[str, Shape], seed: int) -> dict[str, Tensor]:
    """Draw a well scaled random state, so that deep networks keep finite, varied values.

    Args:
        keys: Key to shape, as the ``*_keys`` functions give it.
        seed: Seed of the only generator used.

    Returns:
        He-scaled weights, batch-norm weights and variances around 1, small means and biases.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in keys.items():
        owner, leaf = key.rsplit(".", 1)
        if leaf == "num_batches_tracked":
            state[key] = torch.randint(1, 1000, shape, generator=generator, dtype=torch.int64)
        elif leaf == "mask":
            state[key] = diagonal_mask(shape)
        elif leaf == "running_var":
            state[key] = 0.5 + torch.rand(shape, generator=generator)
        elif leaf == "weight" and len(shape) > 1:
            fan_in = math.prod(shape[2:] if f"{owner}.mask" in keys else shape[1:])
            state[key] = torch.randn(shape, generator=generator) * math.sqrt(2 / fan_in)
        else:
            offset = 1.0 if leaf == "weight" else 0.0
            state[key] = offset + 0.1 * torch.randn(shape, generator=generator)
    return state


def with_aliases(state: Mapping[str, Tensor], arch: Arch) -> dict[str, Tensor]:
    """Add the alias keys of the published checkpoints, sharing the same tensors.

    A backbone keeps a slice of ``features`` inside a one-entry sequence, and a sliced sequence
    keeps its names: ``features.5.*`` of STDC1 is ``x16.0.5.*`` as well.

    Args:
        state: A backbone's state (``features...``) or a segmenter's (``cp.backbone...``).
        arch: Which of the two backbones it is.

    Returns:
        A new dict with the given entries followed by the aliases.
    """
    scale_of = {
        i: alias
        for alias, positions in zip(ALIASES, _stage_slices(arch), strict=True)
        for i in positions
    }
    full = dict(state)
    for key, value in state.items():
        prefix = BACKBONE_PREFIX if key.startswith(BACKBONE_PREFIX) else ""
        local = key.removeprefix(prefix)
        if local.startswith("features."):
            rest = local.removeprefix("features.")
            alias = scale_of[int(rest.split(".", 1)[0])]
            full[f"{prefix}{alias}.0.{rest}"] = value
    return full


# Forward passes


def _batch_norm(state: Mapping[str, Tensor], name: str, x: Tensor, train: bool) -> Tensor:
    # With no running statistics passed, batch statistics are used and the state stays untouched.
    mean = None if train else state[f"{name}.running_mean"]
    var = None if train else state[f"{name}.running_var"]
    scale, shift = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.batch_norm(x, mean, var, scale, shift, training=train, eps=BN_EPS)


def _conv_bn_relu(
    state: Mapping[str, Tensor], name: str, x: Tensor, train: bool, stride: int = 1
) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    # In place as in the published backbone; elsewhere it can only favour the published network.
    return F.relu(_batch_norm(state, f"{name}.bn", x, train), inplace=True)


def _global_mean(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return F.avg_pool2d(x, (height, width))


def _resize_like(x: Tensor, reference: Tensor) -> Tensor:
    height, width = reference.shape[-2:]
    return F.interpolate(x, size=(height, width), mode="nearest")


def _stdc_block(
    state: Mapping[str, Tensor], name: str, x: Tensor, stride: int, train: bool
) -> Tensor:
    first = _conv_bn_relu(state, f"{name}.conv_list.0", x, train)
    kept, chain = first, first
    if stride == 2:
        kept = F.avg_pool2d(first, kernel_size=3, stride=2, padding=1)
        weight = state[f"{name}.avd_layer.0.weight"]
        chain = F.conv2d(first, weight, stride=2, padding=1, groups=weight.shape[0])
        chain = _batch_norm(state, f"{name}.avd_layer.1", chain, train)
    pieces = [kept]
    for j in (1, 2, 3):
        chain = _conv_bn_relu(state, f"{name}.conv_list.{j}", chain, train)
        pieces.append(chain)
    return torch.cat(pieces, dim=1)


def stdc_backbone(
    state: Mapping[str, Tensor], x: Tensor, arch: Arch, prefix: str = "", train: bool = False
) -> Features:
    """Run the STDC backbone.

    Args:
        state: Published-format state.
        x: Images, NCHW with three channels.
        arch: Which of the two backbones.
        prefix: What stands before ``features``, the dot included (``cp.backbone.``).
        train: Use batch statistics; the running ones are neither read nor changed.

    Returns:
        The features at 1/2, 1/4, 1/8, 1/16 and 1/32.
    """
    outputs: list[Tensor] = []
    for positions in _stage_slices(arch):
        for i in positions:
            name = f"{prefix}features.{i}"
            if i < len(STEM):
                x = _conv_bn_relu(state, name, x, train, stride=2)
            else:
                x = _stdc_block(state, name, x, 2 if i == positions.start else 1, train)
        outputs.append(x)
    half, quarter, eighth, sixteenth, last = outputs
    return half, quarter, eighth, sixteenth, last


def stdc_classifier(state: Mapping[str, Tensor], x: Tensor, arch: Arch) -> Tensor:
    """Class logits of the ImageNet network in eval mode; ``bn`` is in the state but unused."""
    x = _conv_bn_relu(state, "conv_last", stdc_backbone(state, x, arch)[-1], train=False)
    x = _global_mean(x.square()).flatten(1)
    return F.linear(F.relu(F.linear(x, state["fc.weight"])), state["linear.weight"])


def _arm(state: Mapping[str, Tensor], name: str, x: Tensor, train: bool) -> Tensor:
    x = _conv_bn_relu(state, f"{name}.conv", x, train)
    gate = F.conv2d(_global_mean(x), state[f"{name}.conv_atten.weight"])
    return x * torch.sigmoid(_batch_norm(state, f"{name}.bn_atten", gate, train))


def _ffm(state: Mapping[str, Tensor], spatial: Tensor, context: Tensor, train: bool) -> Tensor:
    fused = _conv_bn_relu(state, "ffm.convblk", torch.cat((spatial, context), dim=1), train)
    gate = F.relu(F.conv2d(_global_mean(fused), state["ffm.conv1.weight"]))
    gate = torch.sigmoid(F.conv2d(gate, state["ffm.conv2.weight"]))
    return fused * gate + fused


def _head(state: Mapping[str, Tensor], name: str, x: Tensor, train: bool) -> Tensor:
    x = _conv_bn_relu(state, f"{name}.conv", x, train)
    return F.conv2d(x, state[f"{name}.conv_out.weight"])


def segmenter(
    state: Mapping[str, Tensor], x: Tensor, arch: Arch, train: bool = False
) -> dict[str, Tensor]:
    """Run the STDC segmentation network.

    Args:
        state: Published-format state.
        x: Images, NCHW with three channels.
        arch: Which of the two backbones.
        train: Use batch statistics; at batch 1 the global branches then refuse their 1x1 maps.

    Returns:
        ``main``, ``aux16``, ``aux32`` at the input size and ``detail`` at 1/8.
    """
    features = stdc_backbone(state, x, arch, BACKBONE_PREFIX, train)
    return _segmenter_heads(state, features, (x.shape[-2], x.shape[-1]), train)


def _segmenter_heads(
    state: Mapping[str, Tensor], features: Features, size: tuple[int, int], train: bool
) -> dict[str, Tensor]:
    _, _, f8, f16, f32 = features
    context = _conv_bn_relu(state, "cp.conv_avg", _global_mean(f32), train)
    context = _arm(state, "cp.arm32", f32, train) + _resize_like(context, f32)
    cp16 = _conv_bn_relu(state, "cp.conv_head32", _resize_like(context, f16), train)
    context = _arm(state, "cp.arm16", f16, train) + cp16
    cp8 = _conv_bn_relu(state, "cp.conv_head16", _resize_like(context, f8), train)

    sources = {
        "main": ("conv_out", _ffm(state, f8, cp8, train)),
        "aux16": ("conv_out16", cp8),
        "aux32": ("conv_out32", cp16),
    }
    outputs = {
        label: F.interpolate(
            _head(state, name, source, train), size=size, mode="bilinear", align_corners=True
        )
        for label, (name, source) in sources.items()
    }
    outputs["detail"] = _head(state, "conv_out_sp8", f8, train)
    return outputs


def discriminator(state: Mapping[str, Tensor], x: Tensor, kind: Kind) -> Tensor:
    """Run a discriminator: one logit per pixel, at 32 times the floored 1/32 size."""
    last = len(DISC_WIDTHS) - 1
    for layer in range(len(DISC_WIDTHS)):
        if kind == "disc":
            name = f"conv_layers.{2 * layer}"
            x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
        else:
            depthwise, pointwise = _separable_names(layer)
            weight = state[f"{depthwise}.weight"]
            if kind == "diag-disc":
                weight = weight * diagonal_mask(tuple(weight.shape)).to(weight)
            groups = weight.shape[0] // weight.shape[1]
            bias = state.get(f"{depthwise}.bias")
            x = F.conv2d(x, weight, bias, stride=2, padding=1, groups=groups)
            if layer != last:
                x = F.leaky_relu(x, LEAKY_SLOPE)
            x = F.conv2d(x, state[f"{pointwise}.weight"], state.get(f"{pointwise}.bias"))
        if layer != last:
            x = F.leaky_relu(x, LEAKY_SLOPE)
    return F.interpolate(x, scale_factor=32, mode="bilinear", align_corners=False)


def segmenter_all_heads(state: Mapping[str, Tensor], x: Tensor, arch: Arch) -> list[Tensor]:
    """Everything STDC-Seg's forward computes in eval: its four detail heads included.

    The published forward evaluates ``conv_out_sp2``, ``sp4``, ``sp8`` and ``sp16`` on every call,
    whichever of them it then returns.
    """
    features = stdc_backbone(state, x, arch, prefix=BACKBONE_PREFIX)
    heads = _segmenter_heads(state, features, (x.shape[-2], x.shape[-1]), False)
    details = [
        _head(state, f"conv_out_sp{stride}", feature, False)
        for stride, feature in zip((2, 4, 16), (features[0], features[1], features[3]), strict=True)
    ]
    return [*heads.values(), *details]
