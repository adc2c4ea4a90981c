"""int8: what is quantised, what it is calibrated on, and what is said of it."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from choices import steady, write_choice
from command import dabench
from datasets import write_gta5
from fakes import make_case
from PIL import Image
from trained import CONFIG, new_state, write_run

from dabench import api
from dabench.base.errors import DabenchError, DataError, UnsupportedError, UsageError
from dabench.data.calibration import calibration_of
from dabench.data.domain import DRAWN
from dabench.data.labels import CITYSCAPES
from dabench.device.native import emulates, int8_dot_products
from dabench.device.registry import open_device
from dabench.findings.joining import Identities
from dabench.network import quantising
from dabench.network.runtimes import prepare
from dabench.network.tensors import FlatOutputs
from dabench.network.workload import Workload
from dabench.plan.cases import expand
from dabench.plan.devices import resolve
from dabench.plan.networks import identity_of
from dabench.plan.settings import Grid, Settings
from dabench.plan.variants import why_impossible
from dabench.plan.ways import parse_way, way_name
from dabench.records.calibrations import FIELD, calibration_lines
from dabench.run.calibrating import calibrations, calibrations_again
from dabench.run.scoring import _plan
from dabench.run.worker import _calibration
from dabench.timing.clock import host_clock

extras = pytest.mark.extras
SHAPE = (1, 3, 16, 16)
HIDDEN = 8


def write_network(path):
    """Two convolutions, as torch's exporter would name them."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    numbers = np.random.default_rng(0)

    def conv(name, module, source, target, inputs, outputs):
        weights = numbers.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
        # Channels that differ by 100: one scale for all would lose the small ones.
        weights *= np.logspace(-1, 1, outputs, dtype=np.float32)[:, None, None, None]
        node = helper.make_node(
            "Conv", [source, f"{name}.w"], [target], name=name, kernel_shape=[3, 3], pads=[1] * 4
        )
        scopes = node.metadata_props.add()
        scopes.key, scopes.value = "pkg.torch.onnx.name_scopes", str(["", "network", module])
        return node, numpy_helper.from_array(weights, f"{name}.w")

    first, weights = conv("stem", "network.stem", "x", "a", 3, HIDDEN)
    last, more = conv("head", "network.head", "b", "y", HIDDEN, 4)
    graph = helper.make_graph(
        [first, helper.make_node("Relu", ["a"], ["b"], name="relu"), last],
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 4, 16, 16))],
        [weights, more],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def images():
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        yield torch.randn(SHAPE, generator=generator)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "network.onnx")


def run_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def kinds(path):
    import onnx

    return [node.op_type for node in onnx.load(path).graph.node]


def weights_of(path):
    """Name of a convolution -> its weights as they are stored."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    found = {}
    for node in (each for each in graph.node if each.op_type == "Conv"):
        maker = makers.get(node.input[1])
        found[node.name] = stored[(maker or node).input[0 if maker else 1]]
    return found


@extras
@pytest.mark.parametrize(("narrow", "most"), [(False, 127), (True, 64)])
def test_weights_are_quantised_per_channel_and_narrower_without_dot_products(
    network, tmp_path, capfd, narrow, most
):
    how = {"ranges": "4", "keep_float": "none", "narrow": narrow}
    path = quantising.quantised_onnx(network, tmp_path, images, **how)
    for weights in weights_of(path).values():
        assert weights.dtype == np.int8
        # Each channel uses its whole range, however small its weights are.
        assert (np.abs(weights.reshape(len(weights), -1).astype(int)).max(axis=1) >= most - 1).all()
        assert np.abs(weights.astype(int)).max() <= most
    x = next(images()).numpy()
    assert distance(run_onnx(path, x), run_onnx(network, x)) < 0.05
    assert quantising.quantised_onnx(network, tmp_path, None, **how) == path, "once per folder"
    assert capfd.readouterr().out == ""


@extras
@pytest.mark.parametrize(("keep", "kept"), [("heads", "head"), ("stem", "stem"), ("head", "head")])
def test_layers_that_are_left_in_fp32(network, tmp_path, keep, kept):
    how = {"ranges": "4", "keep_float": keep, "narrow": True}
    weights = weights_of(quantising.quantised_onnx(network, tmp_path, images, **how))
    assert {name for name, each in weights.items() if each.dtype == np.float32} == {kept}


class Deep(torch.nn.Module):
    """More layers than ten, so that names begin alike; folded batch norms; linear heads."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            *(
                torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1, bias=False), torch.nn.BatchNorm2d(4))
                for _ in range(11)
            )
        )
        self.head = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("deep") / "deep.onnx"
    torch.manual_seed(0)
    model = FlatOutputs(Deep()).eval()
    torch.onnx.export(model, (torch.randn(1, 4, 8, 8),), str(path), dynamo=True, verbose=False)
    return path


