"""Times per layer on a clock that only the layers move."""

import pytest
import torch
from fakes import FakeClock, make_case
from torch import nn

from dabench.profiling.layers import LOSS, measure_layers
from dabench.run import worker


class Idle:
    """A device that does its work at once."""

    queues_work = False

    def synchronize(self):
        pass

    def timer(self):
        return None


class Slow(torch.autograd.Function):
    """Takes given seconds of the fake clock, forward and backward."""

    @staticmethod
    def forward(ctx, x, clock, forward_s, backward_s):
        ctx.clock, ctx.seconds = clock, backward_s
        clock.now += forward_s
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += ctx.seconds
        return gradient, None, None, None


class Layer(nn.Module):
    def __init__(self, clock, forward_s, backward_s):
        super().__init__()
        self.times = clock, forward_s, backward_s

    def forward(self, x):
        return Slow.apply(x, *self.times)


class Network(nn.Module):
    """Two layers with work of its own before, between and after them."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.first = Layer(clock, 1, 2)
        self.block = nn.Sequential(Layer(clock, 4, 8))

    def forward(self, x):
        x = Slow.apply(x, self.clock, 0.1, 0.2)
        x = self.first(x)
        x = Slow.apply(x, self.clock, 0.1, 0.2)
        x = self.block(x)
        return Slow.apply(x, self.clock, 0.1, 0.2)


class Work:
    def __init__(self, network, clock, *, backward):
        self.network, self.clock, self.backward = network, clock, backward
        self.output = None

    def prepare(self):
        if self.backward:
            out = self.network(torch.ones(2, requires_grad=True))
            self.output = Slow.apply(out, self.clock, 0, 16).sum()

    def run(self):
        if self.backward:
            self.output.backward()
        else:
            self.output = self.network(torch.ones(2))

    def release(self):
        self.output = None


def fewest_passes(network, clock, *, backward):
    work = Work(network, clock, backward=backward)
    return measure_layers(network, work, backward=backward, device=Idle(), clock=clock, limit_s=0)


@pytest.mark.parametrize(
    ("backward", "expected"),
    [
        (False, {"first": 1, "block.0": 4, "block (functional)": 0, "(functional)": 0.3}),
        (True, {"first": 2, "block.0": 8, "(functional)": 0.6, LOSS: 16}),
    ],
)
def test_each_layer_gets_its_own_seconds(backward, expected):
    clock = FakeClock()
    network = Network(clock)
    samples = fewest_passes(network, clock, backward=backward)
    assert {name: pytest.approx(times) for name, times in samples.layers.items()} == {
        name: [seconds] * 3 for name, seconds in expected.items()
    }
    whole = sum(expected.values())
    assert samples.bare == pytest.approx([whole] * 3)
    assert samples.hooked == pytest.approx([whole] * 3)


def test_no_hook_stays_behind():
    clock = FakeClock()
    network = Network(clock)
    fewest_passes(network, clock, backward=True)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


def test_more_passes_while_there_is_time():
    clock = FakeClock()
    network = Network(clock)
    work = Work(network, clock, backward=False)
    samples = measure_layers(network, work, backward=False, device=Idle(), clock=clock, limit_s=100)
    # Two passes of warm-up, then pairs of 5.4 s each.
    assert len(samples.bare) == len(samples.hooked) == 9


class ByKeyword(nn.Module):
    """Hands its layer the input by keyword, and a generator the layer must find unused."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.layer = Keyworded(clock, 1, 2)

    def forward(self, x):
        x = Slow.apply(x, self.clock, 10, 20)
        return self.layer(extra=(y for y in (x,)), x=x)


class Keyworded(Layer):
    def forward(self, extra, x):
        assert sum(1 for _ in extra) == 1
        return super().forward(x)


def test_arguments_by_keyword_belong_to_the_caller_and_generators_stay_whole():
    clock = FakeClock()
    network = ByKeyword(clock)
    samples = fewest_passes(network, clock, backward=True)
    found = {name: times[0] for name, times in samples.layers.items()}
    assert found == pytest.approx({"layer": 2, "(functional)": 20, LOSS: 16})


def fails(*_):
    raise RuntimeError("no kernel for it")


@pytest.mark.parametrize(
    ("measure", "floors"),
    [
        (iter([{"ReLU": 1.0, "Linear": 5.0}, {"ReLU": 3.0}]).__next__, {"ReLU": 2.0}),
        # Layers are worth having without.
        (fails, {}),
    ],
)
def test_floors_are_those_before_and_after_the_layers(monkeypatch, measure, floors):
    monkeypatch.setattr("dabench.profiling.kernels.measure_floors", lambda *_: measure())
    case = make_case(threads=1)
    request = {"kind": "layers", "case": case.to_dict(), "seed": 0, "limit_s": 0.0}
    messages = []
    worker._layers(request, messages.append)
    assert messages[1]["floors"] == floors
    assert messages[1]["layers"]
