"""Each rule of the table against a count derived by hand, forward and backward."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torchvision.ops import deform_conv2d

from dabench.counting import operators
from dabench.counting.counts import count_network
from dabench.counting.known import known_result
from dabench.counting.rules import RULES, macs_of, unneeded_macs
from dabench_models import ModelSpec


class Of(nn.Module):
    """A function as a network, with what it needs as parameters."""

    def __init__(self, function, **shapes):
        super().__init__()
        self.function = function
        self.values = nn.ParameterDict({k: nn.Parameter(torch.randn(v)) for k, v in shapes.items()})

    def forward(self, x):
        return self.function(x, **self.values)


def count(network, shape=(3, 8, 8), mode="eval", batch=1):
    spec = ModelSpec(name="x", family="other", builder="", channels=shape[0], summary="", source="")
    return count_network(network, spec, batch=batch, shape=shape, mode=mode)


def tokens(x):
    """(N, C, H, W) to (N, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    def __init__(self, layers=1):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)

    def forward(self, x):
        return self.encoder(tokens(x))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.net = kind(3, 5, batch_first=True, **options)

    def forward(self, x):
        return self.net(tokens(x))[0]


def deformed(x, offset, weight):
    return deform_conv2d(x, offset.expand(len(x), -1, -1, -1), weight, padding=1)