def deep_images():
    yield torch.ones(1, 4, 8, 8)


LAYERS = ("Conv", "Gemm", "MatMul")


@extras
@pytest.mark.parametrize(
    ("keep", "count"), [("none", 0), ("heads", 1), ("head", 2), ("head.0", 1), ("body.1", 1),
                        ("body.1.0", 1), ("body", 11)],
)  # fmt: skip
def test_layers_of_an_exported_network_are_kept_by_both(deep, tmp_path, keep, count):
    openvino = pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    how = {"keep_float": keep, "narrow": True}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    path = quantising.quantised_onnx(deep, tmp_path / "a", deep_images, ranges="1", **how)
    graph = onnx.load(path).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    plain = [node for node in layers if makers.get(node.input[1]) != "DequantizeLinear"]
    assert (len(plain), len(layers)) == (count, 13)
    path = quantising.quantised_openvino(deep, tmp_path / "b", deep_images, **how)
    ops = openvino.Core().read_model(path).get_ops()
    stored = [op for op in ops if op.get_type_name() == "Constant"]
    assert sum(op.get_element_type() == openvino.Type.i8 for op in stored) == 13 - count


@extras
@pytest.mark.parametrize(("keep", "count"), [("none", 2), ("heads", 1), ("head", 0)])
def test_linear_layers_are_kept_from_dynamic_ranges_too(deep, tmp_path, keep, count):
    how = {"ranges": "dynamic", "keep_float": keep, "narrow": True}
    path = quantising.quantised_onnx(deep, tmp_path, None, **how)
    assert kinds(path).count("MatMulInteger") == count


@extras
def test_a_module_that_is_none_names_those_that_are(network, tmp_path):
    how = {"ranges": "4", "keep_float": "hea", "narrow": True}
    with pytest.raises(UnsupportedError, match=r"in a module 'hea'; modules are head, stem, and"):
        quantising.quantised_onnx(network, tmp_path, images, **how)


@extras
def test_dynamic_ranges_need_no_images(network, tmp_path):
    how = {"ranges": "dynamic", "keep_float": "none", "narrow": True}
    path = quantising.quantised_onnx(network, tmp_path, None, **how)
    assert kinds(path).count("ConvInteger") == 2
    x = next(images()).numpy()
    assert distance(run_onnx(path, x), run_onnx(network, x)) < 0.2


@extras
@pytest.mark.parametrize(("keep", "count"), [("none", 2), ("head", 1)])
def test_openvino_is_quantised_by_nncf(network, tmp_path, capfd, keep, count):
    openvino = pytest.importorskip("openvino")
    path = quantising.quantised_openvino(network, tmp_path, images, keep_float=keep, narrow=True)
    model = openvino.Core().read_model(path)
    stored = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    quantised = [op for op in stored if op.get_element_type() == openvino.Type.i8]
    assert len(quantised) == count
    x = next(images()).numpy()
    found = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    assert distance(found, run_onnx(network, x)) < 0.05
    how = {"keep_float": keep, "narrow": True}
    assert quantising.quantised_openvino(network, tmp_path, None, **how) == path
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "variables", "machine", "has"),
    [
        ({"avx2"}, {}, "x86_64", False),
        ({"avx2", "avx512f", "avx512_bf16"}, {}, "x86_64", False),
        ({"avx_vnni"}, {}, "x86_64", True),
        ({"avx512_vnni"}, {}, "x86_64", True),
        ({"amx_int8"}, {}, "x86_64", True),
        ({"avx512_vnni", "amx_int8"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "x86_64", False),
        ({"avx512_vnni"}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "x86_64", False),
        ({"asimddp"}, {}, "aarch64", True),
        ({"asimd"}, {}, "arm64", False),
    ],
)
def test_processors_with_int8_dot_products(flags, variables, machine, has):
    assert int8_dot_products(flags, variables, machine) is has


