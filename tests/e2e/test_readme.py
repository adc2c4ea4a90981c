"""The documents' commands run as printed, and their numbers are those of the reports."""

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path

import command
import pytest

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}


def blocks(language):
    """Fenced blocks, each with its file and whether the comment above marks it as quick."""
    pattern = rf"(<!-- quick -->\n)?```{language}\n(.*?)```"
    return [
        (path.stem, bool(quick), text)
        for path, whole in TEXTS.items()
        for quick, text in re.findall(pattern, whole, re.DOTALL)
    ]


def commands(*, quick_only):
    """File and line of each command."""
    return [
        (name, line)
        for name, quick, text in blocks("sh")
        if quick or not quick_only
        for line in text.splitlines()
        if line.startswith("dabench ")
    ]


def run(line, cwd):
    _, *words = shlex.split(line, comments=True)
    return command.dabench(*words, cwd=cwd, COLUMNS="160")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """One folder for the commands of a file: reports need the runs before them."""
    return functools.cache(tmp_path_factory.mktemp)


@pytest.mark.parametrize(("name", "line"), commands(quick_only=True))
def test_quick_commands_run_as_printed(name, line, workplace):
    shown = run(line, workplace(name))
    # What comes out of a comparison is this machine's own.
    slower = " compare " in line and re.search(r" slower *$", shown.stdout, re.MULTILINE)
    assert shown.returncode == bool(slower), shown.stderr


@functools.cache
def help_of(*which):
    return command.dabench(*which, "--help", cwd=ROOT, COLUMNS="160").stdout


@pytest.mark.parametrize("line", sorted({line for _, line in commands(quick_only=False)}))
def test_every_command_has_options_that_exist(line):
    words = shlex.split(line, comments=True)
    which = words[1:3] if words[1] == "data" else words[1:2]
    shown = help_of(*which)
    # A quoted value may hold options of its own (--vs).
    for option in (re.match(r"--[\w-]+", word)[0] for word in words if word.startswith("--")):
        assert option in shown


def test_python_examples_run(workplace):
    examples = [(name, text) for name, quick, text in blocks("python") if quick]
    assert examples
    for name, text in examples:
        with contextlib.chdir(workplace(name)), contextlib.redirect_stdout(io.StringIO()):
            exec(text, {"__name__": "__main__"})


def test_tables_are_those_of_the_reports():
    found = [re.findall(r"<!-- from (\S+) -->\n((?:\|.*\n)+)", text) for text in TEXTS.values()]
    marked = [each for of_file in found for each in of_file]
    assert len(marked) > 10
    for name, table in marked:
        report = (ROOT / name).read_text(encoding="utf-8")
        for row in table.splitlines():
            assert row in report, f"{row} is not in {name}"


CITED = {
    "Why is my depthwise discriminator not faster?": "riddle.md",
    "Memory that is given back": "riddle.md",
    "And on a GPU?": "riddle-gpu.md",
}


def test_sentences_that_cite_rows_are_those_of_the_report():
    citing = set()
    for section in re.split(r"^#+ ", "\n".join(TEXTS.values()), flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for text in re.findall(r"^- .+\n(?:  .+\n)*", section, re.MULTILINE):
            sentence = " ".join(text.split())
            if re.search(r"\[[\d, ]+\]$", sentence):
                citing.add(heading)
                report = (ROOT / "reports" / CITED[heading]).read_text(encoding="utf-8")
                assert sentence in report
    assert citing == set(CITED)


def anchors(text):
    """As GitHub and the site make them of headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pictures_and_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[path]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target