P = 64  # pixels of an 8x8 map
# Name -> network, input shape, forward, backward where the input needs no gradient.
CASES = {
    "words for padding": (nn.Conv2d(3, 5, 3, padding="same", bias=False), (3, 8, 8),
                          P * 135, P * 135),
    "dilated, strided": (nn.Conv2d(3, 5, 3, 2, 2, dilation=2), (3, 8, 8), 16 * 135, 16 * 135),
    "grouped": (nn.Conv2d(4, 8, 3, padding=1, groups=2), (4, 8, 8), P * 8 * 18, P * 8 * 18),
    # Each input pixel meets the whole kernel.
    "transposed": (nn.ConvTranspose2d(3, 5, 4, 2, 1), (3, 8, 8), P * 240, P * 240),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 2, 2, groups=2), (4, 8, 8),
                            P * 4 * 3 * 4, P * 4 * 3 * 4),
    "linear": (nn.Linear(8, 5), (3, 8, 8), 24 * 40, 24 * 40),
    "linear over tokens": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Linear(64, 5)),
                           (3, 8, 8), P * 12 + 4 * 320, P * 12 + 2 * 4 * 320),
    "bmm of two": (Of(lambda x, w: torch.bmm(x.flatten(2) * w, x.flatten(2).transpose(1, 2) * w),
                      w=(1,)), (3, 8, 8), 9 * P, 2 * 9 * P),
    "einsum": (Of(lambda x, w: torch.einsum("nchw,co->nohw", x * w[0, 0], w), w=(3, 5)),
               (3, 8, 8), P * 15, 2 * P * 15),
    "matrix and vector": (Of(lambda x, v: x.flatten(1) @ v, v=(192,)), (3, 8, 8), 192, 192),
    "bilinear layer": (Of(lambda x, w: F.bilinear(x[:, 0], x[:, 1, :, :4], w), w=(5, 8, 4)),
                       (3, 8, 8), 8 * (5 * 32 + 5 * 4), 8 * (8 * 5 + 5 * 32)),
    # Both weights' gradients, and from each state but the first to the one before.
    "lstm": (Recurrent(nn.LSTM), (3, 8, 8), P * 4 * 5 * 8, P * 160 + (P - 1) * 100),
    "two-way lstm of two": (Recurrent(nn.LSTM, num_layers=2, bidirectional=True), (3, 8, 8),
                            P * 2 * 4 * 5 * (8 + 15),
                            2 * (P * 160 + P * (2 * 200 + 100) + 2 * (P - 1) * 100)),
    # Step by step, each of many operators: a shorter one.
    "gru": (Recurrent(nn.GRU), (3, 4, 4), 16 * 3 * 5 * 8, 16 * 120 + 15 * 75),
    # Offsets and weight; the input's gradient comes with the offsets'.
    "deformable": (Of(deformed, offset=(1, 18, 8, 8), weight=(5, 3, 3, 3)), (3, 8, 8),
                   P * 135, 2 * P * 135),
    "batch norm": (nn.BatchNorm2d(3), (3, 8, 8), 2 * 3 * P, 5 * 3 * P),
    "batch norm without scale": (nn.BatchNorm2d(3, affine=False), (3, 8, 8), 3 * P, 0),
    "instance norm": (nn.InstanceNorm2d(3), (3, 8, 8), 4 * 3 * P, 0),
    "layer norm": (nn.LayerNorm(8), (3, 8, 8), 5 * 3 * P, 5 * 3 * P),
    "group norm": (nn.GroupNorm(1, 3), (3, 8, 8), 5 * 3 * P, 5 * 3 * P),
    "average pooling": (nn.AvgPool2d(3, 2, 1), (3, 8, 8), 9 * 3 * 16, 0),
    "global average": (nn.AdaptiveAvgPool2d(1), (3, 8, 8), 3 * P, 0),
    "adaptive pooling": (nn.AdaptiveAvgPool2d(3), (3, 8, 8), 3 * P, 0),
    "nearest": (nn.UpsamplingNearest2d(scale_factor=2), (3, 8, 8), 4 * 3 * P, 0),
    "bilinear": (nn.UpsamplingBilinear2d(scale_factor=2), (3, 8, 8), 4 * 4 * 3 * P, 0),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), (3, 8, 8), 16 * 4 * 3 * P, 0),
    "grid sampling": (Of(lambda x, g: F.grid_sample(x, g.expand(len(x), -1, -1, -1),
                                                    align_corners=False), g=(1, 5, 5, 2)),
                      (3, 8, 8), 4 * 3 * 25, 2 * 4 * 3 * 25),
    # Theta of two rows by three columns, for each point of the grid; the map's own gradient too.
    "spatial transformer": (Of(lambda x, theta: F.grid_sample(
                                   x, F.affine_grid(theta.expand(len(x), -1, -1), x.shape,
                                                    align_corners=False),
                                   align_corners=False), theta=(1, 2, 3)),
                            (3, 8, 8), P * 6 + 4 * 3 * P, P * 6 + 2 * 4 * 3 * P),
    # A square is added per element; the backward only scales.
    "cosine classifier": (Of(lambda x, w: F.conv2d(F.normalize(x), F.normalize(w)),
                             w=(5, 3, 1, 1)), (3, 8, 8), 15 + P * (3 + 15), P * 15),
    "unpooling": (Of(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
                  (3, 8, 8), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_by_hand(name):
    network, shape, forward, backward = CASES[name]
    found = count(network, shape)
    assert (found.macs, found.executed_macs) == (forward, forward)
    assert found.uncounted == {}
    # Any batch follows from the two that are traced.
    trained = count(network, shape, "train", batch=3)
    assert trained.backward_macs == 3 * backward
    assert trained.uncounted == {}


def test_a_product_of_complex_numbers_is_four_of_real_ones():
    """As torch's convolution of complex maps shows, which it makes of three real ones."""
    network = Of(lambda x, w: torch.view_as_real(torch.complex(x, x) @ torch.complex(w, w)),
                 w=(8, 5))  # fmt: skip
    found = count(network, (3, 8, 8), "train")
    assert (found.macs, found.backward_macs) == (4 * 3 * P * 5, 4 * 3 * P * 5)
    of_conv = Of(lambda x, w: torch.conv2d(torch.complex(x, x), torch.complex(w, w)).real,
                 w=(5, 3, 1, 1))  # fmt: skip
    assert count(of_conv).macs == 3 * P * 15
    # The input, the weight and both as complex numbers, the product.
    assert found.bytes_moved == 4 * 2 * (2 * 3 * P + 2 * 40 + 3 * 8 * 5 + 3 * P + 40)


MOVES = {
    "reflected rows": lambda x: F.pad(x.flatten(2), (1, 1), mode="reflect"),
    "reflected volume": lambda x: F.pad(x[:, None], (1,) * 6, mode="reflect"),
    "replicated rows": lambda x: F.pad(x.flatten(2), (1, 1), mode="replicate"),
    "replicated volume": lambda x: F.pad(x[:, None], (1,) * 6, mode="replicate"),
    "maxima of volumes": lambda x: F.adaptive_max_pool3d(x[:, None], 2),
    "maxima of chance": lambda x: F.fractional_max_pool2d(x, 2, output_size=4),
    "sum of numbers": lambda x: x.nansum(1),
    "turned": lambda x: x.rot90(1, (2, 3)),
    "on a diagonal": lambda x: torch.diag_embed(x[:, :, 0]),
    "trace": lambda x: x[0, 0].trace() + x.sum(1),
    "third largest": lambda x: x.kthvalue(2, 1)[0],
    "drawn": lambda x: F.gumbel_softmax(x, dim=1),
    "member": lambda x: x * torch.isin(x, x),
    "scattered": lambda x: x.scatter_reduce(1, torch.zeros_like(x, dtype=torch.long), x, "sum"),
    "largest": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_only_moves_adds_or_compares_has_no_multiply_adds(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Of(MOVES[name]))
    for mode in ("eval", "train"):
        found = count(network, (3, 8, 8), mode)
        assert (found.macs, found.uncounted) == (3 * 4 * P, {})


ACTIVATIONS = [
    nn.CELU(), nn.ELU(inplace=True), nn.GELU(), nn.Hardshrink(), nn.Hardsigmoid(inplace=True),
    nn.Hardswish(), nn.Hardswish(inplace=True), nn.Hardtanh(), nn.LeakyReLU(inplace=True),
    nn.LogSigmoid(), nn.Mish(inplace=True), nn.PReLU(4), nn.ReLU6(inplace=True), nn.RReLU(),
    nn.RReLU(inplace=True), nn.SELU(inplace=True), nn.SiLU(inplace=True), nn.Softplus(),
    nn.Softshrink(), nn.Softsign(), nn.Tanh(), nn.Threshold(0.1, 0.0, inplace=True),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations_have_no_multiply_adds(activation):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 2, 1))
    for mode in ("eval", "train"):
        found = count(network, (3, 8, 8), mode)
        assert (found.macs, found.uncounted) == ((3 * 4 + 4 * 2) * P, {})


def _(*shape, learns=False):
    return torch.empty(shape, device="meta", requires_grad=learns)


Q = {
    "query": _(2, 4, 6, 8, learns=True),
    "key": _(2, 4, 9, 8, learns=True),
    "value": _(2, 4, 9, 5, learns=True),
}
SCORES, VALUES = 2 * 4 * 6 * 9 * 8, 2 * 4 * 6 * 9 * 5
X, X3, Y = _(2, 3, 4, 4), _(2, 3, 2, 4, 4), 2 * 3 * 4 * 4
LSTM = {"input": _(7, 2, 3), "weight1": _(20, 3), "weight2": _(20, 5), "hx_": _(2, 5)}
GRID = {"interpolation_mode": 0, "grad_output": X, "output_mask": (True, True)}
# Operator -> arguments, output, multiply-adds.
ROWS = {
    "convolution": ({"input": X, "weight": _(5, 3, 3, 3), "transposed": False}, _(2, 5, 4, 4),
                    2 * 16 * 135),
    "_convolution": ({"input": X, "weight": _(3, 5, 2, 2), "transposed": True}, _(2, 5, 8, 8),
                     2 * 16 * 60),
    "convolution_backward": ({"input": X, "weight": _(5, 3, 3, 3), "transposed": False,
                              "grad_output": _(2, 5, 4, 4), "output_mask": (True, True, True)},
                             X, 2 * 2 * 16 * 135),
    "mm": ({"self": _(4, 3), "mat2": _(3, 5)}, _(4, 5), 60),
    "addmm": ({"self": _(5), "mat1": _(4, 3), "mat2": _(3, 5)}, _(4, 5), 60),
    "_addmm_activation": ({"self": _(5), "mat1": _(4, 3), "mat2": _(3, 5)}, _(4, 5), 60),
    "bmm": ({"self": _(2, 4, 3), "mat2": _(2, 3, 5)}, _(2, 4, 5), 120),
    "baddbmm": ({"batch1": _(2, 4, 3), "batch2": _(2, 3, 5)}, _(2, 4, 5), 120),
    "addbmm": ({"batch1": _(2, 4, 3), "batch2": _(2, 3, 5)}, _(4, 5), 120),
    "mv": ({"self": _(4, 3), "vec": _(3)}, _(4), 12),
    "addmv": ({"mat": _(4, 3), "vec": _(3)}, _(4), 12),
    "dot": ({"self": _(7), "tensor": _(7)}, _(), 7),
    "vdot": ({"self": _(7), "other": _(7)}, _(), 7),
    "linear": ({"input": _(2, 4, 3), "weight": _(5, 3)}, _(2, 4, 5), 120),
    "mkldnn_linear": ({"self": _(2, 4, 3), "weight": _(5, 3)}, _(2, 4, 5), 120),
    # x (6, 3) with w (5, 3, 4), summed over the 3; then with y (6, 4).
    "_trilinear": ({"i1": _(6, 3), "i2": _(5, 3, 4), "i3": _(6, 4), "expand1": [1, 3],
                    "expand2": [0], "expand3": [1, 2], "sumdim": [2, 3]}, _(6, 5),
                   6 * 5 * 3 * 4 + 6 * 5 * 4),
    **{
        f"_scaled_dot_product_{name}": (Q, _(2, 4, 6, 5), SCORES + VALUES)
        for name in ("flash_attention_for_cpu", "flash_attention", "efficient_attention",
                     "cudnn_attention", "fused_attention_overrideable")
    },
    **{
        f"_scaled_dot_product_{name}_backward": (Q, _(2, 4, 6, 8), 3 * SCORES + 2 * VALUES)
        for name in ("flash_attention_for_cpu", "flash_attention", "efficient_attention",
                     "cudnn_attention", "fused_attention_overrideable")
    },
    "_native_multi_head_attention": ({"query": _(2, 5, 8), "key": _(2, 7, 8), "embed_dim": 8},
                                     _(2, 5, 8), 2 * 64 * (5 * 2 + 7 * 2) + 2 * 2 * 5 * 7 * 8),
    "_transformer_encoder_layer_fwd": ({"src": _(2, 5, 8), "embed_dim": 8,
                                        "ffn_weight_1": _(16, 8)}, _(2, 5, 8),
                                       2 * (5 * 64 * 4 + 2 * 25 * 8 + 5 * 128 * 2 + 2 * 5 * 40)),
    "mkldnn_rnn_layer": ({"input": _(7, 2, 3), "weight0": _(20, 3), "weight1": _(20, 5)},
                         _(7, 2, 5), 14 * 160),
    "mkldnn_rnn_layer_backward": (LSTM, _(7, 2, 3), 2 * 14 * 160),
    "deform_conv2d": ({"input": X, "weight": _(5, 3, 3, 3)}, _(2, 5, 4, 4), 2 * 16 * 135),
    "_deform_conv2d_backward": ({"grad": _(2, 5, 4, 4), "weight": _(5, 3, 3, 3)}, X,
                                2 * 2 * 16 * 135),
    "native_batch_norm": ({"input": X, "weight": _(3), "training": True}, X, 5 * Y),
    "_native_batch_norm_legit": ({"input": X, "weight": None, "training": True}, X, 4 * Y),
    "_native_batch_norm_legit_no_training": ({"input": X, "weight": _(3)}, X, 2 * Y),
    "cudnn_batch_norm": ({"input": X, "weight": _(3), "training": False}, X, 2 * Y),
    "native_layer_norm": ({"input": X, "weight": None}, X, 4 * Y),
    "native_group_norm": ({"input": X, "weight": _(3)}, X, 5 * Y),
    **{f"native_{name}_norm_backward": ({"input": X}, X, 5 * Y)
       for name in ("batch", "layer", "group")},
    **{
        name: ({}, X, points * Y)
        for name, points in {
            "upsample_nearest1d": 1, "upsample_nearest2d": 1, "upsample_nearest3d": 1,
            "_upsample_nearest_exact1d": 1, "_upsample_nearest_exact2d": 1,
            "_upsample_nearest_exact3d": 1, "upsample_linear1d": 2, "upsample_bilinear2d": 4,
            "upsample_trilinear3d": 8, "upsample_bicubic2d": 16,
        }.items()
    },
    **{
        f"{name}_backward": ({"grad_output": X}, _(1), points * Y)
        for name, points in {
            "upsample_nearest1d": 1, "upsample_nearest2d": 1, "upsample_nearest3d": 1,
            "_upsample_nearest_exact1d": 1, "_upsample_nearest_exact2d": 1,
            "_upsample_nearest_exact3d": 1, "upsample_linear1d": 2, "upsample_bilinear2d": 4,
            "upsample_trilinear3d": 8, "upsample_bicubic2d": 16,
        }.items()
    },
    "grid_sampler_2d": ({"interpolation_mode": 2}, X, 16 * Y),
    "grid_sampler_3d": ({"interpolation_mode": 0}, X3, 8 * 2 * Y),
    "grid_sampler_2d_backward": (GRID, X, (1 + 2) * 4 * Y),
    "grid_sampler_3d_backward": ({**GRID, "grad_output": X3}, X3, (1 + 3) * 8 * 2 * Y),
    "affine_grid_generator": ({"theta": _(2, 3, 4)}, _(2, 5, 6, 7, 3), 2 * 210 * 12),
    "affine_grid_generator_backward": ({"grad": _(2, 6, 7, 2)}, _(2, 2, 3), 2 * 42 * 6),
    "linalg_vector_norm": ({"self": X, "ord": 2}, _(2, 4, 4), Y),
    "norm": ({"self": X, "p": None}, _(2, 4, 4), Y),
    "avg_pool2d": ({"self": X, "kernel_size": (3, 2)}, _(2, 3, 2, 3), 6 * 36),
    "avg_pool3d": ({"self": X3, "kernel_size": (2,)}, _(2, 3, 1, 2, 2), 8 * 24),
    "avg_pool2d_backward": ({"self": X, "kernel_size": (2, 2), "grad_output": _(2, 3, 2, 2)}, X,
                            4 * 24),
    "avg_pool3d_backward": ({"self": X3, "kernel_size": (2,), "grad_output": _(2, 3, 1, 2, 2)},
                            X3, 8 * 24),
    "_adaptive_avg_pool2d": ({"self": X}, _(2, 3, 1, 1), Y),
    "_adaptive_avg_pool3d": ({"self": X3}, _(2, 3, 1, 1, 1), 2 * Y),
    "_adaptive_avg_pool2d_backward": ({"self": X}, X, Y),
    "_adaptive_avg_pool3d_backward": ({"self": X3}, X3, 2 * Y),
    "mean": ({"self": X}, _(), Y),
    "_weight_norm_interface": ({"v": _(5, 3, 3, 3), "g": _(5)}, _(5, 3, 3, 3), 135),
    "_weight_norm_interface_backward": ({"saved_v": _(5, 3, 3, 3)}, _(5, 3, 3, 3), 2 * 135),
    "var": ({"self": X}, _(), 2 * Y),
    "var_mean": ({"self": X}, _(), 3 * Y),
    "std": ({"self": X}, _(), 2 * Y),
    "std_mean": ({"self": X}, _(), 3 * Y),
}  # fmt: skip


def test_every_rule_by_hand():
    found = {name: macs_of(name, arguments, [out]) for name, (arguments, out, _) in ROWS.items()}
    assert found == {name: macs for name, (_, _, macs) in ROWS.items()}
    assert ROWS.keys() == RULES.keys()


def test_what_nobody_asked_for_is_executed_and_not_needed():
    def lstm(**learns):
        asked = {name: LSTM[name].clone().requires_grad_(on) for name, on in learns.items()}
        return unneeded_macs("mkldnn_rnn_layer_backward", {**LSTM, **asked})

    assert lstm() == 14 * 60 + 14 * 160 + 2 * 100
    assert lstm(weight1=True, weight2=True) == 14 * 60 + 2 * 100
    assert lstm(input=True, weight1=True, weight2=True, hx_=True) == 0
    layer = 2 * 16 * 135
    given = {"grad": _(2, 5, 4, 4), "input": X, "mask": X, "offset": X}
    weights = _(5, 3, 3, 3), _(5, 3, 3, 3, learns=True)
    found = [unneeded_macs("_deform_conv2d_backward", {**given, "weight": w}) for w in weights]
    assert found == [2 * layer, layer]
    assert unneeded_macs("_scaled_dot_product_flash_attention_backward", Q) == SCORES
    assert unneeded_macs("mm", {}) == 0


class Similarity(nn.Module):
    """Products between the images of a batch."""

    def forward(self, x):
        flat = x.flatten(1)
        return flat @ flat.t()


class SequenceFirst(nn.Module):
    """The same product by another kernel for one image than for more."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 7)

    def forward(self, x):
        return self.layer(x.flatten(2).transpose(1, 2).contiguous().transpose(0, 1))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_what_is_not_proportional_to_the_batch_is_counted_at_it(batch):
    found = count(Similarity(), (3, 8, 8), batch=batch)
    assert (found.macs, found.linear, found.fixed) == (batch * batch * 192, False, {})


@pytest.mark.parametrize("batch", [1, 4])
def test_another_kernel_for_one_image_loses_nothing(batch):
    found = count(SequenceFirst(), (3, 8, 8), batch=batch)
    assert sum(found.by_operator.values()) == found.macs == batch * 64 * 3 * 7


def chunks(x, w):
    """Eight images at a time, the last ones padded."""
    parts = (F.pad(part, (0, 0) * 3 + (0, 8 - len(part))) for part in x.split(8))
    return torch.cat([F.conv2d(part, w) for part in parts])


# Function of (N, 3, 8, 8) -> multiply-adds of a batch.
BY_BATCH = {
    "one image only": (lambda x, w: F.linear(x.reshape(1, 3, 64).mT, w[:, :, 0, 0]), {1: 64 * 9}),
    "another way for one": (lambda x, w: F.conv2d(F.conv2d(x, w) if len(x) == 1 else x, w),
                            {1: 2 * 576, 2: 2 * 576, 3: 3 * 576}),
    "in chunks": (chunks, {1: 8 * 576, 8: 8 * 576, 9: 16 * 576}),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_BATCH)
def test_a_batch_that_follows_from_no_other_is_counted_itself(name):
    function, macs = BY_BATCH[name]
    for batch, wanted in macs.items():
        found = count(Of(function, w=(3, 3, 1, 1)), batch=batch)
        assert (found.macs, found.executed_macs) == (wanted, wanted)


def test_batches_named_beside_must_follow_too():
    network = Of(chunks, w=(3, 3, 1, 1))
    spec = ModelSpec(name="x", family="other", builder="", channels=3, summary="", source="")
    asked = {"batch": 2, "shape": (3, 8, 8), "mode": "eval"}
    assert count_network(network, spec, **asked).linear
    assert not count_network(network, spec, **asked, also=(16,)).linear


def test_a_shared_weight_is_read_once():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    network[1].weight = network[0].weight
    assert count(network, (3, 8, 8)).min_bytes == 4 * (3 * 64 + 3 * 16 + 81 + 3 + 3)


# Function of x (N, 3, 8, 8) and of w (4, 3, 1, 1) -> numbers read and written, of them weights.
HANDED_ON = {
    "another module's weight": (lambda x, w: F.conv2d(x, weight=w), 3 * P + 4 * P + 12),
    "a view of it": (lambda x, w: x.flatten(2).mT @ w[:, :, 0, 0].mT, 3 * P + 4 * P + 12),
    "one map under two names": (lambda x, w: dict.fromkeys("ab", F.conv2d(x, w)), 7 * P + 12),
    "a map and a part of it": (lambda x, w: (y := F.conv2d(x, w), y[:, :2]), 7 * P + 12),
    "one number everywhere": (lambda x, w: F.conv2d(x, w).mean().expand(64, 64), 3 * P + 1 + 12),
    "complex, and as real ones": (lambda x, w: (y := F.conv2d(x, w) * 1j, torch.view_as_real(y)),
                                  3 * P + 8 * P + 12),
    "what nobody gets": (lambda x, w: F.conv2d(x, w) is None or x, 3 * P),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDED_ON)
def test_the_least_bytes_are_of_what_is_needed_once(name):
    function, numbers = HANDED_ON[name]
    assert count(Of(function, w=(4, 3, 1, 1))).min_bytes == 4 * numbers


def test_weights_that_another_module_computes_with_are_read():
    attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    network = Of(lambda x: attention(tokens(x), tokens(x), tokens(x), need_weights=False)[0])
    network.attention = attention
    for mode in ("eval", "train"):
        assert count(network, (8, 8, 8), mode).min_bytes == 4 * (2 * 8 * 64 + 4 * 64)


def test_what_is_written_into_a_buffer_is_needed_where_it_is_read():
    class Keeps(nn.Module):
        def __init__(self, write):
            super().__init__()
            self.register_buffer("u", torch.ones(8))
            self.w, self.write = nn.Parameter(torch.ones(8, 8)), write

        def forward(self, x):
            with torch.no_grad():
                self.write(self.w, self.u)
            return x * self.u.view(1, 8)

    for write in (lambda w, u: u.copy_(w @ u), lambda w, u: torch.mv(w, u.clone(), out=u)):
        found = count(Keeps(write))
        assert (found.macs, found.dropped_macs) == (64, 0)


INFERRED = {
    "convolution": lambda x, w: F.conv2d(x, w).flatten(1),
    "bilinear": lambda x, w: F.interpolate(F.conv2d(x, w), scale_factor=2, mode="bilinear"),
    "bicubic": lambda x, w: F.interpolate(F.conv2d(x, w), scale_factor=2, mode="bicubic"),
    "nearest": lambda x, w: F.interpolate(F.conv2d(x, w), scale_factor=2),
    "batch norm": lambda x, w: F.batch_norm(x, w[0, :, 0, 0], w[1, :, 0, 0]),
    "group norm": lambda x, w: F.group_norm(F.conv2d(x, w), 2),
    "attention": lambda x, w: F.scaled_dot_product_attention(x, x, x) * w[0],
    "einsum": lambda x, w: torch.einsum("nchw,ocij->nohw", x, w),
    "sampled": lambda x, w: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
}


@pytest.mark.parametrize("name", INFERRED)
def test_inference_mode_changes_no_count(name):
    usual, inferred = (
        count(Of(function, w=(4, 3, 1, 1)))
        for function in (INFERRED[name], torch.inference_mode()(INFERRED[name]))
    )
    assert (inferred.macs, inferred.uncounted, inferred.note) == (usual.macs, {}, "")
    assert inferred.graph == usual.graph
    assert usual.macs > 0


def test_names_for_a_profiler_do_no_arithmetic():
    def named(x, w):
        with torch.profiler.record_function("stem"):
            return F.conv2d(x, w)

    assert count(Of(named, w=(4, 3, 1, 1))).uncounted == {}


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: random.seed(3) or 1])
def test_a_way_that_chance_decides_is_said(draw):
    found = count(Of(lambda x, w: F.conv2d(x, w) * draw(), w=(4, 3, 1, 1)))
    assert found.note == (
        "its code draws or seeds random numbers: another pass may count otherwise"
    )
    assert found.graph == ""


HEADS = 8 * 8 * 64 * 4 + 2 * 64 * 64 * 8  # four projections of 64 tokens of 8; scores and values
ENCODER = HEADS + 64 * 8 * 16 * 2 + 2 * 5 * 64 * 8  # and two layers, and two norms


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_transformer_counts_the_same_on_torchs_fast_path(mode):
    count_ = count(Encoder(2), (8, 8, 8), mode)
    assert count_.macs == 2 * ENCODER
    assert count_.uncounted == {}
    fast = {"_transformer_encoder_layer_fwd", "_native_multi_head_attention"}
    if mode == "eval":
        assert fast & set(count_.by_operator)
        assert sum(count_.by_operator.values()) == 2 * ENCODER


class Padded(Encoder):
    def forward(self, x):
        t = tokens(x)
        mask = torch.zeros(t.shape[:2], dtype=torch.bool)
        mask[:, 32:] = True
        return self.encoder(t, src_key_padding_mask=mask)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_masked_tokens_count_as_others(mode):
    found = count(Padded(2), (8, 8, 8), mode)
    assert found.macs == 2 * ENCODER
    assert found.uncounted == {}
    assert ("fast path" in found.note) == (mode == "eval")
    assert torch.backends.mha.get_fastpath_enabled()


def test_multi_head_attention_on_the_fast_path():
    x, w = torch.randn(2, 5, 8), torch.randn(24, 8)
    arguments = {"query": x, "key": x, "value": x, "embed_dim": 8, "qkv_weight": w}
    assert macs_of("_native_multi_head_attention", arguments, []) == 2 * (5 * 64 * 4 + 2 * 25 * 8)


class Heads(nn.Module):
    """Grouped attention: four heads of queries share two of keys and values, half masked."""

    def __init__(self, written):
        super().__init__()
        self.written = written
        self.q, self.kv = nn.Linear(8, 16, bias=False), nn.Linear(8, 16, bias=False)

    def forward(self, x):
        t = tokens(x)
        q = self.q(t).unflatten(-1, (4, 4)).transpose(1, 2)
        k, v = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in self.kv(t).chunk(2, -1))
        if not self.written:
            mask = torch.ones(64, 64, dtype=torch.bool, device=x.device).tril()
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        k, v = (p.repeat_interleave(2, 1) for p in (k, v))
        return (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_attention_counts_the_same_fused_and_written_out(mode):
    fused, written = (count(Heads(w), (8, 8, 8), mode) for w in (False, True))
    assert fused.macs == written.macs == 64 * 8 * 32 + 2 * 4 * 64 * 64 * 4
    assert fused.backward_macs == written.backward_macs
    if mode == "train":
        # The fused backward computes the scores anew: executed, and not needed.
        assert fused.executed_backward_macs - fused.backward_macs in (0, 4 * 64 * 64 * 4)


class Asks(nn.Module):
    """One projection of 16 tokens of 8 per head of 4, used for some of query, key and value."""

    def __init__(self, learning, written):
        super().__init__()
        self.w, self.learning, self.written = nn.Linear(8, 8, bias=False), learning, written

    def forward(self, x):
        x = x.reshape(-1, 4, 16, 8)
        q, k, v = (self.w(x) if name in self.learning else x for name in "qkv")
        if self.written:
            return (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1) @ v
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("learning", ["q", "k", "v", "qk", "qv", "kv", "qkv"])
def test_attention_is_differentiated_to_what_learns(learning):
    product, weight = 4 * 16 * 16 * 8, 4 * 16 * 8 * 8
    of_scores = 1 if set(learning) & set("qk") else 0
    needed = (of_scores + len(learning)) * product + len(learning) * weight
    fused, written = (count(Asks(learning, w), (8, 8, 8), "train") for w in (False, True))
    assert fused.backward_macs == written.backward_macs == needed
    assert fused.executed_backward_macs == 5 * product + len(learning) * weight


def same_padding(padding="same"):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=padding, bias=False), nn.Conv2d(8, 5, 1, bias=False)
    )


def test_the_backward_stops_at_what_is_frozen():
    backbone = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
    network = nn.Sequential(backbone.requires_grad_(False), nn.Conv2d(16, 5, 1, bias=False))
    assert count(network, (3, 32, 32), "train").backward_macs == 1024 * 80


def test_a_first_layer_may_be_parametrised_or_frozen_itself():
    def backward(network):
        return count(network, (3, 32, 32), "train").backward_macs

    plain = same_padding()
    wrapped = same_padding()
    nn.utils.parametrizations.spectral_norm(wrapped[1])
    first, second = 1024 * 216, 1024 * 40
    assert backward(plain) == first + 2 * second
    layers = {row.layer: row for row in count(wrapped, (3, 32, 32), "train").layers}
    assert layers["1 (functional)"].backward_macs == 2 * second
    plain[1].requires_grad_(False)
    assert backward(plain) == first + second


def test_a_module_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.same = nn.Conv2d(3, 3, 3, padding=1, bias=False), None

        def forward(self, x):
            return self.a(self.a(x))

    found = count(Twice(), (3, 8, 8), "train")
    assert (found.macs, found.backward_macs) == (2 * P * 81, 3 * P * 81)


def test_what_a_checkpoint_repeats_is_executed_and_not_needed():
    """torch ends a repeated forward as soon as it has what it needs: the last layer is spared."""

    class Recomputes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in "abc")

        def forward(self, x):
            return checkpoint(lambda y: self.c(self.b(y)), self.a(x), use_reentrant=False)

    layer = P * 81
    found = count(Recomputes(), (3, 8, 8), "train")
    assert found.backward_macs == 5 * layer
    assert found.executed_backward_macs == 6 * layer
    with set_checkpoint_early_stop(False):
        assert count(Recomputes(), (3, 8, 8), "train").executed_backward_macs == 7 * layer


class Unlearned(torch.autograd.Function):
    """A convolution whose forward torch runs without gradients."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return F.conv2d(x, w, padding=1)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return (
            torch.nn.grad.conv2d_input(x.shape, w, g, padding=1),
            torch.nn.grad.conv2d_weight(x, w.shape, g, padding=1),
        )


class Repeats(nn.Module):
    """Convolutions of 3 channels, all but the first in a checkpoint in some way."""

    def __init__(self, way, reentrant):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in "abc")
        self.way, self.reentrant = way, reentrant

    def apart(self, function, x):
        return checkpoint(function, x, use_reentrant=self.reentrant)

    def part(self, x):
        if self.way == "another within":
            return self.c(self.apart(self.b, x)).sin()
        if self.way == "function":
            return Unlearned.apply(x, self.b.weight).sin()
        with torch.no_grad():
            y = self.c(x)
        return self.b(x + y).sin()

    def forward(self, x):
        return self.apart(self.part, self.a(x))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("way", "needed", "repeated"),
    # An inner checkpoint repeats its own part once more than the outer one does.
    [("another within", 5, 3), ("function", 3, 1), ("no gradients", 3, 2)],
)
def test_a_checkpoint_repeats_what_runs_without_gradients_too(way, needed, repeated, reentrant):
    layer = P * 81
    with set_checkpoint_early_stop(False):
        found = count(Repeats(way, reentrant), (3, 8, 8), "train")
    assert found.backward_macs == needed * layer
    assert found.executed_backward_macs == (needed + repeated) * layer


