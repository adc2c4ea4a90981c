"""A second opinion on operation counts: fvcore's, with what explains each difference.

fvcore traces with torch.jit, which torch is retiring, and sees operators before
they are decomposed; `dabench.counting.operators` sees what is dispatched. This
module is all that knows fvcore.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from dabench.counting.counted import ModelCount
from dabench.network.tensors import FlatOutputs, input_dtype

GROUPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Name -> operators of ours (prefixes) and of fvcore's.
    "convolutions": (("convolution", "_convolution", "deform_conv2d"), ("conv",)),
    "matrix products": (
        ("mm", "addmm", "_addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear",
         "mkldnn_linear", "_scaled_dot_product", "_native_multi_head", "_transformer_encoder",
         "mkldnn_rnn", "_trilinear"),
        ("linear", "addmm", "matmul", "bmm", "baddbmm", "mm", "einsum", "mv", "dot"),
    ),
    "normalisation": (
        ("native_batch_norm", "_native_batch_norm", "native_layer_norm", "native_group_norm"),
        ("batch_norm", "layer_norm", "group_norm", "instance_norm"),
    ),
    "upsampling": (("upsample", "_upsample", "grid_sampler"), ("upsample", "grid_sampler")),
    "averages": (("avg_pool", "_adaptive_avg_pool", "mean"), ("adaptive_avg_pool",)),
}  # fmt: skip
REST = "everything else"

# What fvcore has no rule for, whatever the network.
_NO_RULE = {"averages": "fvcore has no rule for average pooling over windows, nor for means"}


@dataclass(frozen=True, slots=True)
class Agreement:
    """One group of operators, executed multiply-adds of the forward.

    Attributes:
        why: What explains a difference; empty where there is none.
    """

    group: str
    ours: int
    theirs: int
    why: str


def cross_check(network: nn.Module, count: ModelCount) -> list[Agreement]:
    """Compares a network's counts with fvcore's.

    Args:
        network: The one that was counted; put into the same mode.
        count: Of a batch that the network takes.

    Raises:
        RuntimeError: fvcore cannot trace it.
    """
    theirs, unsupported = _fvcore(network, count)
    own_rules = _own_rules(network, count, theirs)
    found = []
    for group in (*GROUPS, REST):
        ours_here = sum(n for name, n in count.by_operator.items() if _group(name, 0) == group)
        theirs_here = sum(n for name, n in theirs.items() if _group(name, 1) == group)
        if ours_here or theirs_here:
            difference = ours_here - theirs_here
            why = ""
            if difference:
                reasons = _reasons(group, unsupported) or own_rules[group]
                why = "; ".join(reasons) or _perhaps(difference, unsupported, count)
            found.append(Agreement(group, ours_here, theirs_here, why))
    return found


def _fvcore(network: nn.Module, count: ModelCount) -> tuple[dict[str, int], dict[str, int]]:
    """Multiply-adds by operator, and calls that fvcore does not count."""
    with warnings.catch_warnings(), torch.no_grad():
        # torch.jit announces its retirement on import and at every trace.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        network.train(count.mode == "train")
        x = torch.randn(count.batch, count.channels, count.height, count.width)
        analysis = FlopCountAnalysis(FlatOutputs(network), (x.to(input_dtype(network)),))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        found = {str(name): int(macs) for name, macs in analysis.by_operator().items()}
        unsupported = {str(name): int(n) for name, n in analysis.unsupported_ops().items()}
    return found, unsupported


def _group(name: str, side: int) -> str:
    for group, names in GROUPS.items():
        if name.startswith(names[side]):
            return group
    return REST


def _own_rules(
    network: nn.Module, count: ModelCount, theirs: Mapping[str, int]
) -> dict[str, list[str]]:
    """Group -> where fvcore's rules, or what it takes for one operator, are not dabench's."""
    found: dict[str, list[str]] = defaultdict(list)
    products = found["matrix products"]
    if "einsum" in theirs:
        products.append("fvcore takes numpy's estimate of an einsum that is no product of two")
    if any(each.is_complex() for each in network.parameters()):
        products.append("fvcore counts a product of complex numbers as one")
    if "grid_sampler" in theirs:
        found["upsampling"].append("fvcore counts each grid sampling as a bilinear one")
    if "_transformer_encoder_layer_fwd" in count.by_operator:
        found["normalisation"].append(
            "dabench has those within an encoder's layer among its products, fvcore here"
        )
    return found


def _reasons(group: str, unsupported: Mapping[str, int]) -> list[str]:
    """What of a group fvcore does not see or has no rule for."""
    missing = [
        f"{name.removeprefix('aten::')} x{n}"
        for name, n in unsupported.items()
        if any(word in name for word in _WORDS.get(group, ()))
    ]
    if missing:
        return [f"fvcore does not count {', '.join(missing)}"]
    return [_NO_RULE[group]] if group in _NO_RULE else []


def _perhaps(difference: int, unsupported: Mapping[str, int], count: ModelCount) -> str:
    """What may explain a difference that no operator explains."""
    if 0 < difference <= count.dropped_macs:
        dropped = f"{count.dropped_macs:,}"
        return f"fvcore's trace leaves out what the network computes and drops ({dropped})"
    functions = [name for name in unsupported if "PythonOp" in name]
    if difference > 0 and functions:
        names = ", ".join(name.rpartition(".")[2] for name in functions)
        return f"fvcore does not look into functions of autograd, which may hold it: {names}"
    return "unexplained"


_WORDS: Mapping[str, tuple[str, ...]] = {
    "convolutions": ("conv",),
    "matrix products": (
        "scaled_dot_product", "multi_head", "transformer", "lstm", "gru", "rnn", "bilinear",
        "addbmm", "mv", "tensordot", "multi_dot", "vdot",
    ),
    "normalisation": ("norm",),
    "upsampling": ("upsample", "grid_sampl"),
    "averages": ("avg_pool", "mean"),
    REST: ("affine_grid", "norm", "std", "var"),
}  # fmt: skip
