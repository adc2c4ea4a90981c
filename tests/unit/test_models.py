"""Networks against the published ones, under the same weights."""

import subprocess
import sys

import pytest
import torch
from published_nets import (
    discriminator,
    discriminator_keys,
    light_discriminator,
    light_discriminator_keys,
    random_state,
    segmenter,
    segmenter_keys,
    stdc_backbone,
    stdc_classifier,
    stdc_classifier_keys,
    with_aliases,
)

from dabench_models import MODELS, UnknownModelError, build, load_weights, resolve
from dabench_models.bisenet import SegmenterOutput
from dabench_models.blocks import upsample_bilinear
from dabench_models.discriminators import DiagonalwiseConv2d, load_depthwise
from dabench_models.resnet import ResNet18Backbone

ARCHS = ("stdc1", "stdc2")
DISCRIMINATORS = ("disc", "dw-disc", "diag-disc")


def parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def close(ours, theirs, tolerance=1e-4):
    """Equal to `tolerance` relative to the reference's norm."""
    assert ours.shape == theirs.shape
    return (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.fixture
def published(tmp_path):
    """Writes a checkpoint in the published format; returns state dict and path."""

    def write(keys, arch=None, seed=0):
        state = random_state(keys, seed)
        path = tmp_path / "published.pth"
        torch.save({"state_dict": with_aliases(state, arch) if arch else state}, path)
        return state, path

    return write


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("stdc1", 8_443_552),
        ("stdc2", 12_474_016),
        ("disc", 2_781_121),
        ("dw-disc", 191_364),
        ("diag-disc", 671_056),
        # As dw-disc: an activation has no parameters.
        ("light-disc", 191_364),
        ("light2-disc", 13_316),
    ],
)
def test_parameter_counts_are_the_published_ones(name, count):
    assert parameters(build(name)) == count


@pytest.mark.parametrize(("arch", "count"), [("stdc1", 12_048_928), ("stdc2", 16_079_392)])
def test_segmenter_lacks_exactly_what_it_does_not_use(arch, count):
    model = build(f"{arch}-bisenet")
    unused = [
        shape
        for key, shape in segmenter_keys(arch).items()
        if key not in model.state_dict() and "running" not in key and "num_batches" not in key
    ]
    left_out = sum(torch.Size(shape).numel() for shape in unused)
    assert parameters(model) + left_out == count


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", [(64, 128), (97, 161)])
def test_segmenter_heads_equal_the_published(arch, size, published):
    state, path = published(segmenter_keys(arch), arch)
    model = build(f"{arch}-bisenet").eval()
    load_weights(model, path)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = segmenter(state, x, arch)
        ours = model.forward_heads(x)
        assert close(model(x), theirs["main"])
    for head in SegmenterOutput._fields:
        assert close(getattr(ours, head), theirs[head]), head