class Drops(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.aux = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)
        self.out = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        y = self.a(x)
        self.aux(y.clone()).relu_()
        y += 1  # in place: still what the output is made of
        return self.out(y)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_what_is_computed_and_dropped_is_executed(mode):
    found = count(Drops(), (3, 8, 8), mode)
    needed, dropped = P * (216 + 40), P * 360
    assert (found.macs, found.executed_macs) == (needed, needed + dropped)
    assert found.dropped_macs == dropped
    assert found.backward_macs == (P * (216 + 80) if mode == "train" else 0)


def test_a_network_without_a_backward_says_so():
    found = count(Of(lambda x, w: F.conv2d(x, w).argmax(1), w=(5, 3, 1, 1)), mode="train")
    assert (found.backward_macs, found.note) == (
        0,
        "no output can be differentiated: there is no backward",
    )


class LooksAtItsData(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        y = self.a(x)
        return y.relu() if y.mean() > 0 else y


def test_a_network_that_looks_at_its_data_is_run_on_some():
    found = count(LooksAtItsData(), (3, 8, 8))
    assert found.macs == P * 216 + P * 8  # what decides the way is needed
    assert "run on data" in found.note


def test_what_is_run_on_data_is_run_on_small_batches_only():
    seen = []

    class Notes(LooksAtItsData):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    found = count(Notes(), (3, 8, 8), batch=64)
    assert found.macs == 64 * (P * 216 + P * 8)
    assert max(seen) <= 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_dtype_is_counted_in_it(dtype):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)).to(dtype)
    assert count(network, (3, 8, 8)).macs == P * 216 + 2 * 8 * P


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.register_buffer("mask", torch.ones(4, 3, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, padding=1)


def test_products_of_weights_do_not_grow_with_the_batch():
    one, many = (count(Masked(), (3, 8, 8), "train", batch=b) for b in (1, 5))
    weights, x, y = 108, 3 * P, 4 * P
    # weight * mask; then the convolution.
    assert one.bytes_moved == 4 * (3 * weights + x + weights + y)
    assert many.bytes_moved == 4 * (3 * weights + 5 * x + weights + 5 * y)
    backward = [each.layers[0].backward_bytes_moved for each in (one, many)]
    grown = 4 * 4 * (y + x)  # the gradient of the output and the input, read
    assert backward[1] - backward[0] == grown


def test_weights_multiplied_by_themselves_are_fixed_operations():
    network = Of(lambda x, a, b: F.conv2d(x, (a @ b)[..., None, None]), a=(5, 7), b=(7, 3))
    one, many = (count(network, (3, 8, 8), batch=b) for b in (1, 4))
    assert (one.macs, many.macs) == (105 + 15 * P, 105 + 4 * 15 * P)
    assert one.fixed == {"macs": 105, "executed_macs": 105}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("asked", [(True, True, True), (False, True, False)])
def test_what_is_known_of_batch_norm_is_what_torch_works_out(layout, training, asked):
    forward, backward = (
        torch.ops.aten.native_batch_norm.default,
        torch.ops.aten.native_batch_norm_backward.default,
    )
    with FakeTensorMode():
        x = torch.randn(2, 6, 4, 5).to(memory_format=layout)
        weight, bias, mean, variance = (torch.randn(6) for _ in range(4))
        args = (x, weight, bias, mean, variance, training, 0.1, 1e-5)
        _, *kept = forward(*args)
        back = (torch.empty_like(x), x, weight, mean, variance, *kept, training, 1e-5, asked)
        for function, given in ((forward, args), (backward, back)):
            ours, theirs = known_result(function, given), function(*given)
            assert [describe(each) for each in ours] == [describe(each) for each in theirs]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (2, 1, 4, 5), (2, 6, 1, 1)])
