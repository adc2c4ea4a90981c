"""Names of networks: references read, checked and put together without importing anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dabench.base.errors import UsageError
from dabench.plan import references
from dabench.plan.cases import expand
from dabench.plan.grids import load_grids, make_grid, parse
from dabench.plan.networks import identity_of, is_still, spec_of
from dabench.plan.references import (
    Reference,
    is_reference,
    parse_argument,
    split_names,
    with_arguments,
)
from dabench.plan.settings import Grid, Settings
from dabench.plan.trained import EARLIER


@pytest.mark.parametrize(
    ("text", "source", "factory", "arguments"),
    [
        ("nets/unet.py:UNet", "nets/unet.py", "UNet", {}),
        ("pkg.models.unet:build.small", "pkg.models.unet", "build.small", {}),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", {}),
        ("smp:Unet(encoder_name='resnet18', classes=19)", "smp", "Unet",
         {"encoder_name": "resnet18", "classes": 19}),
        ("C:/nets/a.py:f( x = (1, 2) )", "C:/nets/a.py", "f", {"x": (1, 2)}),
        ("br(1)/n.py:f", "br(1)/n.py", "f", {}),
        ("it (bob's)/a[b.py:f(n=1)", "it (bob's)/a[b.py", "f", {"n": 1}),
        ("a.py:f(x='b:c)', y={'k': (1,)})", "a.py", "f", {"x": "b:c)", "y": {"k": (1,)}}),
    ],
)  # fmt: skip
def test_references_are_read(text, source, factory, arguments):
    reference = Reference.of(text)
    assert (reference.source, reference.factory) == (source, factory)
    assert dict(reference.arguments) == arguments
    assert Reference.of(reference.name) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:", "path/to/file.py:factory"),
        (":resnet18", "path/to/file.py:factory"),
        ("timm:resnet18(3)", "key=value"),
        ("timm:resnet18(a=open('x'))", "Python literals"),
        ("timm:resnet18(**x)", "key=value"),
        ("timm:resnet18(a=1)(b=2)", "key=value"),
        ("timm:resnet18(a=1)+(2)", "key=value"),
        ("timm:resnet18(a=1, a=2)", "key=value"),
        ("timm:resnet18(a={[1]: 2})", "Python literals"),
        ("timm:resnet18(a=1", "path/to/file.py:factory"),
        ("nowhere.py:f", "there is no file 'nowhere.py'"),
        ("json:resnet-18", "no name of a factory"),
        ("a b:f", "there is no module"),
        ("tim:resnet18", "there is no module 'tim'; did you mean 'timm'?"),
    ],
)
def test_what_is_no_reference_is_one_line(text, message):
    with pytest.raises(UsageError, match="--model") as caught:
        spec_of(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(references.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"timm is missing; pip install 'dabench\[timm\]'"):
        spec_of("timm:resnet18")


def test_unknown_names_are_told_of_both_kinds():
    with pytest.raises(UsageError, match=r"did you mean 'dw-disc'.*or path/to/file.py:factory"):
        spec_of("dw-dsc")


@pytest.mark.extras
def test_reading_a_reference_imports_nothing(tmp_path):
    (tmp_path / "bomb.py").write_text("raise SystemExit('imported')\n")
    before = set(sys.modules)
    spec = spec_of(f"{tmp_path}/bomb.py:Net")
    assert (spec.family, spec.channels, spec.height, spec.width) == ("other", 3, 512, 1024)
    assert not [name for name in set(sys.modules) - before if "bomb" in name]
    assert spec_of("timm:vit_tiny_patch16_224").height == 224


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_classes=19", ("num_classes", 19)),
        ("name=resnet18", ("name", "resnet18")),
        ("flag=true", ("flag", True)),
        ("weights=None", ("weights", None)),
        ("sizes=[1, 2]", ("sizes", [1, 2])),
        ("path=a=b", ("path", "a=b")),
        ("x=1e999", ("x", "1e999")),
        ("x={[1]:2}", ("x", "{[1]:2}")),
    ],
)
def test_arguments_of_factories(text, expected):
    assert parse_argument(text) == expected


@pytest.mark.parametrize("text", ["19", "=19", "a-b=1", "class=3"])
def test_what_is_no_argument_names_the_option(text):
    with pytest.raises(UsageError, match=r"--model-arg.*key=value"):
        parse("model_arg", text)


def test_names_are_split_outside_of_brackets():
    assert split_names("disc, timm:x(a=1, b=2),smp:Unet") == [
        "disc",
        "timm:x(a=1, b=2)",
        "smp:Unet",
    ]


def test_arguments_go_to_references_alone_and_give_way_to_their_own():
    assert with_arguments("disc", (("n", 1),)) == "disc"
    assert with_arguments("timm:x(n=2)", (("n", 1), ("m", "a"))) == "timm:x(n=2, m='a')"
    assert is_reference("timm:x")
    assert not is_reference("disc")


@pytest.mark.extras
def test_model_args_are_part_of_the_models_name():
    grid, settings = make_grid(
        {"model": ("timm:resnet18", "dw-disc"), "device": ("cpu",), "model_arg": (("n", 5),)},
        {"repeat": 1},
    )
    assert [p.case.model for p in expand(grid, settings)] == ["timm:resnet18(n=5)", "dw-disc"]
    with pytest.raises(UsageError, match=r"--model-arg.*outside"):
        expand(Grid(models=("disc",), model_args=(("n", 5),)), Settings.of(repeat=1))


def test_grid_files_say_all_of_it(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        '[[grid]]\nmodel = ["timm:resnet18"]\nmodel_arg = {num_classes = 3, name = "x"}\n'
        'input = ["3x64x96", "host"]\nfuse = [true, false]\ncompile = true\n'
        'runtime = "onnxruntime"\n'
    )
    ((grid, _),) = load_grids(str(path))
    assert grid.model_args == (("num_classes", 3), ("name", "x"))
    assert (grid.sizes, grid.inputs) == (((3, 64, 96),), ("host",))
    assert (grid.fuses, grid.compiles, grid.runtimes) == (
        ("on", "off"),
        ("default",),
        ("onnxruntime",),
    )


@pytest.mark.extras
def test_the_shape_of_an_input():
    def case(name, **axes):
        grid, settings = make_grid({"model": (name,), "device": ("cpu",), **axes}, {"repeat": 1})
        (planned,) = expand(grid, settings)
        return planned.case.channels, planned.case.height, planned.case.width

    assert case("timm:resnet18", input=(parse("input", "4x32x64"),)) == (4, 32, 64)
    assert case("timm:resnet18", size=((32, 64),)) == (3, 32, 64)
    assert case("disc", input=((19, 32, 64),)) == (19, 32, 64)
    with pytest.raises(UsageError, match=r"--input: '3x32x64'.*disc takes 19 channels"):
        case("disc", input=((3, 32, 64),))
    with pytest.raises(UsageError, match=r"--input: '19x32x64'.*--size"):
        case("disc", input=((19, 32, 64),), size=((32, 64),))
    for text in ("3x64", "0y1", "3x"):
        with pytest.raises(UsageError, match=r"--input.*3x512x1024|choices: device, host"):
            make_grid({"model": ("disc",), "input": (parse("input", text),)}, {})


def test_arguments_that_no_reference_can_hold(tmp_path):
    for value in ("2026-01-02", '["a", inf]'):
        path = tmp_path / "grid.toml"
        path.write_text(f'[[grid]]\nmodel = "timm:x"\n[grid.model_arg]\nday = {value}\n')
        with pytest.raises(UsageError, match=r"--model-arg: .day=.*key=value"):
            load_grids(str(path))
    with pytest.raises(UsageError, match=r"--model-arg: 'x'.*twice"):
        make_grid({"model": ("timm:x",), "model_arg": (("x", 1), ("x", 2))}, {})


@pytest.mark.parametrize(
    ("own", "given", "sizes", "inputs"),
    [
        ({"input": "3x32x32"}, {"input": ("host",)}, ((3, 32, 32),), ("host",)),
        ({"input": "3x32x32"}, {"size": ((64, 64),)}, ((64, 64),), ("device",)),
        ({"size": "32x32"}, {"input": ((3, 64, 64),)}, ((3, 64, 64),), ("device",)),
        ({"input": ["3x32x32", "host"]}, {"input": ((3, 8, 8),)}, ((3, 8, 8),), ("host",)),
        ({"size": "32x32", "input": "host"}, {"input": ("device",)}, ((32, 32),), ("device",)),
    ],
)
def test_what_is_typed_replaces_the_files_shape_or_source(tmp_path, own, given, sizes, inputs):
    path = tmp_path / "grid.toml"
    lines = [f"{key} = {value!r}" for key, value in own.items()]
    path.write_text("\n".join(["[[grid]]", 'model = "timm:x"', *lines]) + "\n")
    ((grid, _),) = load_grids(str(path), given)
    assert (grid.sizes, grid.inputs) == (sizes, inputs)


def test_a_network_has_an_identity(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("a = 1\n")
    first = identity_of(f"{path}:a")
    path.write_text("a = 2\n")
    assert identity_of(f"{path}:a")["sha256"] != first["sha256"]
    assert identity_of("torchvision:resnet18")["version"]
    assert identity_of("disc") is None


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        ({"sha256": "a", "commit": "1"}, {"sha256": "a", "commit": None}, True),
        ({"sha256": "a"}, {"sha256": "b"}, False),
        ({"sha256": "a"}, {"sha256": "a", **EARLIER}, True),
        ({"sha256": "a"}, {"sha256": "a", **EARLIER, "after": "softmax"}, False),
        ({"sha256": "a", **EARLIER, "after": "softmax"}, {"sha256": "a", **EARLIER}, False),
        ({}, {"sha256": "a", **EARLIER}, False),
        ({"sha256": "a"}, {"version": "1"}, False),
        ({"sha256": "a"}, None, False),
    ],
    ids=[
        "commit",
        "content",
        "earlier-record",
        "since-processed-otherwise",
        "processing",
        "nothing",
        "another-kind",
        "registry",
    ],
)
def test_what_a_record_says_of_a_network_holds_or_not(then, now, same):
    assert is_still(then, now) == same


def test_what_code_of_others_sets_for_the_process_is_put_back(tmp_path):
    (tmp_path / "rude.py").write_text(
        "import torch\ndef make():\n"
        "    torch.set_default_dtype(torch.float64)\n    torch.set_num_threads(1)\n"
        "    torch.use_deterministic_algorithms(True)\n"
        "    torch.autograd.set_detect_anomaly(True)\n    torch.set_grad_enabled(False)\n"
        "    torch.backends.mkldnn.enabled = False\n    torch.backends.cudnn.benchmark = True\n"
        "    network = torch.nn.Identity()\n    torch.set_default_device('meta')\n"
        "    return network\n"
    )
    # In a process of its own, as networks from outside are built.
    code = (
        "import torch\nfrom dabench.network.build import build_network\n"
        "torch.set_num_threads(2)\n"
        f"build_network({str(tmp_path / 'rude.py')!r} + ':make')\n"
        "print(torch.get_default_dtype(), torch.get_num_threads(), torch.empty(0).device,\n"
        "      torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(),\n"
        "      torch.is_grad_enabled(), torch.backends.mkldnn.enabled,\n"
        "      torch.backends.cudnn.benchmark)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == [
        "torch.float32", "2", "cpu", "False", "False", "True", "True", "False",
    ]  # fmt: skip


def test_a_fingerprint_holds_all_that_may_be_imported(tmp_path):
    """A file beside it, a package below it, a module by name: whatever changed is noticed."""
    (tmp_path / "net.py").write_text("from helper import layer\n")
    (tmp_path / "helper.py").write_text("layer = 1\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "head.py").write_text("head = 1\n")
    name = f"{tmp_path}/net.py:build"
    seen = [identity_of(name)["sha256"]]
    for changed in ("helper.py", "parts/head.py", "net.py", "new.py"):
        (tmp_path / changed).write_text("changed = 2\n")
        seen.append(identity_of(name)["sha256"])
    assert len(set(seen)) == 5
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert identity_of(name)["sha256"] == seen[-1]


def test_a_module_has_a_fingerprint_too(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "net.py").write_text("a = 1\n")
    monkeypatch.chdir(tmp_path)
    before = identity_of("mine.net:build")
    (tmp_path / "mine" / "other.py").write_text("b = 2\n")
    assert identity_of("mine.net:build") != before


IMPORTS = "from helper import X\n"
PACKAGE = {"pkg/__init__.py": "", "pkg/net.py": IMPORTS}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("net.py:f", {"net.py": IMPORTS}),
        ("net:f", {"net.py": IMPORTS}),
        ("pkg.net:f", PACKAGE),
        ("pkg/net.py:f", PACKAGE),
        ("sub/net.py:f", {"sub/net.py": "import one\n", "one.py": "import helper\n"}),
        (
            "sub/net.py:f",
            {"sub/net.py": "if helper:\n    import helper\nx = (\n", "sub/helper.py": ""},
        ),
    ],
)
@pytest.mark.parametrize("folder", ["plain", "results/mine", ".hidden"])
def test_what_a_network_imports_is_noticed_wherever_it_lies(
    tmp_path, monkeypatch, folder, name, files
):
    here = tmp_path / folder
    for path, text in {"helper.py": "X = 1\n", **files}.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    monkeypatch.chdir(here)
    before = identity_of(name)
    assert identity_of(name) == before
    helper = "sub/helper.py" if "sub/helper.py" in files else "helper.py"
    (here / helper).write_text("X = 2\n")
    assert identity_of(name) != before


FETCHES = """
import functools

