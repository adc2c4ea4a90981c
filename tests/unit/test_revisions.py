"""Networks at a revision: from a copy of their repository, with what they import there."""

import json
import subprocess

import pytest
from command import dabench

from dabench.base.errors import UsageError
from dabench.plan.networks import identity_of, spec_of
from dabench.plan.references import Reference
from dabench.plan.revisions import at_revision

NET = """
from sizes import CHANNELS
from torch import nn

def build(k=1):
    return nn.Conv2d(3, CHANNELS, k)
"""


def git(folder, *words):
    settings = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", "-C", folder, *settings, *words]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A network whose sizes lie beside it and change from the first commit to the second."""
    folder = tmp_path / "repository"
    (folder / "nets").mkdir(parents=True)
    git(folder, "init", "--initial-branch=main")
    (folder / "nets" / "net.py").write_text(NET)
    (folder / "sizes.py").write_text("CHANNELS = 4\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "one")
    git(folder, "tag", "v1")
    (folder / "sizes.py").write_text("CHANNELS = 8\n")
    git(folder, "commit", "-am", "two")
    (folder / "sizes.py").write_text("CHANNELS = 16\n")
    monkeypatch.setenv("DABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


def test_a_revision_is_part_of_the_name(repository):
    reference = Reference.of("nets/net.py:build@v1(k=3)")
    assert (reference.factory, reference.revision) == ("build", "v1")
    assert (
        reference.name == spec_of("nets/net.py:build@v1(k=3)").name == "nets/net.py:build@v1(k=3)"
    )
    assert Reference.of("timm:resnet18.a1@x").revision == ""


def test_its_file_and_folder_are_those_of_the_copy(repository, monkeypatch):
    place = at_revision(repository / "nets" / "net.py", "v1")
    assert (place.folder / "sizes.py").read_text() == "CHANNELS = 4\n"
    assert place.file == place.folder / "nets" / "net.py"
    assert at_revision(repository / "nets" / "net.py", "HEAD").folder != place.folder
    monkeypatch.chdir(repository.parent)
    assert at_revision(repository / "nets" / "net.py", "main~1").folder == repository.parent


def test_what_it_is_known_by_follows_the_revision(repository):
    names = ("nets/net.py:build@v1", "nets/net.py:build@main", "nets/net.py:build")
    seen = [identity_of(name)["sha256"] for name in names]
    assert len(set(seen)) == 3
    (repository / "sizes.py").write_text("CHANNELS = 32\n")
    again = [identity_of(name)["sha256"] for name in names]
    assert [a == b for a, b in zip(seen, again, strict=True)] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets/net.py:build@v9", r"'net\.py@v9' is not allowed; git says: "),
        ("nets/other.py:build@v1", r"'other\.py@v1' is not allowed; git says: .*other\.py"),
        ("/net.py:build@v1", r"git says: not a git repository"),
    ],
)
def test_what_is_not_there_is_one_line(repository, name, message):
    with pytest.raises(UsageError, match=message) as error:
        spec_of(name)
    assert "\n" not in str(error.value)


def test_two_revisions_of_one_file_are_compared(repository):
    words = ("--size", "32x32", "--launches", 2, "--repeat", 2, "--json", "--out", "run")
    name = "nets/net.py:build"
    done = dabench(
        "compare", "--model", f"{name}@v1", "--vs", f"{name}@HEAD", *words,
        cwd=repository, DABENCH_CACHE=repository.parent / "cache",
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    counts = dabench(
        "flops", "--model", f"{name}@v1,{name}@HEAD,{name}", "--size", "32x32",
        "--mode", "eval", "--json",
        cwd=repository, DABENCH_CACHE=repository.parent / "cache",
    )  # fmt: skip
    found = [each["macs"] for each in json.loads(counts.stdout)["counts"]]
    assert found == [3 * channels * 1024 for channels in (4, 8, 16)]
