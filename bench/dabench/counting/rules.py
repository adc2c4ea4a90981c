"""One table: the multiply-adds of each operator, forward and backward.

Operators are those that torch dispatches below autograd, so the backward of a
layer is rows of its own: a convolution's asks for the gradients of its input
and its weight one by one, and each costs as much as the forward. What is
proportional to the batch follows from the shapes; nothing here needs to know.

Definitions are fvcore's where it has one: normalisation costs 5 per element
where statistics are computed and 2 where they are given (1 less without a
scale), upsampling as many as the points it mixes, averages one per element
averaged. Activation functions, additions and multiplications of maps, softmax,
maxima, copies and whatever only moves data cost none. Numbers are real ones: a product of two
complex ones is four; a convolution of complex ones is what torch makes of it, three of real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

Arguments = Mapping[str, Any]
Rule = Callable[[Arguments, Sequence[Tensor]], int]
"""Multiply-adds from an operator's arguments, by the names of its schema, and its outputs."""


def macs_of(name: str, arguments: Arguments, outputs: Sequence[Tensor]) -> int | None:
    """Multiply-adds of one call; None where no rule says."""
    rule = RULES.get(name)
    if rule is None:
        return None
    complex_ = any(isinstance(each, Tensor) and each.is_complex() for each in arguments.values())
    times = (4 if name in PRODUCTS else 2) if complex_ else 1
    return times * rule(arguments, outputs)


def reals(tensor: Tensor) -> int:
    """The real numbers that a tensor holds: two per complex one."""
    return tensor.numel() * (1 + tensor.is_complex())


def _convolution(a: Arguments, outputs: Sequence[Tensor]) -> int:
    # weight: (C_out, C_in / groups, k, ...), or (C_in, C_out / groups, k, ...) transposed.
    per_point = a["weight"][0].numel()
    points = a["input"].numel() if a["transposed"] else outputs[0].numel()
    return int(points * per_point)


def _convolution_backward(a: Arguments, _: Sequence[Tensor]) -> int:
    points = a["input"].numel() if a["transposed"] else a["grad_output"].numel()
    of_input, of_weight, _bias = a["output_mask"]
    return int(points * a["weight"][0].numel() * (of_input + of_weight))


def _product(left: str, right: str) -> Rule:
    """A matrix product (..., m, k) x (..., k, n): one per element of the left times n."""

    def rule(a: Arguments, _: Sequence[Tensor]) -> int:
        columns = a[right].shape[-1] if a[right].dim() > 1 else 1
        return int(a[left].numel() * columns)

    return rule


def _linear(a: Arguments, outputs: Sequence[Tensor]) -> int:
    # weight: (out, in).
    return int(outputs[0].numel() * a["weight"].shape[-1])


def _trilinear(a: Arguments, _: Sequence[Tensor]) -> int:
    """`nn.Bilinear` and its gradients: the sum over some dimensions of a product of three.

    Of the first two, summed over what the third does not have; then with the third.
    """
    operands = [(a[f"i{k}"], set(a[f"expand{k}"])) for k in (1, 2, 3)]
    sides: dict[int, int] = {}
    for tensor, expanded in operands:
        dimensions = (d for d in range(tensor.dim() + len(expanded)) if d not in expanded)
        sides |= zip(dimensions, tensor.shape, strict=True)
    in_both = operands[0][1] & operands[1][1]
    first = prod(side for dimension, side in sides.items() if dimension not in in_both)
    summed = set(a["sumdim"]) & operands[2][1]
    return int(first + prod(side for dimension, side in sides.items() if dimension not in summed))


def _attention(a: Arguments, outputs: Sequence[Tensor]) -> int:
    """Scores (L x S x E) and their product with the values (L x S x E_v), masked or not."""
    query, key, value = a["query"], a["key"], a["value"]
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return int(pairs * (query.shape[-1] + value.shape[-1]))


def _attention_backward(a: Arguments, outputs: Sequence[Tensor]) -> int:
    """Gradients of scores, query, key and value; and the scores, which are computed anew."""
    return 2 * _attention(a, outputs) + _scores(a)


def _attention_unneeded(a: Arguments, _: Sequence[Tensor]) -> int:
    """The scores computed anew, and the gradients of what does not learn."""
    query, key, value = (a[name].requires_grad for name in ("query", "key", "value"))
    values = _attention(a, ()) - _scores(a)
    of_scores = query or key
    unasked = _scores(a) * ((not query) + (not key)) + values * ((not value) + (not of_scores))
    return _scores(a) + unasked


def _scores(a: Arguments) -> int:
    query, key = a["query"], a["key"]
    return int(prod(query.shape) * key.shape[-2])


