"""Gradients of convolutions' weights by products of matrices, against torch's own."""

import threading

import pytest
import torch
from torch import nn

from dabench.training import products as module
from dabench.training.products import ProductGradients, no_weights, pay_off


@pytest.fixture
def products(monkeypatch):
    """The shapes of the weights whose gradients were computed as products."""
    seen, real = [], module.weight_gradient

    def computed(x, gradient, kernel, *others):
        seen.append(tuple(kernel))
        return real(x, gradient, kernel, *others)

    monkeypatch.setattr(module, "weight_gradient", computed)
    # Layers as small as those here would stay torch's.
    monkeypatch.setattr(module, "FEWEST", 16)
    monkeypatch.setattr(module, "SHORTEST", 1)
    return seen


def convolution(channels=3, outputs=16, kernel=3, *, nhwc=True, **settings):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, outputs, kernel, **settings).double()
    return layer.to(memory_format=torch.channels_last) if nhwc else layer


def image(channels=3, size=(9, 10)):
    return torch.randn(3, channels, *size, dtype=torch.float64, requires_grad=True)


def learnt(layer, x, context):
    """Output and gradients of input, weight and bias after a backward pass."""
    layer.zero_grad()
    x.grad = None
    with context:
        output = layer(x)
    (output * torch.arange(output.numel()).view_as(output)).sum().backward()
    return [output.detach(), x.grad, *(p.grad for p in layer.parameters())]


def assert_same(layer, x):
    theirs = learnt(layer, x, torch.enable_grad())
    ours = learnt(layer, x, ProductGradients())
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine is None) == (its is None)
        if mine is not None:
            torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)
            assert mine.stride() == its.stride()


@pytest.mark.parametrize("positions", [1, 25, 200, 1024])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": 3, "padding": 1, "bias": False},
        {"kernel": 4, "stride": 2, "padding": 1},
        {"kernel": (3, 5), "stride": (2, 1), "padding": (0, 2)},
        {"kernel": (1, 3)},
        {"kernel": (9, 10), "channels": 1},
    ],
    ids=str,
)
def test_gradients_are_those_of_torch(settings, positions, products, monkeypatch):
    layer = convolution(**settings)
    window = layer.weight[0].numel() * layer.weight.element_size()
    monkeypatch.setattr(module, "ROOM_BYTES", positions * window)
    assert_same(layer, image(layer.in_channels))
    assert products == [layer.kernel_size]


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": 2, "channels": 4},
        {"dilation": 2},
        {"kernel": 1},
        {"outputs": 15},
        {"padding": "same"},
        {"nhwc": False},
    ],
    ids=str,
)
def test_what_stays_as_it_is(settings, products):
    layer = convolution(**settings)
    assert_same(layer, image(layer.in_channels))
    assert products == []


@pytest.mark.parametrize("budget", [1, 3, 7])
def test_windows_take_no_more_room_than_they_may(budget, monkeypatch):
    """Of rows of 7 windows, one at least."""
    x, gradient = torch.randn(2, 3, 7, 7), torch.randn(2, 16, 7, 7)
    x, gradient = (t.contiguous(memory_format=torch.channels_last) for t in (x, gradient))
    rooms, real = [], torch.Tensor.new_empty

    def new_empty(tensor, *size, **options):
        made = real(tensor, *size, **options)
        rooms.append(made.shape)
        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    window = 3 * 3 * 3
    monkeypatch.setattr(module, "ROOM_BYTES", budget * 7 * window * 4)
    module.weight_gradient(x, gradient, (3, 3), (1, 1), (1, 1))
    assert rooms == [(16, window), (budget * 7, window)]


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "ours"),
    [(6, 32, 3, True), (5, 32, 3, False), (6, 31, 3, False), (6, 32, (3, 2), False),
     (8, 32, (1, 2), True)],
)  # fmt: skip
def test_layers_for_which_windows_cost_more_than_they_save(
    channels, outputs, kernel, ours, monkeypatch
):
    seen, real = [], module.weight_gradient
    monkeypatch.setattr(
        module, "weight_gradient", lambda *given: seen.append(given) or real(*given)
    )
    assert_same(convolution(channels, outputs, kernel), image(channels))
    assert bool(seen) == ours


