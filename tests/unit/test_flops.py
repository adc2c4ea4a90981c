"""Counts against closed forms, exactly."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dabench.base.errors import UsageError
from dabench.counting import operators
from dabench.counting.counted import ModelCount
from dabench.counting.counts import count_model, count_network
from dabench.counting.crosscheck import cross_check
from dabench.counting.forms import form_of
from dabench.counting.operators import trace_operators
from dabench.counting.shares import time_shares
from dabench_models import MODELS, build

WIDTHS = (19, 64, 128, 256, 512, 1)
SIZES = [(512 >> i) * (256 >> i) for i in range(5)]  # output pixels of the five layers
UPSAMPLED = 4 * 1024 * 512


def separable(depthwise_width):
    """Multiply-adds of the five layers: a k x k part over `depthwise_width(C)`, a 1x1 part."""
    total = 0
    for c_in, c_out, pixels in zip(WIDTHS, WIDTHS[1:], SIZES, strict=False):
        total += pixels * (16 * c_in * depthwise_width(c_in) + c_in * c_out)
    return total


def group_width(channels):
    return channels // max(channels // 32, 1)


STANDARD = sum(
    16 * c_in * c_out * pixels
    for c_in, c_out, pixels in zip(WIDTHS, WIDTHS[1:], SIZES, strict=False)
)
DEPTHWISE = separable(lambda _: 1)
DIAGONALWISE = separable(group_width)


@pytest.mark.parametrize(
    ("name", "macs", "executed"),
    [
        ("disc", STANDARD, STANDARD),
        ("dw-disc", DEPTHWISE, DEPTHWISE),
        ("diag-disc", DEPTHWISE, DIAGONALWISE),
        ("light-disc", DEPTHWISE, DEPTHWISE),
    ],
)
def test_discriminators_equal_the_closed_forms(name, macs, executed):
    count = count_model(name)
    assert count.macs == macs + UPSAMPLED
    assert count.executed_macs == executed + UPSAMPLED
    assert count.by_operator == {"convolution": executed, "upsample_bilinear2d": UPSAMPLED}
    assert count.flops == 2 * count.macs


def test_the_smallest_discriminator_has_three_layers_and_no_upsampling():
    channels = (19, 64, 128, 1)
    expected = sum(
        pixels * (16 * c_in + c_in * c_out)
        for c_in, c_out, pixels in zip(channels, channels[1:], SIZES, strict=False)
    )
    count = count_model("light2-disc")
    assert count.macs == count.executed_macs == expected
    assert count.by_operator == {"convolution": expected}


def test_the_published_totals():
    assert STANDARD == 15_439_233_024
    assert STANDARD + UPSAMPLED == 15_441_330_176
    assert DEPTHWISE == 1_067_712_512
    assert DIAGONALWISE == 3_735_289_856


@pytest.mark.parametrize(
    ("name", "width"), [("disc", None), ("dw-disc", lambda _: 1), ("diag-disc", group_width)]
)
def test_the_backward_is_twice_the_forward_but_for_the_first_layer(name, width):
    """Weights and input cost a forward each; the network's input needs no gradient."""
    count = count_model(name, mode="train")
    forward = STANDARD if width is None else separable(width)
    first = SIZES[0] * 16 * (19 * 64 if width is None else 19 * width(19))
    assert count.executed_backward_macs == 2 * forward - first + UPSAMPLED
    assert count.phase_macs("total", executed=True) == (
        count.executed_macs + count.executed_backward_macs
    )
    assert count.phase_macs("optimizer", executed=True) is None


@pytest.mark.parametrize(("name", "low", "high"), [("stdc1", 810, 813), ("stdc2", 1444, 1446)])
def test_stdc_counts_are_the_published_ones(name, low, high):
    assert low <= count_model(name).macs / 1e6 <= high


def test_counts_are_proportional_to_the_batch():
    one, eight = (count_model("diag-disc", batch=b, height=64, width=64) for b in (1, 8))
    for field in ("macs", "executed_macs", "activations"):
        assert getattr(eight, field) == 8 * getattr(one, field)
    weights = 4 * sum(layer.params for layer in one.layers)
    assert eight.min_bytes - weights == 8 * (one.min_bytes - weights)


@cache
def segmenter(mode):
    return count_model("stdc1-bisenet", height=64, width=64, mode=mode)


def test_a_graph_has_a_name_whatever_its_weights_and_batch():
    names = {count_model("dw-disc", height=64, width=64, batch=batch).graph for batch in (1, 2, 8)}
    assert len(names) == 1
    others = {
        count_model("dw-disc", height=64, width=96).graph,
        count_model("disc", height=64, width=64).graph,
        segmenter("eval").graph,
        segmenter("train").graph,
    }
    assert len(names | others) == 5