import torch
from torch import nn
from torch.hub import load_state_dict_from_url

def own():
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    state = load_state_dict_from_url("https://example.org/net-123.pth")
    net.load_state_dict(state["model"]["state_dict"])
    return net

def picked():
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    state = torch.hub.load_state_dict_from_url("https://example.org/net-123.pth")
    net.load_state_dict({k.removeprefix("m."): v for k, v in state.items()})
    return net

def adapted():
    net = nn.Sequential(nn.Conv2d(1, 4, 1))
    state = torch.hub.load_state_dict_from_url("https://example.org/net-123.pth")
    grey = state["0.weight"].sum(1, keepdim=True) / 3
    state["0.weight"] = torch.cat([grey, 2 * grey[:, :1]], 1)
    with torch.no_grad():
        net[0].weight.copy_(grey)
    net.load_state_dict(state)
    return net

def older():
    from torch.utils import model_zoo
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    state = model_zoo.load_url("https://example.org/net-123.pth")
    state.pop("fc.weight")
    del state["fc.bias"]
    net.load_state_dict(state)
    return net

HELD = functools.partial(load_state_dict_from_url, "https://example.org/net-123.pth")

def held():
    net = nn.Conv2d(3, 4, 1)
    net.load_state_dict(HELD())
    return net

def vision():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    return lraspp_mobilenet_v3_large(weights="DEFAULT")