def unneeded_macs(name: str, arguments: Arguments) -> int:
    """Multiply-adds of one call that repeat what was computed, or whose result nobody asks for."""
    rule = UNNEEDED.get(name)
    return 0 if rule is None else rule(arguments, ())


def _heads(source: Tensor, embed_dim: int) -> int:
    """Multi-head attention of a source (N, L, E) on itself, its four projections included."""
    n, length, _ = source.shape
    return int(n * length * embed_dim * (4 * embed_dim + 2 * length))


def _multi_head_attention(a: Arguments, _: Sequence[Tensor]) -> int:
    """Torch's fast path: the projection of query, key and value, attention, the last projection."""
    query, key, embed = a["query"], a["key"], a["embed_dim"]
    n, length, _e = query.shape
    source = key.shape[1]
    return int(n * embed * (embed * 2 * (length + source) + 2 * length * source))


def _encoder_layer(a: Arguments, _: Sequence[Tensor]) -> int:
    """Torch's fast path of a transformer's encoder layer."""
    source = a["src"]
    feed_forward = prod(source.shape[:-1]) * a["ffn_weight_1"].numel() * 2
    return int(_heads(source, a["embed_dim"]) + feed_forward + 2 * 5 * source.numel())


def _recurrent_layer(of_input: str, of_state: str, times: int) -> Rule:
    """One direction of one layer of an LSTM or a GRU over all its time steps."""

    def rule(a: Arguments, _: Sequence[Tensor]) -> int:
        steps = a["input"].numel() // a["input"].shape[-1]
        return times * int(steps * (a[of_input].numel() + a[of_state].numel()))

    return rule


def _recurrent_layer_unneeded(a: Arguments, _: Sequence[Tensor]) -> int:
    """Gradients that oneDNN computes and nobody asked for; those of later states it needs."""
    steps = a["input"].numel() // a["input"].shape[-1]
    asked_for = ((a["input"], a["weight1"]), (a["weight1"],) * 2, (a["weight2"],) * 2)
    unasked = int(steps * sum(w.numel() for of, w in asked_for if not of.requires_grad))
    # Of the state before the first step, a start that nobody learns.
    first = a["hx_"].shape[0] * a["weight2"].numel()
    return unasked + int(first * (not a["hx_"].requires_grad))


def _deformable_convolution(a: Arguments, outputs: Sequence[Tensor]) -> int:
    """As its authors count it: the convolution; where its points lie is no part of the product."""
    return int(outputs[0].numel() * a["weight"][0].numel())


def _deformable_convolution_backward(a: Arguments, _: Sequence[Tensor]) -> int:
    """The gradients of its columns and of its weight, both always."""
    return 2 * _deformable_convolution(a, [a["grad"]])


def _deformable_convolution_unneeded(a: Arguments, _: Sequence[Tensor]) -> int:
    of_columns = any(a[name].requires_grad for name in ("input", "offset", "mask"))
    nobody = (not of_columns) + (not a["weight"].requires_grad)
    return nobody * _deformable_convolution(a, [a["grad"]])


def _norm(per_element: int, scale: str = "weight") -> Rule:
    def rule(a: Arguments, _: Sequence[Tensor]) -> int:
        return int(a["input"].numel() * (per_element - (a.get(scale) is None)))

    return rule


def _batch_norm(a: Arguments, outputs: Sequence[Tensor]) -> int:
    return _norm(5 if a.get("training", a.get("train", True)) else 2)(a, outputs)


def _norm_backward(a: Arguments, _: Sequence[Tensor]) -> int:
    """Sums of dy and of dy * x_hat (rebuilding x_hat), and their combination."""
    return 5 * int(a["input"].numel())


def _per_output(count: int) -> Rule:
    return lambda _, outputs: count * int(outputs[0].numel())


def _per_element(count: int, of: str = "self") -> Rule:
    return lambda a, _: count * int(a[of].numel())


def _pooling(a: Arguments, outputs: Sequence[Tensor]) -> int:
    """Average pooling: one addition per element under the kernel."""
    return _kernel(a) * int(outputs[0].numel())


def _pooling_backward(a: Arguments, _: Sequence[Tensor]) -> int:
    return _kernel(a) * int(a["grad_output"].numel())


def _kernel(a: Arguments) -> int:
    kernel = a["kernel_size"]
    sides = a["self"].dim() - 2
    return int(prod(kernel) if len(kernel) > 1 else kernel[0] ** sides)


def _vector_norm(power: str) -> Rule:
    """A power is added per element, but for those norms that only add, count or compare."""

    def rule(a: Arguments, _: Sequence[Tensor]) -> int:
        order = 2 if a[power] is None else abs(a[power])
        return int(a["self"].numel() * (order not in (0, 1, inf)))

    return rule


def _affine_grid(a: Arguments, outputs: Sequence[Tensor]) -> int:
    # theta: (N, 2, 3), or (N, 3, 4) of volumes.
    return int(outputs[0].numel() * a["theta"].shape[-1])