def test_what_is_known_of_maps_is_what_torch_works_out(layout, shape):
    aten = torch.ops.aten
    with FakeTensorMode():
        x, gradient = (torch.randn(shape).to(memory_format=layout) for _ in range(2))
        for function, *rest in (
            (aten.relu_.default,),
            (aten.leaky_relu_.default, 0.2),
            (aten.threshold_backward.default, gradient, 0),
            (aten.leaky_relu_backward.default, gradient, 0.2, False),
            (aten.upsample_bilinear2d.default, [8, 7], False),
            (aten.upsample_bilinear2d.default, [3, 2], True, 0.5, None),
            (aten.upsample_bilinear2d.default, [3, 1], False),
        ):
            ours, theirs = known_result(function, (x, *rest)), function(x, *rest)
            if x.shape[1] == 1 and function is aten.upsample_bilinear2d.default:
                assert ours is None
                continue
            assert describe(ours) == describe(theirs)
            assert (ours is x) == (theirs is x)
        for size in ([1, 1], [0, 4], [4]):
            given = (x, size, False)
            assert known_result(aten.upsample_bilinear2d.default, given) is None
        assert known_result(aten.upsample_bilinear2d.default, (x[0], [8, 7], False)) is None
        # Vectors may hold data, as weights do.
        assert known_result(aten.relu_.default, (x[0, 0, 0],)) is None
        assert known_result(aten.threshold_backward.default, (gradient, x[0, 0, 0], 0)) is None