def by_timm():
    import timm
    return timm.create_model("test_resnet", pretrained=True)

def by_smp():
    import segmentation_models_pytorch as smp
    return smp.Unet("resnet18", encoder_weights="imagenet")
"""


@pytest.fixture(scope="module")
def built_without_network(tmp_path_factory):
    """Factory -> what is said of its network, or what it raised; all in one process of their own.

    None of them can reach the network, and after each all loaders must be torch's own again.
    """
    folder = tmp_path_factory.mktemp("fetches")
    (folder / "net.py").write_text(FETCHES)
    code = (
        "import json, socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('it went to the network')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from dabench.network.build import build_network, notes_of\n"
        "from torch import hub, nn\n"
        "for factory in sys.argv[2:]:\n"
        "    try:\n"
        "        said = notes_of(build_network(f'{sys.argv[1]}:{factory}'))\n"
        "    except Exception as error:\n"
        "        said = repr(error)\n"
        "    load = hub.load_state_dict_from_url, nn.Module.load_state_dict\n"
        "    homes = [each.__module__ for each in load]\n"
        "    files = [each.__code__.co_filename for each in load]\n"
        "    print(json.dumps([factory, said, homes, files]))\n"
    )
    factories = ("own", "picked", "adapted", "older", "held", "vision", "by_timm", "by_smp")
    shown = subprocess.run(
        [sys.executable, "-c", code, f"{folder}/net.py", *factories],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name: rest for name, *rest in map(json.loads, shown.stdout.splitlines())}


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        ("own", "net-123.pth"),
        ("picked", "net-123.pth"),
        ("adapted", "net-123.pth"),
        ("older", "net-123.pth"),
        ("held", "net-123.pth"),
        ("vision", "lraspp"),
        pytest.param("by_timm", "timm's", marks=pytest.mark.extras),
        pytest.param("by_smp", "the encoder resnet18's imagenet", marks=pytest.mark.extras),
    ],
)
def test_no_weights_are_fetched_and_a_note_says_so(built_without_network, factory, what):
    note, homes, files = built_without_network[factory]
    assert note.startswith("trained weights are left out (")
    assert what in note
    assert "--pretrained on" in note
    # All is put back.
    assert homes == ["torch.hub", "torch.nn.modules.module"]
    assert [Path(each).name for each in files] == ["hub.py", "module.py"]