def _affine_grid_backward(a: Arguments, _: Sequence[Tensor]) -> int:
    return int(a["grad"].numel() * (a["grad"].shape[-1] + 1))


def _grid_sampling(a: Arguments, outputs: Sequence[Tensor]) -> int:
    """Bilinear: the corners of a cell; nearest: none; bicubic: 4 points per side."""
    sides = outputs[0].dim() - 2
    points = {0: 2**sides, 1: 0, 2: 4**sides}[a["interpolation_mode"]]
    return int(points * outputs[0].numel())


def _grid_sampling_backward(a: Arguments, _: Sequence[Tensor]) -> int:
    """The input's gradient at the points that were mixed, the grid's once per coordinate."""
    forward = _grid_sampling(a, [a["grad_output"]])
    of_input, of_grid = a["output_mask"]
    return int(forward * (of_input + (a["grad_output"].dim() - 2) * of_grid))


_UPSAMPLING = {
    "upsample_nearest1d": 1, "upsample_nearest2d": 1, "upsample_nearest3d": 1,
    "_upsample_nearest_exact1d": 1, "_upsample_nearest_exact2d": 1, "_upsample_nearest_exact3d": 1,
    "upsample_linear1d": 2, "upsample_bilinear2d": 4, "upsample_trilinear3d": 8,
    "upsample_bicubic2d": 16,
}  # fmt: skip
"""Points that each output mixes."""

_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip

_ATTENTION_BACKWARD = frozenset(f"{name}_backward" for name in _ATTENTION)

PRODUCTS = frozenset(
    {
        "convolution", "_convolution", "mm", "addmm", "_addmm_activation", "bmm", "baddbmm",
        "addbmm", "mv", "addmv", "dot", "vdot", "linear", "mkldnn_linear", "_trilinear",
        "deform_conv2d", "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
        "mkldnn_rnn_layer", *_ATTENTION,
    }
)  # fmt: skip
"""Operators whose outputs are activations in the sense of RegNet and fvcore."""

RULES: Mapping[str, Rule] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "mm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "_addmm_activation": _product("mat1", "mat2"),
    "bmm": _product("self", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    "addbmm": _product("batch1", "batch2"),
    "mv": _product("self", "vec"),
    "addmv": _product("mat", "vec"),
    "dot": _product("self", "tensor"),
    "vdot": _product("self", "other"),
    "linear": _linear,
    "mkldnn_linear": _linear,
    "_trilinear": _trilinear,
    **dict.fromkeys(_ATTENTION, _attention),
    **dict.fromkeys(_ATTENTION_BACKWARD, _attention_backward),
    "_native_multi_head_attention": _multi_head_attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "mkldnn_rnn_layer": _recurrent_layer("weight0", "weight1", 1),
    "mkldnn_rnn_layer_backward": _recurrent_layer("weight1", "weight2", 2),
    "deform_conv2d": _deformable_convolution,
    "_deform_conv2d_backward": _deformable_convolution_backward,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _norm(2),
    "cudnn_batch_norm": _batch_norm,
    "native_layer_norm": _norm(5),
    "native_group_norm": _norm(5),
    "native_batch_norm_backward": _norm_backward,
    "native_layer_norm_backward": _norm_backward,
    "native_group_norm_backward": _norm_backward,
    **{name: _per_output(points) for name, points in _UPSAMPLING.items()},
    **{
        f"{name}_backward": _per_element(points, "grad_output")
        for name, points in _UPSAMPLING.items()
    },
    "grid_sampler_2d": _grid_sampling,
    "grid_sampler_3d": _grid_sampling,
    "grid_sampler_2d_backward": _grid_sampling_backward,
    "grid_sampler_3d_backward": _grid_sampling_backward,
    "affine_grid_generator": _affine_grid,
    "affine_grid_generator_backward": _affine_grid_backward,
    "linalg_vector_norm": _vector_norm("ord"),
    "norm": _vector_norm("p"),
    "avg_pool2d": _pooling,
    "avg_pool3d": _pooling,
    "avg_pool2d_backward": _pooling_backward,
    "avg_pool3d_backward": _pooling_backward,
    "_adaptive_avg_pool2d": _per_element(1),
    "_adaptive_avg_pool3d": _per_element(1),
    "_adaptive_avg_pool2d_backward": _per_element(1, "self"),
    "_adaptive_avg_pool3d_backward": _per_element(1, "self"),
    "mean": _per_element(1),
    "_weight_norm_interface": _per_element(1, "v"),
    "_weight_norm_interface_backward": _per_element(2, "saved_v"),
    "var": _per_element(2),
    "var_mean": _per_element(3),
    "std": _per_element(2),
    "std_mean": _per_element(3),
}
"""Operator, without its namespace -> its multiply-adds."""

