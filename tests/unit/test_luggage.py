"""What goes along to other machines."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from dabench.base.errors import UsageError
from dabench.plan.networks import files_of, identity_of
from dabench.run.luggage import packed

RUN = (
    '{"kind": "train", "config": {"model": "bisenet-r18", "height": 64, "width": 64, '
    '"evaluation": "official"}, "data": {"classes": ["a"]}}'
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    (folder / "nets" / "parts").mkdir(parents=True)
    (folder / "nets" / "__init__.py").touch()
    (folder / "nets" / "parts" / "__init__.py").touch()
    (folder / "nets" / "parts" / "block.py").write_text("x = 1")
    (folder / "nets" / "net.py").write_text("from nets.parts import block\nclass Net: ...")
    (folder / "large.bin").write_bytes(b"0" * 1000)
    monkeypatch.chdir(folder)
    return folder


def test_a_network_is_the_same_one_there(here, monkeypatch):
    name = "nets/net.py:Net"
    before = identity_of(name)
    with packed([name, "disc", "torchvision:resnet18"], []) as luggage:
        there = luggage.folder
        files = sorted(str(p.relative_to(there)) for p in there.rglob("*") if p.is_file())
        assert files == [
            "nets/__init__.py", "nets/net.py", "nets/parts/__init__.py", "nets/parts/block.py",
        ]  # fmt: skip
        monkeypatch.chdir(there)
        assert identity_of(name) == before
        monkeypatch.chdir(here)
    assert not there.exists()


def test_a_module_of_the_working_folder_goes_along(here):
    with packed(["nets.net:Net"], []) as luggage:
        assert (luggage.folder / "nets" / "parts" / "block.py").read_text() == "x = 1"


def test_images_go_along_under_other_names(here, tmp_path):
    image = tmp_path / "frame.png"
    image.write_bytes(b"png")
    with packed([], [image]) as luggage:
        digest = hashlib.sha256((luggage.folder / luggage.images[str(image)]).read_bytes())
    assert digest.hexdigest() == hashlib.sha256(b"png").hexdigest()


def test_nothing_is_packed_for_networks_that_are_everywhere(here):
    with packed(["disc", "torchvision:resnet18"], []) as luggage:
        assert luggage.folder is None


def test_what_lies_elsewhere_cannot_go_along(here, tmp_path):
    (tmp_path / "net.py").write_text("class Net: ...")
    name = "../net.py:Net"
    with pytest.raises(UsageError, match=r"--on: \.\./net\.py:Net is made of"), packed([name], []):
        pass
    name = f"{here}/nets/net.py:Net"
    with (
        pytest.raises(UsageError, match="name it as it lies in the working folder"),
        packed([name], []),
    ):
        pass


def test_a_trained_network_takes_its_record_along(here):
    run = Path("run")
    run.mkdir()
    (run / "weights.pt").write_bytes(b"weights")
    (run / "run.json").write_text(RUN)
    name = "trained:run"
    assert files_of(name) == [run / "weights.pt", run / "run.json"]
    with packed([name], []) as luggage:
        assert (luggage.folder / "run" / "weights.pt").read_bytes() == b"weights"


def test_links_are_followed_and_keep_their_names(here, tmp_path):
    run = tmp_path / "elsewhere" / "run3"
    run.mkdir(parents=True)
    (run / "weights.pt").write_bytes(b"weights")
    (run / "run.json").write_text(RUN)
    (here / "latest").symlink_to(run)
    (here / "linked").symlink_to(here / "nets")
    (run / "net.py").write_text("class Net: ...")
    (here / "net.py").symlink_to(run / "net.py")
    with packed(["trained:latest", "linked/net.py:Net", "net.py:Net"], []) as luggage:
        found = luggage.folder
        assert (found / "latest" / "weights.pt").read_bytes() == b"weights"
        assert (found / "linked" / "net.py").is_file()
        assert (found / "linked" / "parts" / "block.py").is_file()
        assert (found / "net.py").read_text() == "class Net: ..."
    (here / "link.py").symlink_to(run / "net.py")
    with (
        pytest.raises(UsageError, match=r"is a link to net\.py; name that"),
        packed(["link.py:Net"], []),
    ):
        pass


def test_a_revision_cannot_go_along(here, cache):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "nets"], ["commit", "-q", "-m", "nets"]):
        subprocess.run([*git, *words], check=True)
    with pytest.raises(UsageError, match="check the revision out; only files can be sent"):
        files_of("nets/net.py:Net@HEAD")
