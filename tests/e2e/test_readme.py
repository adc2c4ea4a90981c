"""The README's commands run as printed, and its numbers are those of the reports."""

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path

import command
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
    _, *words = shlex.split(line, comments=True)
    return command.dabench(*words, cwd=cwd, COLUMNS="160")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """One folder for all commands: reports need the runs before them."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("line", QUICK)
def test_quick_commands_run_as_printed(line, workplace):
    shown = run(line, workplace)
    assert shown.returncode == 0, shown.stderr


@functools.cache
def help_of(*which):
    return command.dabench(*which, "--help", cwd=ROOT, COLUMNS="160").stdout


@pytest.mark.parametrize("line", ALL)
def test_every_command_has_options_that_exist(line):
    words = shlex.split(line, comments=True)
    which = words[1:3] if words[1] == "data" else words[1:2]
    shown = help_of(*which)
    # A quoted value may hold options of its own (--vs).
    for option in (re.match(r"--[\w-]+", word)[0] for word in words if word.startswith("--")):
        assert option in shown


def test_python_examples_run(workplace):
    examples = [text for quick, text in blocks("python") if quick]
    assert examples
    for text in examples:
        with contextlib.chdir(workplace), contextlib.redirect_stdout(io.StringIO()):
            exec(text, {"__name__": "__main__"})


def test_tables_are_those_of_the_reports():
    marked = re.findall(r"<!-- from (\S+) -->\n((?:\|.*\n)+)", README)
    assert marked
    for name, table in marked:
        report = (ROOT / name).read_text(encoding="utf-8")
        for row in table.splitlines():
            assert row in report, f"{row} is not in {name}"


CITED = {
    "Why is my depthwise discriminator not faster?": "riddle.md",
    "And on a GPU?": "riddle-gpu.md",
}


def test_sentences_that_cite_rows_are_those_of_the_report():
    citing = set()
    for section in re.split(r"^##+ ", README, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for text in re.findall(r"^- .+\n(?:  .+\n)*", section, re.MULTILINE):
            sentence = " ".join(text.split())
            if re.search(r"\[[\d, ]+\]$", sentence):
                citing.add(heading)
                report = (ROOT / "reports" / CITED[heading]).read_text(encoding="utf-8")
                assert sentence in report
    assert citing == set(CITED)


def test_pictures_and_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target