class Ending(nn.Module):
    """The same layers, put together in another way."""

    def __init__(self, mode, of_what):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.mode, self.of_what = mode, of_what

    def forward(self, x):
        found = self.one(x), self.two(x)
        return nn.functional.interpolate(found[self.of_what] + found[0], scale_factor=2,
                                         mode=self.mode)  # fmt: skip


def test_graphs_of_equal_counts_are_told_apart():
    ends = [(mode, of_what) for mode in ("nearest", "bilinear") for of_what in (0, 1)]
    graphs = [
        trace_operators(Ending(*end).eval(), (2, 3, 8, 8), backward=False).graph
        for end in (*ends, ends[0])
    ]
    assert len(set(graphs)) == 4
    assert graphs[0] == graphs[-1]


class Asking(nn.Module):
    """Layers between which something small differs."""

    def __init__(self, ask):
        super().__init__()
        self.layer, self.ask = nn.Conv2d(3, 4, 1), ask

    def forward(self, x):
        return self.ask(self.layer(x))


def halves(ask):
    return lambda x: ask(*x.chunk(2, 1))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (halves(lambda a, b: a * b.sigmoid()), halves(lambda a, b: b * a.sigmoid())),
        (lambda x: x @ x.transpose(2, 3), lambda x: x.transpose(2, 3) @ x),
        (lambda x: (x * 1j).abs(), lambda x: (x * 2j).abs()),
        (lambda x: x[:, [0, 1]], lambda x: x[:, [0, 2]]),
        (lambda x: x[:, torch.tensor([0, 1])], lambda x: x[:, torch.tensor([1, 0])]),
        (lambda x: x.to(torch.float16).float(), lambda x: x.to(torch.bfloat16).float()),
    ],
)
def test_graphs_that_differ_in_one_argument_are_told_apart(one, two):
    graphs = [
        trace_operators(Asking(ask).eval(), (2, 3, 8, 8), backward=False).graph
        for ask in (one, two, one)
    ]
    assert graphs[0] == graphs[2]
    assert graphs[0] != graphs[1]


class Kept(nn.Module):
    """Channels in an order that is kept beside the weights."""

    def __init__(self, order):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x):
        return self.layers(x)[:, self.order]


def test_a_kept_order_belongs_to_the_graph_and_how_long_it_trained_does_not():
    def graph(network, mode="eval"):
        network.train(mode == "train")
        return trace_operators(network, (2, 3, 8, 8), backward=mode == "train").graph

    one, other, trained = Kept([0, 1]), Kept([1, 0]), Kept([0, 1])
    trained(torch.zeros(2, 3, 8, 8))
    assert graph(one) == graph(trained) != graph(other)
    assert graph(one, "train") == graph(trained, "train")


def test_what_is_frozen_makes_another_graph_in_training_only():
    def graph(frozen, *, train):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).train(train)
        network[0].requires_grad_(not frozen)
        return trace_operators(network, (2, 3, 8, 8), backward=train).graph

    assert graph(True, train=False) == graph(False, train=False)
    assert graph(True, train=True) != graph(False, train=True)


def test_that_batch_norm_takes_no_single_pixel_is_believed_without_data(monkeypatch):
    traced, ways = operators._traced, []

    def noted(*args, fake, **rest):
        ways.append(fake)
        return traced(*args, fake=fake, **rest)

    monkeypatch.setattr(operators, "_traced", noted)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    count = count_alone(network)
    assert (count.batch, count.linear, len(ways)) == (1, True, 4)
    assert all(ways)


class Exchanging(nn.Module):
    """A layer that works with other data for a while, four times as wide."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4, bias=False)
        self.narrow, self.wide = self.layer.weight.data, torch.randn(16, 8)

    def forward(self, x):
        self.layer.weight.data = self.wide
        wide = self.layer(x)
        self.layer.weight.data = self.narrow
        return wide.sum() + self.layer(x).sum()


def test_a_weight_is_taken_as_it_is_when_it_is_read():
    found = trace_operators(Exchanging().eval(), (2, 8), backward=False)
    assert not found.on_data
    assert sum(each.macs for each in found.own["forward", "layer"].values()) == 2 * 8 * (16 + 4)


class Streaming(nn.Module):
    """A layer whose weights are brought for each of its calls, and gone after it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8, bias=False)

    def forward(self, x):
        for _ in range(6):
            self.layer.weight.data = torch.from_dlpack(np.ones((8, 8), np.float32))
            x = self.layer(x)
            self.layer.weight.data = torch.empty(0)
        return x


def test_weights_that_come_and_go_are_not_taken_for_one_another():
    found = [trace_operators(Streaming().eval(), (2, 8), backward=False) for _ in range(3)]
    assert not any(each.on_data for each in found)
    assert len({each.graph for each in found}) == 1