@pytest.mark.parametrize("arch", ARCHS)
def test_segmenter_in_training_mode_equals_the_published(arch, published):
    state, path = published(segmenter_keys(arch), arch)
    model = build(f"{arch}-bisenet").train()
    load_weights(model, path)
    x = torch.randn(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = segmenter(state, x, arch, train=True)
        ours = model(x)
    for head in SegmenterOutput._fields:
        assert close(getattr(ours, head), theirs[head]), head


@pytest.mark.parametrize("arch", ARCHS)
def test_backbone_and_classifier_equal_the_published(arch, published):
    state, path = published(stdc_classifier_keys(arch), arch)
    classifier = build(arch).eval()
    load_weights(classifier, path)
    backbone = build(f"{arch}-bisenet").cp.backbone.eval()
    load_weights(backbone, path)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert close(classifier(x), stdc_classifier(state, x, arch))
        for ours, theirs in zip(backbone(x), stdc_backbone(state, x, arch)[2:], strict=True):
            assert close(ours, theirs)


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_discriminators_equal_the_published(kind, published):
    state, path = published(discriminator_keys(kind))
    model = build(kind).eval()
    load_weights(model, path)
    x = torch.randn(2, 19, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert close(model(x), discriminator(state, x, kind))
        assert model(x).shape == (2, 1, 64, 96)


@pytest.mark.parametrize(("kind", "size"), [("light-disc", (64, 96)), ("light2-disc", (8, 12))])
def test_rtdas_discriminators_equal_the_published(kind, size, published):
    state, path = published(light_discriminator_keys(kind))
    model = build(kind).eval()
    load_weights(model, path)
    x = torch.randn(2, 19, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert close(model(x), light_discriminator(state, x, kind))
        assert model(x).shape == (2, 1, *size)


def test_resnet18_equals_torchvision():
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(weights=None).eval()
    ours = ResNet18Backbone().eval()
    state = theirs.state_dict()
    ours.load_state_dict({key: state[key] for key in ours.state_dict()})
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = ours(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        y = theirs.layer2(theirs.layer1(y))
        assert close(features.s8, y)
        assert close(features.s32, theirs.layer4(theirs.layer3(y)))


@pytest.mark.parametrize("name", [n for n, s in MODELS.items() if s.family == "segmenter"])
def test_eval_computes_nothing_the_main_output_does_not_need(name):
    model = build(name).eval()
    called = set()
    for path, module in model.named_modules():
        module.register_forward_hook(lambda *_, path=path: called.add(path))
    output = model(torch.randn(1, 3, 65, 97))
    assert isinstance(output, torch.Tensor)
    assert output.shape == (1, 19, 65, 97)
    assert "conv_out" in called
    assert not {path for path in called if path.startswith(("conv_out16", "conv_out32"))}
    assert "conv_out_sp8" not in called


@pytest.mark.parametrize("name", [n for n, s in MODELS.items() if s.family == "segmenter"])
def test_training_returns_every_head_and_forward_heads_the_same(name):
    model = build(name, num_classes=7).train()
    x = torch.randn(2, 3, 64, 96)
    output = model(x)
    assert isinstance(output, SegmenterOutput)
    assert (
        tuple(f for f in output._fields if getattr(output, f) is not None) == MODELS[name].outputs
    )
    assert output.main.shape == output.aux16.shape == output.aux32.shape == (2, 7, 64, 96)
    if output.detail is not None:
        assert output.detail.shape == (2, 1, 8, 12)
    again = model.forward_heads(x)
    torch.testing.assert_close(again.main, output.main)
    small = model.forward_heads(x, upsampled=False)
    for head in ("main", "aux16", "aux32"):
        raised = upsample_bilinear(getattr(small, head), like=x)
        torch.testing.assert_close(raised, getattr(output, head))


def test_a_segmenter_cannot_train_on_one_image():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        build("stdc1-bisenet").train()(torch.randn(1, 3, 64, 64))


def test_diagonalwise_computes_what_depthwise_computes():
    depthwise, diagonalwise = build("dw-disc"), build("diag-disc", bias=True)
    load_depthwise(diagonalwise, depthwise)
    x = torch.randn(2, 19, 64, 64, dtype=torch.float64)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    weight = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    outputs = []
    for model, y in zip((depthwise, diagonalwise), inputs, strict=True):
        outputs.append(model.double()(y))
        (outputs[-1] * weight).sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for theirs, ours in zip(depthwise.conv_layers, diagonalwise.conv_layers, strict=True):
        if isinstance(ours, DiagonalwiseConv2d):
            # The gradient lives under the mask only, and there it is the depthwise one.
            kept = ours.weight.grad.sum(dim=1, keepdim=True)
            torch.testing.assert_close(kept, theirs.weight.grad)
            assert not (ours.weight.grad * (1 - ours.mask)).any()
            torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_conversion_refuses_layers_that_differ():
    with pytest.raises(ValueError, match="bias"):
        load_depthwise(build("diag-disc"), build("dw-disc"))
    with pytest.raises(ValueError, match="not depthwise"):
        DiagonalwiseConv2d(64, bias=True).load_depthwise(torch.nn.Conv2d(64, 64, 4, groups=2))


def test_the_mask_is_a_buffer_and_keeps_one_channel_of_each_filter():
    model = build("diag-disc")
    assert not [name for name, _ in model.named_parameters() if "mask" in name]
    for layer in model.modules():
        if isinstance(layer, DiagonalwiseConv2d):
            width = layer.weight.shape[1]
            assert layer.groups == max(layer.weight.shape[0] // 32, 1)
            assert (layer.mask.sum(dim=(1, 2, 3)) == 1).all()
            assert all(layer.mask[c, c % width] == 1 for c in range(len(layer.mask)))


def test_published_diagonalwise_has_no_bias_and_the_option_has():
    assert not [n for n, _ in build("diag-disc").named_parameters() if n.endswith("bias")]
    with_bias = build("diag-disc-bias")
    assert [n for n, _ in with_bias.named_parameters() if n.endswith("bias")]
    assert parameters(with_bias) == parameters(build("diag-disc", bias=True))


def test_unknown_names_give_choices_and_the_nearest():
    with pytest.raises(UnknownModelError, match=r"did you mean 'dw-disc'.*stdc1-bisenet") as error:
        build("dwdisc")
    assert "\n" not in str(error.value)
    with pytest.raises(UnknownModelError, match="choices"):
        resolve("xyz")


def test_aliases_lead_to_registered_models():
    assert resolve("depthwise") is MODELS["dw-disc"]


def test_the_registry_is_readable_without_torch():
    code = "import sys, dabench_models; assert dabench_models.MODELS; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_specs_cannot_be_changed():
    with pytest.raises(AttributeError):
        MODELS["disc"].channels = 3
    with pytest.raises(TypeError):
        MODELS["new"] = MODELS["disc"]