UNNEEDED: Mapping[str, Rule] = {
    **dict.fromkeys(_ATTENTION_BACKWARD, _attention_unneeded),
    "mkldnn_rnn_layer_backward": _recurrent_layer_unneeded,
    "_deform_conv2d_backward": _deformable_convolution_unneeded,
}
"""Operator -> those of its multiply-adds that the result does not need."""

WITHOUT = frozenset(
    {
        "_log_softmax", "_log_softmax_backward_data", "_softmax", "_softmax_backward_data",
        "_safe_softmax", "_to_copy", "_unsafe_view", "amax", "amin", "any", "all", "arange",
        "argmax", "argmin", "argsort", "as_strided_", "bernoulli", "bernoulli_", "bucketize", "cat",
        "channel_shuffle", "clone", "col2im", "constant_pad_nd", "copy_", "count_nonzero", "diag",
        "embedding", "embedding_dense_backward", "eye", "fill_", "flip", "full", "full_like",
        "gather", "im2col", "index", "index_add", "index_put", "index_put_", "index_select",
        "linspace", "logsumexp", "masked_fill", "masked_fill_", "masked_scatter", "masked_select",
        "max", "max_pool2d_with_indices", "max_pool2d_with_indices_backward",
        "max_pool3d_with_indices", "max_pool3d_with_indices_backward", "max_unpool2d",
        "max_unpool2d_backward", "max_unpool3d", "adaptive_max_pool2d",
        "adaptive_max_pool2d_backward", "median", "min", "native_dropout",
        "native_dropout_backward", "new_empty", "new_full", "new_ones", "new_zeros", "nonzero",
        "normal_", "one_hot", "ones", "ones_like", "pixel_shuffle", "pixel_unshuffle", "rand",
        "rand_like", "randint", "randn", "randn_like", "randperm", "reflection_pad1d",
        "reflection_pad2d", "reflection_pad2d_backward", "repeat", "replication_pad2d",
        "replication_pad2d_backward", "roll", "scalar_tensor", "scatter", "scatter_add",
        "select_backward", "select_scatter", "slice_backward", "slice_scatter", "sort", "stack",
        "sum", "topk", "tril", "triu", "unfold_backward", "unique_dim", "_unique2", "uniform_",
        "where", "zero_", "zeros", "zeros_like", "mkldnn_reorder_conv2d_weight",
        "_local_scalar_dense",
        "leaky_relu", "leaky_relu_", "leaky_relu_backward",  # older versions do not mark them
        # Nor does any of these, which are maps from element to element.
        "hardswish", "hardswish_", "hardswish_backward", "_prelu_kernel", "_prelu_kernel_backward",
        "log_sigmoid_forward", "log_sigmoid_backward", "rrelu_with_noise",
        "rrelu_with_noise_", "rrelu_with_noise_backward",
        "repeat_interleave", "nms", "glu", "glu_backward", "aminmax", "cummax", "cummin",
        "_linalg_check_errors", "adaptive_max_pool3d", "adaptive_max_pool3d_backward", "bincount",
        "diag_embed", "exponential_", "fractional_max_pool2d", "fractional_max_pool2d_backward",
        "fractional_max_pool3d", "fractional_max_pool3d_backward", "histc", "index_add_",
        "index_copy", "index_fill", "index_reduce", "isin", "kthvalue", "mode", "nansum",
        "reflection_pad1d_backward", "reflection_pad3d", "reflection_pad3d_backward",
        "replication_pad1d", "replication_pad1d_backward", "replication_pad3d",
        "replication_pad3d_backward", "rot90", "scatter_reduce", "searchsorted", "take", "trace",
        "diagonal_backward", "hann_window", "logspace", "nll_loss_forward", "nll_loss_backward",
        "nll_loss2d_forward", "nll_loss2d_backward", "polar", "prod", "scatter_", "scatter_add_",
        "tril_indices", "triu_indices", "cumsum", "cumsum_",
        "cumprod", "cumprod_", "logcumsumexp",
    }
)  # fmt: skip
"""Operators that are known to have no multiply-adds and are no map from element to element."""


def has_none(function: torch._ops.OpOverload) -> bool:
    """Whether an operator without a rule is known to have no multiply-adds.

    What torch itself marks as pointwise has none, nor has its backward, nor what does the same in
    place, which torch does not always mark.
    """
    name = function._schema.name.rpartition("::")[2]
    if name in WITHOUT or name.startswith("_foreach"):
        return True
    of = name.removesuffix("_backward") if name.endswith("_backward") else name.removesuffix("_")
    other = getattr(torch.ops.aten, of, None)
    overloads = [function]
    if other is not None and of != name:
        overloads += [getattr(other, each) for each in other.overloads()]
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)