def test_int8_is_never_emulated_but_left_out_where_only_dot_products_are_wanted():
    assert not emulates(("fp32",), "int8")
    assert emulates(("fp32",), "bf16")
    environment = {"devices": ["cpu"], "gpus": [], "torch": "2", "native": {"cpu": ["fp32"]}}
    _, lines = resolve(Grid(models=("disc",), dtypes=("fp32", "int8?")), environment)
    assert lines == ["int8 has no dot products on cpu here and left out; --dtype int8 measures it"]


def case_of(**axes):
    (planned,) = expand(Grid(**{"models": ("disc",), "devices": ("cpu",), **axes}), Settings())
    return planned.case


def test_only_what_is_quantised_is_calibrated():
    plain = case_of()
    assert (plain.calibration, plain.keep_float) == ("none", "none")
    quantised = case_of(dtypes=("int8",), runtimes=("openvino",))
    assert (quantised.calibration, quantised.keep_float) == ("4", "none")
    assert quantised.case_id.endswith("/runtime=openvino/calibration=4/steady")


@extras
def test_a_trained_network_is_calibrated_on_more_images(run):
    (planned,) = plan_of(run, calibrations=())
    assert planned.case.calibration == "32"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--calibration", "8", "only --dtype int8 has one"),
        ("--keep-float", "heads", "only --dtype int8 has one"),
        ("--calibration", "0", "it takes a number of images, such as 32, or dynamic"),
        ("--calibration", "none", "it takes a number of images, such as 32, or dynamic"),
    ],
)
def test_bad_options_are_one_line(option, value, says, tmp_path):
    shown = dabench("time", "--model", "disc", option, value, cwd=tmp_path)
    assert shown.returncode == 2
    assert says in shown.stderr
    assert option in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("command", ["ceilings --dtype fp32,int8", "profile --dtype int8"])
def test_what_torch_has_no_kernels_for_is_refused(command, tmp_path):
    model = ["--model", "disc"] if command.startswith("profile") else []
    shown = dabench(*command.split(), *model, cwd=tmp_path)
    assert shown.returncode != 0
    assert "int8" in shown.stderr + shown.stdout
    assert "Traceback" not in shown.stderr


def test_what_only_int8_has_goes_with_it():
    grid = Grid(
        models=("disc",), dtypes=("fp32", "int8?"), calibrations=("2",), keep_floats=("heads",)
    )
    environment = {"devices": ["cpu"], "gpus": [], "torch": "2", "native": {"cpu": ["fp32"]}}
    (resolved,), _ = resolve(grid, environment)
    (planned,) = expand(resolved, Settings())
    assert (planned.case.dtype, planned.case.calibration) == ("fp32", "none")
    on_gpu = {"devices": ["cuda"], "gpus": ["G"], "torch": "2", "native": {"cuda": ["fp32"]}}
    _, lines = resolve(grid, on_gpu)
    assert lines == ["int8 is not offered on cuda and left out"]


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("openvino+int8", "openvino+int8"),
        ("openvino+int8+calibration=4", "openvino+int8"),
        ("openvino+int8+calibration=32", "openvino+int8+calibration=32"),
        (
            "onnxruntime+int8+keep-float=heads+calibration=dynamic",
            "onnxruntime+int8+calibration=dynamic+keep-float=heads",
        ),
    ],
)
def test_names_of_ways(way, name):
    axes = {f"{key}s": (value,) for key, value in parse_way(way).items()}
    assert way_name(case_of(**axes)) == name


