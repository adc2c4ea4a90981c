"""How these pages become a site: `make docs`.

Beside what is written here it has a page per command, made from the command line itself, and the
reports and files that pages link to, which lie outside of this folder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from dabench.cli.app import app as commands
from dabench.cli.examples import EXAMPLES

HERE = Path(__file__).parent
ROOT = HERE.parent
MADE = HERE / "made"
"""Not in the repository: what is made here, and copies of what lies elsewhere."""

project = "dabench"
author = "The dabench developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# Tables of reports have rows of their own for what Markdown calls a heading.
suppress_warnings = ["myst.header", "toc.not_included"]
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "dabench"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False

BESIDE = ("reports/*.md", "reports/*.png", "results/reference/*.csv", "CHANGELOG.md",
          "CONTRIBUTING.md", "README.md")  # fmt: skip

GUIDES = {
    "time": "time", "sweep": "sweep", "train": "train", "reproduce": "train", "eval": "train",
    "predict": "train", "flops": "flops", "profile": "profile", "explain": "profile",
    "ceilings": "profile", "audit": "profile", "choose": "choose", "export-model": "choose",
    "compare": "compare", "selftest": "compare", "rank": "compare", "history": "compare",
    "ls": "keep", "show": "keep", "tag": "keep", "note": "keep", "prune": "keep", "merge": "keep",
    "export": "keep", "import": "keep", "report": "page", "serve": "page", "models": "networks",
    "env": "time", "data": "train",
}  # fmt: skip
"""Verb -> the page that explains it."""


def setup(sphinx: Any) -> None:
    """Makes the pages, and lets links lead to the copies."""
    shutil.rmtree(MADE, ignore_errors=True)
    verbs = dict(_commands())
    for name, command in verbs.items():
        _write(f"verbs/{_file(name)}.md", _verb(name, command))
    listed = "\n".join(
        f"- [`dabench {name}`](made/verbs/{_file(name)}.md): {command.help.partition(chr(10))[0]}"
        for name, command in verbs.items()
    )
    _write("listed.txt", listed)
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            target = MADE / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    sphinx.connect("source-read", _read)


def _read(_: Any, name: str, source: list[str]) -> None:
    """Links as they are in the repository, to where things lie on the site."""
    if name in ("made/README", "made/CONTRIBUTING", "made/CHANGELOG"):
        # `docs/` is two folders above its copy.
        source[0] = re.sub(r"\]\(docs/", "](../", source[0])
    elif not name.startswith("made/"):
        source[0] = re.sub(r"\]\(\.\./(?=reports/|results/|[A-Z]+\.md)", "](made/", source[0])
    source[0] = source[0].replace("{{commands}}", (MADE / "listed.txt").read_text(encoding="utf-8"))


def _write(where: str, text: str) -> None:
    path = MADE / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _file(name: str) -> str:
    return name.replace(" ", "-")


def _commands() -> Iterator[tuple[str, Any]]:
    root: Any = typer.main.get_command(commands)
    for name, late in root.commands.items():
        command = late.loaded()
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {each}", found) for each, found in inner.items())


def _verb(name: str, command: Any) -> str:
    """A page of one command: what it does, two examples, every option."""
    rows = [
        f"| {', '.join(f'`{each}`' for each in (*p.opts, *p.secondary_opts))} | {_help(p)} |"
        for p in command.params
        if p.param_type_name == "option"
    ]
    arguments = [
        f"- `{p.metavar or p.name}`: {_help(p)}"
        for p in command.params
        if p.param_type_name == "argument"
    ]
    parts = [
        f"# dabench {name}",
        _plain(command.help),
        f"Explained in [its guide](../../{GUIDES[name.partition(' ')[0]]}.md).",
        "```sh\n" + "\n".join(EXAMPLES[name]) + "\n```",
        *(["## Arguments", "\n".join(arguments)] if arguments else []),
        "## Options",
        "\n".join(["| option | what it is |", "| :-- | :-- |", *rows]),
    ]
    return "\n\n".join(parts) + "\n"


def _help(parameter: Any) -> str:
    text = _plain(parameter.help or "").replace("\n", " ").replace("|", "\\|")
    default = parameter.default
    shown = bool(getattr(parameter, "show_default", False)) and default not in (None, False, ())
    return f"{text} Default `{default}`." if shown else text


def _plain(text: str) -> str:
    """Without what only a terminal shows; `<` would begin a tag."""
    return text.replace("\\[", "[").replace("<", "&lt;")
