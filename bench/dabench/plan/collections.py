"""Networks in somebody else's checkout, found by reading its files; none is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dabench.base.errors import UsageError, bad_value
from dabench.plan.settings import Grid

MOST_FILES = 500
"""Files that are read, at most."""

CLASSES = 19
"""Given to factories that take a number of classes: Cityscapes'."""

_CLASS_ARGUMENTS = ("num_class", "num_classes", "n_classes", "nclass", "nclasses", "classes")
_FOLDERS = ("models", "model", "networks", "nets", "lib/models")


def networks_in(checkout: Path) -> list[str]:
    """References to every network of a checkout, in the order of its files.

    A network is a class of a module's top level that derives from something called ``Module``,
    can be made without arguments or with a number of classes alone, and that no other class of
    its file uses, nor a network of another file that imports it. Of packages named ``models`` and
    the like their files are read, else those of the checkout's own folder.

    Args:
        checkout: Its folder.

    Raises:
        UsageError: No such folder, or no network in it.
    """
    if not checkout.is_dir():
        raise bad_value("--source", str(checkout), "it takes the folder of a checkout")
    places = [checkout / name for name in _FOLDERS if (checkout / name).is_dir()] or [checkout]
    files = [path for place in places for path in sorted(place.glob("*.py"))][:MOST_FILES]
    trees = {path: tree for path in files if (tree := _parsed(path)) is not None}
    parts = {part for tree in trees.values() for part in _imported_parts(tree)}
    found = [each for path, tree in trees.items() for each in _networks_of(path, tree, parts)]
    if not found:
        raise UsageError(
            f"--source: no network in {', '.join(map(str, places))}: no class that can be made "
            "without arguments; --model PATH.py:FACTORY names one"
        )
    return found


def with_networks(grid: Grid, checkout: Path) -> Grid:
    """A grid with every network of a checkout behind its own.

    Raises:
        UsageError: There is none.
    """
    models = dict.fromkeys((*grid.models, *networks_in(checkout)))
    return replace(grid, models=tuple(models))


def _parsed(path: Path) -> ast.Module | None:
    """What a file says; None of what Python cannot read, which is no network."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _imported_parts(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """File and name of what the networks of a file take from others, such as their backbone."""
    classes = _classes(tree)
    used = {
        inner.id
        for node in classes
        if _is_module(node, classes)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            stem = node.module.rpartition(".")[2]
            yield from ((stem, e.name) for e in node.names if (e.asname or e.name) in used)


def _networks_of(path: Path, tree: ast.Module, parts: set[tuple[str, str]]) -> Iterator[str]:
    classes = _classes(tree)
    for node in classes:
        if not _is_module(node, classes) or (path.stem, node.name) in parts:
            continue
        if _is_used(node.name, tree, node):
            continue
        arguments = _arguments(node)
        if arguments is not None:
            yield f"{path}:{node.name}{arguments}"


def _is_module(node: ast.ClassDef, classes: list[ast.ClassDef]) -> bool:
    """Whether a class derives from a ``Module``, perhaps by others of its file."""
    known = {each.name: each for each in classes}
    for base in node.bases:
        name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if name == "Module":
            return True
        if name != node.name and name in known and _is_module(known[name], classes):
            return True
    return False


def _is_used(name: str, tree: ast.Module, own: ast.ClassDef) -> bool:
    """Whether anything of a file but the class itself names it."""
    return any(
        isinstance(inner, ast.Name) and inner.id == name
        for node in tree.body
        if node is not own and not _is_main(node)
        for inner in ast.walk(node)
    )


def _is_main(node: ast.stmt) -> bool:
    """Whether a statement is the part of a file that runs as a script."""
    return isinstance(node, ast.If) and "__name__" in ast.dump(node.test)


def _arguments(node: ast.ClassDef) -> str | None:
    """The call that makes a class, without its name; None where it needs what we do not know."""
    init = next(
        (e for e in node.body if isinstance(e, ast.FunctionDef) and e.name == "__init__"), None
    )
    if init is None:
        return ""
    positional = [*init.args.posonlyargs, *init.args.args][1:]
    needed = {each.arg for each in positional[: len(positional) - len(init.args.defaults)]}
    needed |= {
        each.arg
        for each, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        if default is None
    }
    names = [each.arg for each in (*positional, *init.args.kwonlyargs)]
    classes = next((name for name in _CLASS_ARGUMENTS if name in names), None)
    if needed - {classes}:
        return None
    return f"({classes}={CLASSES})" if classes else ""
