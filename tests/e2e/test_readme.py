"""The README's commands run as printed, and its numbers are those of the reports."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """Fenced blocks, each with whether the comment above marks it as quick."""
    pattern = rf"(<!-- quick -->\n)?```{language}\n(.*?)```"
    return [(bool(quick), text) for quick, text in re.findall(pattern, README, re.DOTALL)]


QUICK = [
    line
    for quick, text in blocks("sh")
    if quick
    for line in text.splitlines()
    if line.startswith("dabench ")
]
ALL = [
    line for _, text in blocks("sh") for line in text.splitlines() if line.startswith("dabench ")
]


def run(line, cwd):
    words = shlex.split(line, comments=True)
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "160"},
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """One folder for all commands: reports need the runs before them."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.xdist_group("readme")
@pytest.mark.parametrize("line", QUICK)
def test_quick_commands_run_as_printed(line, workplace):
    shown = run(line, workplace)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("line", ALL)
def test_every_command_has_options_that_exist(line):
    words = shlex.split(line, comments=True)
    command = " ".join(words[1:3]) if words[1] == "data" else words[1]
    shown = run(f"dabench {command} --help", ROOT)
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.stdout


@pytest.mark.xdist_group("readme")
def test_python_examples_run(workplace):
    examples = [text for quick, text in blocks("python") if quick]
    assert examples
    for text in examples:
        shown = subprocess.run(
            [sys.executable, "-c", text], cwd=workplace, capture_output=True, text=True, timeout=300
        )
        assert shown.returncode == 0, shown.stderr


def test_tables_are_those_of_the_reports():
    marked = re.findall(r"<!-- from (\S+) -->\n((?:\|.*\n)+)", README)
    assert marked
    for name, table in marked:
        report = (ROOT / name).read_text(encoding="utf-8")
        for row in table.splitlines():
            assert row in report, f"{row} is not in {name}"


def test_pictures_and_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target