def test_a_graph_that_depends_on_data_has_no_name():
    found = trace_operators(Asking(lambda x: x[x > 0]).eval(), (2, 3, 8, 8), backward=False)
    assert found.on_data
    assert found.graph == ""


def test_layers_add_up_to_the_model():
    count = segmenter("train")
    for field in ("macs", "executed_macs", "backward_macs", "activations", "bytes_moved"):
        assert sum(getattr(layer, field) for layer in count.layers) == getattr(count, field)
    assert sum(count.by_operator.values()) == count.executed_macs


def test_training_counts_the_heads_that_eval_leaves_out():
    train, evaluate = segmenter("train"), segmenter("eval")
    names = {layer.layer.split(".")[0] for layer in train.layers}
    assert names - {layer.layer.split(".")[0] for layer in evaluate.layers} == {
        "conv_out16",
        "conv_out32",
        "conv_out_sp8",
    }
    assert evaluate.backward_macs == 0


def count_alone(network, shape=(3, 8, 8)):
    spec = MODELS["disc"].__class__(
        name="x", family="classifier", builder="", channels=shape[0], summary="", source=""
    )
    return count_network(network, spec, batch=1, shape=shape, mode="train")


def test_grouped_backward_is_the_forward_thrice_in_all():
    """torch's own counter ignores the groups in the weight gradient (66x instead of 3x)."""
    network = nn.Sequential(nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=32))
    count = count_alone(network, (32, 16, 16))
    depthwise = count.layers[1]
    assert depthwise.macs == 32 * 9 * 256
    assert depthwise.backward_macs == 2 * depthwise.macs
    assert count.layers[0].backward_macs == count.layers[0].macs


def test_a_linear_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    count = count_alone(network)
    assert count.macs == 1920
    assert count.activations == 10
    assert count.min_bytes == 4 * (192 + 1930 + 10)
    assert count.bytes_moved == 4 * (192 + 1930 + 10)


class Odd(nn.Module):
    def forward(self, x):
        x = torch.fft.fft(x).abs()
        return torch.cdist(x, x).cumsum(1)


def test_operators_nobody_counts_are_named():
    count = count_alone(Odd())
    assert set(count.uncounted) == {"_fft_r2c", "_cdist_forward"}
    assert count.at_least
    light = count_model("dw-disc", height=32, width=32)
    assert (light.without, light.uncounted) == ({"leaky_relu_": 8}, {})
    assert not light.at_least


