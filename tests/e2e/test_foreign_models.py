"""Other people's networks, as they come: with packages of the same names, odd outputs, errors."""

import sys

import command
import pytest

import dabench
from dabench.records.counts import read_counts

# Every repository has a ``models``, a ``utils`` and a ``configs`` of its own.
NET = """
from dataclasses import dataclass
import torch
from models.blocks import Block
from utils import scale
import configs.default as default

@dataclass
class Options:
    width: int = default.WIDTH

class Net(torch.nn.Module):
    def __init__(self, num_classes=5, **kwargs):
        super().__init__()
        self.block = Block(3, Options().width)
        self.head = torch.nn.Conv2d(Options().width, num_classes, 1)

    def forward(self, x):
        y = self.head(self.block(x) * scale())
        return {OUTPUT}

@dataclass
class Output:
    loss: object
    logits: object

class Wrapped(Net):
    def forward(self, x):
        return Output(None, super().forward(x))

    def train(self, mode=True):
        # As many do to freeze their batch norms, and forget what it returns.
        super().train(mode)

class Lazy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.LazyConv2d(4, 1)

    def forward(self, x):
        return self.conv(x)

def settings():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False
    network = Net().float()
    torch.set_default_device("meta")
    return network

def leaves():
    raise SystemExit("usage: net.py CONFIG")

def broken():
    raise RuntimeError("weights are behind a login\\nsecond line")

def not_a_network():
    return 3
"""
OUTPUTS = {
    "tensor": "y",
    "tuple": "(y, y[:, :1])",
    "list": "[y, None]",
    "dict": "{'out': y, 'aux': y + 1}",
}


def repository(root, *, width, output="tensor"):
    """A checkout with its own packages; widths tell one from another by their operations."""
    (root / "models").mkdir(parents=True)
    (root / "models" / "__init__.py").write_text("")
    (root / "models" / "blocks.py").write_text(
        "from torch import nn\n"
        "def Block(i, o):\n"
        "    conv = nn.Conv2d(i, o, 3, padding=1, bias=False)\n"
        "    return nn.Sequential(conv, nn.BatchNorm2d(o), nn.ReLU())\n"
    )
    # Without __init__.py: a namespace package.
    (root / "configs").mkdir()
    (root / "configs" / "default.py").write_text(f"WIDTH = {width}\n")
    (root / "utils.py").write_text("def scale():\n    return 2.0\n")
    (root / "net.py").write_text(NET.replace("{OUTPUT}", OUTPUTS[output]))
    return root / "net.py"


def conv_macs(width, classes, pixels):
    return pixels * (3 * 9 * width + width * classes)


def run(*arguments, cwd):
    shown = command.dabench(*arguments, cwd=cwd)
    return shown.returncode, shown.stdout, shown.stderr


@pytest.fixture
def nets(tmp_path):
    return {
        output: repository(tmp_path / output, width=width, output=output)
        for width, output in zip((4, 6, 8, 10), OUTPUTS, strict=True)
    }


def test_a_grid_of_repositories_with_packages_of_the_same_names(tmp_path, nets):
    """Each is built from its own packages, and one that fails is a row with its error."""
    references = [f"{path}:Net" for path in nets.values()]
    names = ("broken", "not_a_network", "missing", "leaves")
    failing = [f"{nets['tensor']}:{name}" for name in names]
    grid = tmp_path / "grid.toml"
    grid.write_text(
        "[[grid]]\n"
        f"model = {[*references, *failing]!r}\n"
        'device = "cpu"\nmode = ["eval", "train"]\nphase = ["forward", "backward"]\n'
        'input = "3x16x24"\nbatch = 2\nrepeat = 2\nlaunches = 1\n'
    )
    result = dabench.sweep(grid, out=tmp_path / "run")
    good = [row for row in result if row.status == "ok"]
    assert {(row.model, row.mode, row.phase) for row in good} == {
        (name, mode, phase)
        for name in references
        for mode, phase in (("eval", "forward"), ("train", "forward"), ("train", "backward"))
    }
    assert {(row.family, row.channels, row.height, row.width) for row in good} == {
        ("other", 3, 16, 24)
    }
    counts = {c["model"]: c for c in read_counts(tmp_path / "run") if c["mode"] == "eval"}
    for width, name in zip((4, 6, 8, 10), references, strict=True):
        macs = counts[name]["by_operator"]["convolution"]
        assert macs == conv_macs(width, 5, 16 * 24)
    reasons = {row.model.rpartition(":")[2]: row.reason for row in result if row.status != "ok"}
    assert reasons["broken"] == "RuntimeError: weights are behind a login"
    assert "made a int, not a torch.nn.Module" in reasons["not_a_network"]
    assert "has no attribute 'missing'" in reasons["missing"]
    assert "tried to end the process: usage: net.py CONFIG" in reasons["leaves"]
    # The caller's own process imported nothing of theirs.
    assert not {"models", "utils", "configs", "net"} & set(sys.modules)


def test_arguments_reach_the_factory(nets):
    path = f"{nets['tensor']}:Net"
    classes = dabench.count(f"{path}(num_classes=7)", height=8, width=8)
    assert classes.by_operator["convolution"] == conv_macs(4, 7, 64)
    row = dabench.time(
        path, device="cpu", input="3x8x8", model_arg={"num_classes": 9}, repeat=1, launches=1
    )
    assert row[0].model == f"{path}(num_classes=9)"
    assert row[0].macs >= conv_macs(4, 9, 64)