@pytest.mark.parametrize("values", [-1.0, [-1.0], [[-1.0]]])
@pytest.mark.parametrize("rectify", [F.relu_, lambda x: F.leaky_relu_(x, 0.0)])
def test_what_a_network_writes_out_goes_on_to_be_followed(values, rectify):
    """Torch knows such numbers, and what a branch on them does."""

    class Branching(nn.Module):
        def forward(self, x):
            table = torch.tensor(values)
            rectify(table)
            return x @ x.mT if table.item() == 0 else x

    assert count(Branching(), (3, 4, 4)).macs == 3 * 4 * 4 * 4


def test_vectors_with_data_are_worked_on():
    """A network that must look at its data is run on some."""

    class Branching(nn.Module):
        def forward(self, x):
            low = x.mean((1, 2)) - 100
            low.relu_()
            return x @ x.mT if (low == 0).all() else x

    found = count(Branching(), (3, 4, 4))
    assert found.note.startswith("run on data")
    assert found.macs == 3 * 4 * 4 * 4 + 3 * 4 * 4


@pytest.mark.parametrize(
    "run", ["cumsum", "cumprod", "logcumsumexp", "cumsum_", "cumprod_"]
)  # fmt: skip
def test_what_runs_over_elements_has_none(run):
    network = Of(lambda x: getattr(x.clone(), run)(1))
    found = count(network, (3, 8, 8), "train")
    assert (found.macs, found.backward_macs, found.uncounted) == (0, 0, {})