class Aligned(nn.Module):
    """A spatial transformer, and a norm that is no layer's."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.eye(2, 3)[None])

    def forward(self, x):
        grid = F.affine_grid(self.theta.expand(len(x), -1, -1), x.shape)
        return F.normalize(F.grid_sample(x, grid))


@pytest.mark.filterwarnings("ignore:Default grid_sample and affine_grid behavior")
def test_what_fvcore_has_no_rule_for_is_named():
    count = count_alone(Aligned())
    *_, rest = cross_check(Aligned(), count)
    assert (rest.ours, rest.theirs) == (8 * 8 * 2 * 3 + 3 * 8 * 8, 0)
    assert rest.why.startswith("fvcore does not count affine_grid_generator x1, ")


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(
    "name", ["disc", "dw-disc", "diag-disc", "stdc1", "stdc1-bisenet", "bisenet-r18"]
)
def test_fvcore_agrees_or_the_difference_is_explained(name, mode):
    size = {"height": 64, "width": 64}
    count = count_model(name, batch=2, mode=mode, **size)
    for row in cross_check(build(name), count):
        assert row.ours == row.theirs or "fvcore" in row.why, row
        assert row.group == "averages" or not row.why


class Does(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# What a network does -> what fvcore does otherwise.
OTHERWISE = {
    "a vector": (lambda x: torch.mv(x[0, 0], x[0, 1, 0]), "fvcore does not count mv x1"),
    "many at once": (lambda x: torch.baddbmm(x[0], x[0], x[0]), "fvcore does not count baddbmm x1"),
    "a diagonal": (lambda x: torch.einsum("nchw,c->nchw", x, x[0, :, 0, 0]),
                   "fvcore takes numpy's estimate of an einsum that is no product of two"),
    "nearest": (lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), mode="nearest"),
                "fvcore counts each grid sampling as a bilinear one"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Default grid_sample and affine_grid behavior")
@pytest.mark.parametrize("name", OTHERWISE)
def test_what_fvcore_does_otherwise_is_said(name):
    function, why = OTHERWISE[name]
    network = Does(function)
    (row,) = cross_check(network, count_alone(network))
    assert row.ours != row.theirs
    assert row.why == why


class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


class Several(nn.Module):
    """What fvcore does otherwise, each with its own reason."""

    def __init__(self):
        super().__init__()
        self.dropped, self.kept = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        self.dropped(x)
        y = F.avg_pool2d(self.kept(Identity.apply(x)), 2)
        return F.scaled_dot_product_attention(y, y, y)


def test_reasons_are_of_their_own_group():
    network = Several()
    convolutions, products, averages = cross_check(network, count_alone(network))
    assert convolutions.why.startswith("fvcore's trace leaves out what the network computes")
    assert products.why == "fvcore does not count scaled_dot_product_attention x1"
    assert averages.why == "fvcore does not count avg_pool2d x1"


def test_average_pooling_costs_its_kernel():
    count = count_alone(nn.Sequential(nn.AvgPool2d(3, 2, 1)))
    assert count.macs == 9 * 3 * 4 * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"height": 0, "width": 64}, "--size: '0x64'"),
        ({"height": 33, "width": 32}, "multiples of 32"),
        ({"batch": -1}, "--batch: '-1'"),
        ({"mode": "both"}, "--mode: 'both'"),
    ],
)
def test_what_cannot_be_counted_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        count_model("disc", **given)


def test_no_memory_is_needed_however_large_the_input():
    sides = 3_200_000, 32
    large, small = (count_model("disc", height=h, width=32) for h in sides)
    assert large.macs == 100_000 * small.macs


def test_small_classifiers_count_in_training_too():
    assert count_model("stdc1", mode="train", height=32, width=32).backward_macs > 0


def test_flops_stand_beside_macs_in_json():
    document = count_model("disc", height=32, width=32, mode="train").to_dict()
    assert document["flops"] == 2 * document["macs"]
    assert document["backward_flops"] == 2 * document["backward_macs"]


def test_layers_are_a_frame():
    count = count_model("dw-disc", height=32, width=32)
    frame = count.to_frame()
    assert frame["macs"].sum() == count.macs
    assert frame["layer"].tolist() == [layer.layer for layer in count.layers]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_time_shares_of_what_is_not_counted_are_measured(mode):
    shares = time_shares(
        build("dw-disc"),
        MODELS["dw-disc"],
        shape=(19, 64, 64),
        mode=mode,
        operators=["leaky_relu_", "convolution", "nothing"],
    )
    assert set(shares) == {"leaky_relu_", "convolution"}
    assert 0 < shares["leaky_relu_"] < shares["convolution"] <= 1


def test_time_shares_of_a_network_in_half_precision():
    network = build("dw-disc").bfloat16()
    shares = time_shares(
        network, MODELS["dw-disc"], shape=(19, 32, 32), mode="eval", operators=["leaky_relu_"]
    )
    assert 0 < shares["leaky_relu_"] < 1


def test_counts_survive_json():
    count = count_model("diag-disc", height=32, width=32, mode="train")
    assert ModelCount.of(count.to_dict()) == count


def test_bytes_of_the_backward_by_hand():
    """Gradients and what was saved, read and written once each, in fp32."""
    count = count_model("dw-disc", batch=2, height=64, width=64, mode="train")
    layers = {layer.layer: layer for layer in count.layers}
    first, act = layers["conv_layers.0"], layers["conv_layers.1"]
    x, y, weights = 2 * 19 * 64 * 64, 2 * 19 * 32 * 32, 19 * 16 + 19
    # The network's own input needs no gradient.
    assert first.backward_bytes_moved == 4 * (y + x + weights)
    assert first.bytes_moved == 4 * (x + y + weights)
    assert act.backward_bytes_moved == 4 * 3 * y
    assert (first.operators, act.operators) == (1, 1)
    (second,) = [layer for path, layer in layers.items() if path == "conv_layers.2"]
    z = 2 * 64 * 32 * 32
    # The bias is not needed for gradients, and has one.
    assert second.backward_bytes_moved == 4 * (2 * y + z + 2 * 19 * 64 + 64)
    upsampling = layers["(functional)"]
    assert upsampling.backward_bytes_moved == 4 * 2 * (2 * 2 + 64 * 64)
    assert count_model("dw-disc", height=64, width=64).layers[0].backward_bytes_moved == 0


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (nn.Conv2d(4, 4, 1), "convolution 1x1"),
        (nn.Conv2d(4, 4, 3), "convolution"),
        (nn.ConvTranspose2d(4, 4, 2), "convolution"),
        (nn.Conv2d(4, 4, 1, groups=2), "grouped convolution"),
        (nn.Linear(4, 4), ""),
    ],
)
def test_forms_of_convolutions(layer, form):
    assert form_of(layer) == form
    assert {row.form for row in count_model("dw-disc", height=32, width=32).layers} == {
        "", "convolution 1x1", "grouped convolution",
    }  # fmt: skip