def test_odd_but_common_networks(nets):
    """Dataclasses as outputs, train() without a result, lazy layers, settings for the process."""
    path = nets["tensor"]
    rows = dabench.time(
        [f"{path}:Wrapped", f"{path}:Lazy", f"{path}:settings"], device="cpu", input="3x16x16",
        threads=2, fuse=["off", "on"], repeat=1, launches=1,
    )  # fmt: skip
    found = {(row.model.rpartition(":")[2], row.fuse): row for row in rows}
    assert found["Lazy", "on"].status == "unsupported"
    assert "nothing to fold" in found["Lazy", "on"].reason
    good = [row for row in rows if row is not found["Lazy", "on"]]
    assert {(row.status, row.reason) for row in good} == {("ok", "")}
    assert all(row.macs > 0 for row in good)
    # What the factory set for the whole process was put back.
    assert {row.threads for row in good} == {2}


def test_a_changed_network_is_not_resumed(tmp_path, nets):
    path = nets["tensor"]
    arguments = ["--model", f"{path}:Net", "--device", "cpu", "--input", "3x8x8"]
    run("time", *arguments, "--repeat", "1", "--launches", "1", "--out", "run", cwd=tmp_path)
    path.write_text(path.read_text() + "# changed\n")
    code, _, err = run("sweep", "--resume", "run", cwd=tmp_path)
    assert code == 2
    assert f"--resume: {path}:Net has changed since run was begun" in err
    assert len(err.splitlines()) == 1


def test_relative_imports_without_a_package_and_folders_that_are_no_names(tmp_path):
    folder = tmp_path / "nets-1.0"
    folder.mkdir()
    (folder / "base.py").write_text("from torch.nn import Conv2d\n")
    (folder / "one.py").write_text(
        "from .base import Conv2d\ndef make():\n    return Conv2d(3, 4, 1)\n"
    )
    assert dabench.count(f"{folder}/one.py:make", height=8, width=8).macs == 3 * 4 * 64
    (folder / "__init__.py").write_text("")
    assert dabench.count(f"{folder}/one.py:make", height=8, width=8).macs == 3 * 4 * 64


def test_a_package_finds_its_root_before_its_own_folder(tmp_path):
    """As for those who run it from there: ``utils`` is the root's, not ``models/utils.py``."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "__init__.py").write_text("")
    (models / "utils.py").write_text("WIDTH = 1\n")
    (tmp_path / "utils.py").write_text("WIDTH = 7\n")
    (models / "net.py").write_text(
        "from torch import nn\nfrom utils import WIDTH\n"
        "def make():\n    return nn.Conv2d(3, WIDTH, 1)\n"
    )
    assert dabench.count(f"{models}/net.py:make", height=8, width=8).macs == 3 * 7 * 64


def test_networks_are_explained_on_one_input(tmp_path, nets):
    code, _, err = run("explain", "timm:resnet18", "disc", cwd=tmp_path)
    assert code == 2
    assert "timm:resnet18 takes 3x224x224 and disc 19x1024x512" in err
    one, two = (f"{nets[name]}:Net" for name in ("tensor", "dict"))
    code, out, err = run(
        "explain", one, two, "--input", "3x32x32", "--no-trials", "--max-time", "200ms",
        "--threads", "1", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    assert "for 2 images of 3x32x32" in " ".join(out.split())


def test_a_file_within_a_package_keeps_its_relative_imports(tmp_path):
    package = tmp_path / "pkg" / "nets"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package.parent / "base.py").write_text("from torch.nn import Conv2d\n")
    (package / "one.py").write_text(
        "from ..base import Conv2d\ndef make():\n    return Conv2d(3, 4, 1)\n"
    )
    count = dabench.count(f"{package}/one.py:make", height=8, width=8)
    assert count.macs == 3 * 4 * 64


def test_modules_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.py").write_text(
        "import torch\nclass Nets:\n    @staticmethod\n"
        "    def small(n=2):\n        return torch.nn.Conv2d(3, n, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert dabench.count("mine.net:Nets.small(n=5)", height=4, width=4).macs == 3 * 5 * 16


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("torchvision:resnet18(num_classes=3)", "torchvision"),
        ("torchvision:lraspp_mobilenet_v3_large(num_classes=3)", "torchvision"),
        ("timm:resnet18(num_classes=3)", "timm"),
        ("smp:Unet(encoder_name='resnet18', classes=3)", "segmentation_models_pytorch"),
    ],
)
def test_libraries_by_name_without_downloading_weights(name, package):
    pytest.importorskip(package)
    row = dabench.time(name, device="cpu", input="3x64x64", repeat=1, launches=1)[0]
    assert (row.status, row.reason) == ("ok", "")
    assert row.macs > 1e6


def test_thirty_networks_by_one_grid_file(tmp_path):
    widths = range(1, 31)
    lines = ["from torch import nn", "def make(n):", "    return nn.Conv2d(3, n, 3, padding=1)"]
    for width in widths:
        body = 'raise OSError("no such backbone")' if width == 13 else f"return make({width})"
        lines += [f"def net{width}():", f"    {body}"]
    (tmp_path / "zoo.py").write_text("\n".join(lines) + "\n")
    names = [f"{tmp_path}/zoo.py:net{width}" for width in widths]
    (tmp_path / "grid.toml").write_text(
        f'[[grid]]\nmodel = {names!r}\ndevice = "cpu"\ninput = "3x8x8"\nrepeat = 1\nlaunches = 1\n'
    )
    result = dabench.sweep(tmp_path / "grid.toml")
    assert [row.model for row in result] == names
    macs = [row.macs for row in result if row.status == "ok"]
    assert macs == [27 * width * 64 for width in widths if width != 13]
    (bad,) = [row for row in result if row.status != "ok"]
    assert (bad.model, bad.reason) == (names[12], "OSError: no such backbone")