def describe(tensor):
    return tensor if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype)


def test_of_other_tensors_nothing_is_known():
    norm = torch.ops.aten.native_batch_norm.default
    back = torch.ops.aten.native_batch_norm_backward.default
    real = torch.randn(2, 3, 4, 4)
    assert known_result(norm, (real, None, None, None, None, True, 0.1, 1e-5)) is None
    with FakeTensorMode():
        half = torch.randn(2, 3, 4, 4).half()
        assert known_result(norm, (half, None, None, None, None, True, 0.1, 1e-5)) is None
        assert known_result(torch.ops.aten.relu.default, (half,)) is None
        # Its gradient is laid out by both.
        x, rows = torch.randn(2, 3, 4, 4), [torch.randn(3)] * 5
        gradient = torch.randn(2, 4, 4, 3).permute(0, 3, 1, 2)
        asked = (True, True, True)
        assert known_result(back, (gradient, x, *rows, True, 1e-5, asked)) is None
        assert known_result(back, (x, x, *rows, True, 1e-5, asked)) is not None
        elsewhere = torch.empty(x.shape, device="meta")
        assert known_result(norm, (elsewhere, *rows[:4], True, 0.1, 1e-5)) is None


def test_counts_are_those_of_torchs_own_results(monkeypatch):
    """Layers around a batch norm whose maps are laid out in other ways."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm2d(8), nn.Linear(8, 2)

        def forward(self, x):
            maps = self.norm(self.first(x).permute(0, 3, 1, 2))
            return self.last(maps.permute(0, 2, 3, 1))

    ours = count(Odd(), (3, 4, 6), "train", batch=2)
    monkeypatch.setattr(operators, "known_result", lambda *_: None)
    assert ours == count(Odd(), (3, 4, 6), "train", batch=2)
