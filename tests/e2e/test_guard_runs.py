"""The guard as its documents show it: the guide's test, and the workflow for CI."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import command
import pytest
import yaml
from command import environment
from steady import steadily

import dabench.guard.fixture  # here, since what a session within a test imports it forgets
from dabench.run.launcher import Launcher

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
WORKFLOW = ROOT / "docs" / "guard-in-ci.yml"
HELPERS = ROOT / "tests" / "helpers"

pytestmark = pytest.mark.slow
assert dabench.guard.fixture


@pytest.mark.usefixtures("at_home")
def test_the_readmes_test_is_measured_kept_and_held_against_its_baseline(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    (example,) = re.findall(r"```python\n(def test_.*?)```", GUIDE, re.DOTALL)
    commands = re.findall(r"^pytest (--dabench\S+(?: \d+%)?)", GUIDE, re.MULTILINE)
    assert len(commands) == 2
    # Other tests begin and end beside it: what it takes from one second to the next is no verdict.
    monkeypatch.setattr(Launcher, "run", steadily(Launcher.run, lambda request: 0.01))
    pytester.makepyfile(example.replace("repeat=5", "repeat=3, launches=3"))
    for words in commands:
        done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *words.split())
        done.assert_outcomes(passed=1)
        done.stdout.fnmatch_lines(["*= dabench =*", "*test_disc*", "*benchmark: 1 tests*"])
    done.stdout.fnmatch_lines(["*test_disc forward: *launches of each)*"])


SMALL = """
import os
from torch import nn

def build():
    with open(os.environ["BUILT"], "a") as file:
        print({layers}, file=file)
    return nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range({layers})])
"""


def steps():
    """Name -> command of the workflow's steps."""
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


@pytest.fixture
def repository(tmp_path):
    """A network that its head has made ten times as deep, and a test of it."""
    folder = tmp_path / "repository"
    (folder / "nets").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_speed.py").write_text(
        'def test_net(dabench):\n    dabench("nets/net.py:build", input="3x64x64", launches=3)\n'
    )

    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        shown = subprocess.run(
            ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
        )
        return shown.stdout.strip()

    git("init", "--quiet")
    for layers in (1, 20):
        (folder / "nets" / "net.py").write_text(SMALL.format(layers=layers))
        git("add", "-A")
        git("commit", "--quiet", "-m", f"{layers} layers")
    return folder, git("rev-parse", "HEAD~1")


def step(folder, base, script):
    """Runs a step as the runner does; ``python`` and ``dabench`` are this interpreter's.

    What disturbs this machine from one second to the next is no verdict: a layer takes 10 ms.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    steady = os.pathsep.join(map(str, (HELPERS / "by_depth", HELPERS)))
    variables = {**environment({}), "BASE": base, "PATH": path, "PYTHONPATH": steady}
    variables["BUILT"] = str(folder / "built")
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"):
        variables.pop(name, None)
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=variables, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def test_the_workflow_stops_a_head_that_is_slower(repository):
    """Its other step, `compare` of two revisions, has tests of its own."""
    folder, base = repository
    done = step(folder, base, steps()["tests, base"])
    assert done.returncode == 0, done.stdout
    built = (folder / "built").read_text().split()
    assert set(built) == {"1"}
    done = step(folder, base, steps()["tests, head"])
    assert done.returncode == 1, done.stdout
    assert set((folder / "built").read_text().split()[len(built) :]) == {"20"}
    assert "slower than its baseline by more than 5.0%" in done.stdout


def test_the_workflow_installs_what_it_runs():
    found = steps()
    assert shlex.split(found["install"])[-1] == "dabench"
    assert all("dabench" in script for script in found.values())
    words = shlex.split(found["network, base against head"])
    shown = command.dabench("compare", "--help", COLUMNS="160").stdout
    assert all(word in shown for word in words if word.startswith("--"))