def test_what_int8_cannot_be_had_with(monkeypatch):
    assert "quantised for onnxruntime and openvino" in why_impossible(make_case(dtype="int8"))
    openvino = make_case(dtype="int8", runtime="openvino", calibration="dynamic")
    assert "calibrate on images" in why_impossible(openvino)
    monkeypatch.setattr(
        "dabench.plan.variants.find_spec", lambda name: None if name == "nncf" else True
    )
    assert why_impossible(make_case(dtype="int8", runtime="onnxruntime", calibration="8")) is None
    reason = why_impossible(make_case(dtype="int8", runtime="openvino", calibration="8"))
    assert reason == "nncf is not installed; pip install 'dabench[nncf]'"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """GTA5 as it is published; eight frames train."""
    folder = tmp_path_factory.mktemp("data") / "gta5"
    write_gta5(folder, frames=10, height=40, width=72)
    return folder


def chosen(root, count, seed=0, target="gta5"):
    return calibration_of(target, count, seed, {"gta5": root})


def test_images_are_chosen_by_seed_and_fewer_are_the_first_of_more(root):
    three, five = chosen(root, 3), chosen(root, 5)
    assert five.names[:3] == three.names
    assert len({*five.names}) == 5
    assert chosen(root, 5).digest == five.digest
    assert chosen(root, 5, seed=1).names != five.names
    assert (three.data, three.synthetic) == ("gta5, train split", False)
    assert str(root) not in json.dumps(three.to_dict())


def test_images_are_those_that_train(root):
    # Every fifth frame is evaluated.
    assert {"00001", "00006"}.isdisjoint(chosen(root, 8).names)


def test_changed_contents_are_another_calibration(root, tmp_path):
    copy = tmp_path / "gta5"
    shutil.copytree(root, copy)
    assert chosen(copy, 8).digest == chosen(root, 8).digest
    first = copy / "images" / f"{chosen(root, 8).names[0]}.png"
    with Image.open(first) as image:
        pixels = 255 - np.asarray(image)
    Image.fromarray(pixels).save(first)
    assert chosen(copy, 8).digest != chosen(root, 8).digest