def test_what_learns_nothing_costs_nothing(products):
    layer = convolution()
    layer.bias.requires_grad_(False)
    assert_same(layer, image())
    assert products == [(3, 3)]
    layer.requires_grad_(False)
    assert_same(layer, image())
    layer.requires_grad_(True)
    with torch.no_grad(), ProductGradients():
        assert not layer(image()).requires_grad
    assert products == [(3, 3)]


def test_an_input_in_another_order_is_converted_once(products, monkeypatch):
    layer, x = convolution(), image()
    assert x.is_contiguous()
    converted, real = [], torch.Tensor.contiguous

    def contiguous(tensor, **layout):
        result = real(tensor, **layout)
        converted.extend([tensor.shape] * (result is not tensor))
        return result

    monkeypatch.setattr(torch.Tensor, "contiguous", contiguous)
    kept = []
    with (
        ProductGradients(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        output = layer(x)
    output.sum().backward()
    assert converted == [x.shape]
    # The convolution and we keep the same one.
    inputs = {t.data_ptr() for t in kept if t.shape == x.shape}
    assert len(inputs) == 1
    assert x.data_ptr() not in inputs
    assert x.grad.is_contiguous()
    assert products == [(3, 3)]


@pytest.mark.parametrize("needs", [True, False])
def test_what_torch_refuses_is_refused(needs, products):
    """An input changed since the forward pass, and a second backward pass without its graph."""
    layer = convolution()
    x = image().detach().contiguous(memory_format=torch.channels_last).requires_grad_(needs)
    with ProductGradients():
        output = layer(x)
    with torch.no_grad():
        x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    with ProductGradients():
        output = layer(x)
    output.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()
    assert products == [(3, 3)]


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w: torch.conv2d(x, w, None, 2, 1),
        lambda x, w: torch.conv2d(input=x, weight=w, stride=[2], dilation=1),
        lambda x, w: torch.conv2d(x[:0], w, padding=1),
    ],
    ids=["numbers", "keywords", "no images"],
)
def test_it_is_called_as_torchs_own(call, products):
    weight, x = convolution().weight, image()
    found = []
    for context in (torch.enable_grad(), ProductGradients()):
        weight.grad = x.grad = None
        with context:
            output = call(x, weight)
        output.square().sum().backward()
        found.append((output.detach(), x.grad, weight.grad))
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)


def test_two_threads_add_to_one_gradient(monkeypatch):
    """The first is held between reading the gradient and writing it."""

    class Held(torch.Tensor):
        read, written = threading.Event(), threading.Event()

        def __iadd__(self, other):
            self.read.set()
            # With the lock nobody writes meanwhile.
            self.written.wait(0.2)
            return self.detach() + other

    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2).as_subclass(Held)

    def second():
        Held.read.wait(10)
        module._add(weight, torch.full((2,), 4.0))
        Held.written.set()

    other = threading.Thread(target=second)
    other.start()
    module._add(weight, torch.full((2,), 2.0))
    other.join()
    assert weight.grad.tolist() == [7.0, 7.0]


def test_who_asks_for_the_input_alone_says_so(products):
    layer, x = convolution(), image()
    expected = learnt(layer, x, ProductGradients())[1]
    layer.zero_grad()
    products.clear()
    with ProductGradients():
        output = layer(x)
    loss = (output * torch.arange(output.numel()).view_as(output)).sum()
    with no_weights():
        (found,) = torch.autograd.grad(loss, x, retain_graph=True)
    torch.testing.assert_close(found, expected)
    assert products == []
    assert layer.weight.grad is None
    # Once more, for the weights alone.
    loss.backward(inputs=list(layer.parameters()))
    assert products == [(3, 3)]


def test_work_is_put_off_and_adds_up(products):
    layer, x, tasks = convolution(), image(), []
    expected = learnt(layer, x, torch.enable_grad())[2]
    layer.zero_grad()
    for _ in range(2):
        with ProductGradients(tasks.append):
            output = layer(x)
        (output * torch.arange(output.numel()).view_as(output)).sum().backward()
    assert (len(tasks), products, layer.weight.grad) == (2, [], None)
    for task in tasks:
        task()
    torch.testing.assert_close(layer.weight.grad, 2 * expected)


@pytest.mark.parametrize(("capability", "pays"), [("AVX2", True), ("AVX512", False)])
def test_where_they_pay_off(capability, pays, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert pay_off("cpu") == pays
    assert not pay_off("cuda")