def test_images_that_cannot_be_had(root, monkeypatch, tmp_path):
    with pytest.raises(DataError, match="9 images are asked for, gta5 has 8 in 'train'"):
        chosen(root, 9)
    monkeypatch.delenv("DABENCH_GTA5_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="set DABENCH_GTA5_ROOT"):
        calibration_of("gta5", 1, 0, {})
    with pytest.raises(UsageError, match="no record says what the network was trained for"):
        calibration_of("", 1, 0, {})
    gone = tmp_path / "gone"
    with pytest.raises(UsageError, match="set DABENCH_GTA5_ROOT") as error:
        calibration_of("gta5", 1, 0, {"gta5": gone})
    assert str(gone) not in str(error.value)
    gone.mkdir()
    with pytest.raises(DataError, match="no frames of gta5 where its root is said to be") as error:
        calibration_of("gta5", 1, 0, {"gta5": gone})
    assert str(gone) not in str(error.value)


def test_drawn_images_stand_for_drawn_ones_alone(root, tmp_path, monkeypatch):
    drawn = tmp_path / "drawn"
    shutil.copytree(root, drawn)
    (drawn / DRAWN).touch()
    assert chosen(drawn, 2, target="synthetic gta5").images[0].is_relative_to(drawn)
    with pytest.raises(UsageError, match="set DABENCH_GTA5_ROOT"):
        chosen(drawn, 2, target="gta5")
    monkeypatch.setattr("dabench.data.standin.cached_standin", lambda: (drawn, tmp_path))
    # Real images under the root are not what it was trained on.
    assert chosen(root, 2, target="synthetic gta5").images[0].is_relative_to(drawn)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training for GTA5."""
    folder = tmp_path_factory.mktemp("suite") / "augment-seed0"
    write_run(folder, new_state(CITYSCAPES.names), "weights.pt")
    path = folder / "run.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["data"] |= {"target": "gta5", "synthetic": False}
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def plan_of(run, **axes):
    grid = Grid(
        models=(f"trained:{run}",), devices=("cpu",), runtimes=("onnxruntime",), threads=(1,),
        **{"dtypes": ("int8",), "calibrations": ("3",), **axes},
    )  # fmt: skip
    return expand(grid, Settings())


@extras
def test_a_case_whose_images_cannot_be_had_says_why(run, root):
    plan, found = calibrations(plan_of(run, calibrations=("3", "9")), {"gta5": root})
    assert [each.impossible for each in plan] == [
        None, "--calibration: 9 images are asked for, gta5 has 8 in 'train'",
    ]  # fmt: skip
    assert len(found.of(plan[0].case).images) == 3
    assert found.of(plan[1].case) is None


@extras
def test_a_run_goes_on_with_the_images_it_was_begun_with_only(run, root, tmp_path, monkeypatch):
    plan, found = calibrations(plan_of(run), {"gta5": root})
    again = calibrations_again(tmp_path, found.to_dict(), plan, {"gta5": root})
    assert again.to_dict() == found.to_dict()
    changed = json.loads(json.dumps(found.to_dict()))
    changed[FIELD][plan[0].case.model]["3"]["digest"] = "0"
    with pytest.raises(UsageError, match="calibrated on other images"):
        calibrations_again(tmp_path, changed, plan, {"gta5": root})
    # What others are calibrated on is none of this case's business.
    more = json.loads(json.dumps(found.to_dict()))
    more[FIELD][plan[0].case.model]["5"] = {"digest": "1"}
    assert calibrations_again(tmp_path, more, plan, {"gta5": root}).known == found.known
    plain = plan_of(run, dtypes=("fp32",), calibrations=())
    assert calibrations_again(tmp_path, more, plain).known == {}
    monkeypatch.delenv("DABENCH_GTA5_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="set DABENCH_GTA5_ROOT"):
        calibrations_again(tmp_path, found.to_dict(), plan)


@pytest.fixture(scope="module")
def scored(run, root, tmp_path_factory):
    """Scores of the network as it is and in int8."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shown = dabench(
        "eval", str(run), "--data", "gta5", "--gta5-root", str(root), "--split", "train",
        "--runtime", "onnxruntime", "--dtype", "int8", "--calibration", "3,9", "--threads", "1",
        "--out", str(folder), cwd=folder.parent,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return folder, shown.stdout


@extras
def test_int8_is_scored_on_unlabelled_images_of_the_target(scored, run):
    folder, printed = scored
    (plain, quantised, missing) = (
        line.split(",") for line in (folder / "scores.csv").read_text().splitlines()[1:]
    )
    assert "ok" in plain
    assert "ok" in quantised
    assert "unsupported" in missing
    assert "int8: calibrated on 3 images of gta5, train split, chosen by seed 0." in printed
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert document[FIELD][f"trained:{run}"].keys() == {"3"}
    native = document["environment"]["native"]["cpu"]
    assert ("no dot products" in printed) is ("int8" not in native)
    assert calibration_lines(document)[0] in printed


def test_a_time_and_an_accuracy_of_other_calibrations_are_not_joined(tmp_path):
    case = make_case(model="trained:a", runtime="onnxruntime", dtype="int8", calibration="3")
    folder = write_choice(tmp_path / "a", {case: steady(0.1)}) / "times"

    def identity(digest, native):
        path = folder / "run.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        document[FIELD] = {case.model: {"3": {"digest": digest}}}
        document["environment"]["native"] = {"cpu": native}
        path.write_text(json.dumps(document), encoding="utf-8")
        return Identities(folder).of(case)

    one = identity("one", ["fp32"])
    assert one is not None
    assert identity("one", ["fp32"]) == one
    assert identity("two", ["fp32"]) != one
    assert identity("one", ["fp32", "int8"]) != one, "weights of eight bits are others"
    assert one.calibration == "one, batch 2, 7 bits"


def test_what_becomes_of_memory_is_no_part_of_what_is_computed(tmp_path):
    case = make_case(model="trained:a")
    folder = write_choice(tmp_path / "a", {case: steady(0.1)}) / "times"
    found = Identities(folder)
    assert found.of(case) is not None
    assert found.of(replace(case, allocator="keep")) == found.of(case)
    assert found.of(replace(case, memory_format="nhwc")) != found.of(case)
    grid = Grid(models=("disc",), devices=("cpu",), allocators=("keep", "default"))
    planned = _plan([(grid, Settings()), (replace(grid, fuses=("on",)), Settings())], {
        "devices": ["cpu"], "gpus": [], "torch": "2",
    })  # fmt: skip
    assert [(each.case.allocator, each.case.fuse) for each in planned] == [
        ("default", "off"), ("default", "on"),
    ]  # fmt: skip


def test_what_changed_while_it_was_measured_is_noticed(run, root):
    (planned,) = plan_of(run, batches=(2,))
    found = chosen(root, 3)
    batches = [*_calibration(planned.case, found.images, found.digest)]
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, CONFIG.height, CONFIG.width)] * 2
    assert torch.equal(batches[1][0], batches[1][1]), "the last image fills the last batch"
    assert batches[0].min() < 0 < batches[0].max(), "normalised as for its training"
    with pytest.raises(DabenchError, match="calibration images have changed"):
        next(_calibration(planned.case, found.images[::-1], found.digest))


@extras
def test_a_network_in_int8_is_deployed(run, root, tmp_path):
    case = make_case(
        model=f"trained:{run}", batch=1, channels=3, height=CONFIG.height, width=CONFIG.width,
        threads=1, runtime="openvino", dtype="int8", calibration="2",
    )  # fmt: skip
    plain = replace(case, runtime="eager", dtype="fp32", calibration="none")
    other = replace(case, calibration="3")
    times = {case: steady(0.1), plain: steady(0.3, 1), other: steady(0.2, 1)}
    size = {"height": CONFIG.height, "width": CONFIG.width}
    graph = api.count(case.model, **size).graph
    weights = identity_of(case.model)["sha256"]
    choice = write_choice(tmp_path / "run", times, identity=weights, graph=graph)
    path = choice / "times" / "run.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {FIELD: {case.model: {str(n): chosen(root, n).to_dict() for n in (2, 3)}}}
    path.write_text(json.dumps(document), encoding="utf-8")
    out = tmp_path / "deployed"
    shown = dabench(
        "export-model", str(choice), "--out", str(out), cwd=tmp_path, DABENCH_GTA5_ROOT=root
    )
    assert shown.returncode == 0, shown.stderr
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    files = {manifest["file"]: manifest["sha256"], **manifest["beside"]}
    for name, digest in files.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert [*files] == ["network.xml", "network.bin"]
    assert 0 < manifest["difference"] < 0.5
    measured = manifest["measured"]
    assert measured["calibrated_on"]["names"] == list(chosen(root, 2).names)
    assert measured["calibration_digest"].startswith(f"{chosen(root, 2).digest}, batch 1, ")
    size = (CONFIG.width, CONFIG.height)
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / "image.png")
    command = [sys.executable, str(out / "run.py"), "image.png", "seen.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.size == size


@extras
def test_ways_share_an_export_and_each_counts_it_as_compiling(tmp_path):
    device = open_device("cpu")
    exports = tmp_path / "exports"

    def prepared(dtype):
        case = make_case(
            runtime="onnxruntime", dtype=dtype, calibration="none" if dtype == "fp32" else "2"
        )
        load = Workload(case, device, seed=0)
        load.exports = exports
        return prepare(load, device, tmp_path / dtype, host_clock), load.notes

    found, notes = prepared("fp32")
    assert (found["compile_s"] < 100, notes) == (True, [])
    (exports / "exported.seconds").write_text("100.0")
    before = (exports / "exported.onnx").stat()
    found, notes = prepared("int8")
    assert found["compile_s"] > 100
    assert 1e-6 < found["difference"] < 0.5
    assert (exports / "exported.onnx").stat() == before
    assert found["exported_before_s"] == 100
    assert notes[0] == "calibrated on random input"
    assert ("weights in seven bits: no int8 dot products on this machine" in notes) is (
        "int8" not in device.native_dtypes()
    )


def test_what_runs_no_export_counts_none(tmp_path):
    device = open_device("cpu")
    (tmp_path / "exported.seconds").write_text("100.0")
    load = Workload(make_case(fuse="on", model="stdc1", height=64, width=64, channels=3), device, 0)
    load.exports = tmp_path
    assert prepare(load, device, tmp_path, host_clock)["exported_before_s"] is None
