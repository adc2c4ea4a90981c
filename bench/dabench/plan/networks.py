"""What is known of a network by its name, and what identifies it; imports no code of others."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import itertools
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from dabench.base.errors import UsageError, bad_value
from dabench.plan.references import FORMS, LIBRARIES, Reference, is_reference
from dabench.plan.trained import AFTER, BEFORE, EARLIER, files_of_trained, is_trained, trained_at
from dabench_models import ModelSpec, UnknownModelError, resolve

MOST_SOURCES = 2000
"""Files that a network's fingerprint is made of, at most."""

_NOT_SOURCES = {"__pycache__", "site-packages", "node_modules", "venv", "env", "results"}


RESNET18 = "resnet18"
"""Stands for torchvision's ImageNet weights of the backbone of that name."""


def spec_of(name: str) -> ModelSpec:
    """What is known of a network before it is built; imports no code of others.

    Raises:
        UsageError: Not in the registry, and no reference whose source is there.
    """
    if is_reference(name):
        reference = Reference.of(name)
        reference.check()
        if is_trained(name):
            return _trained_spec(reference)
        library = LIBRARIES.get(reference.source)
        height, width = library.size if library else (512, 1024)
        return ModelSpec(
            name=reference.name,
            family="other",
            builder=f"{reference.source}:{reference.factory}",
            options=dict(reference.arguments),
            height=height,
            width=width,
            outputs=(),
            summary="a network from outside of dabench",
            source=reference.source,
        )
    try:
        return resolve(name)
    except UnknownModelError as error:
        raise UsageError(f"--model: {error}; or {FORMS}") from None


def _trained_spec(reference: Reference) -> ModelSpec:
    """That of the network which was trained, for its classes and at its size."""
    trained = trained_at(Path(reference.factory))
    try:
        of_registry = resolve(trained.model)
    except UnknownModelError as error:
        raise bad_value(
            "--model", reference.name, f"it was trained by another dabench: {error}"
        ) from None
    return replace(
        of_registry,
        name=reference.name,
        num_classes=len(trained.classes),
        height=trained.height,
        width=trained.width,
        source="a training of dabench's",
    )


def identities(names: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Name -> `identity_of`, for those of the names that are networks from outside."""
    found = {name: identity_of(name) for name in dict.fromkeys(names)}
    return {name: identity for name, identity in found.items() if identity is not None}


def identity_of(name: str) -> dict[str, str | None] | None:
    """What tells versions of a network from outside apart; None for networks of the registry.

    For a library's network its ``version``, for a trained one the ``sha256`` of its weights'
    file and what its images go through ``before`` and ``after`` it, else the digest of its
    sources and the ``commit`` of their checkout (None without one).

    Raises:
        UsageError: Its source is not there.
    """
    if not is_reference(name):
        return None
    reference = Reference.of(name)
    reference.check()
    library = LIBRARIES.get(reference.source)
    if library is not None:
        return {"version": metadata.version(library.distribution)}
    if is_trained(name):
        weights = trained_at(Path(reference.factory)).weights
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        return {"sha256": digest, "before": BEFORE, "after": AFTER}
    if reference.is_file:
        place = reference.place()
        # Of a copy at a revision the sources say all; it is in no checkout.
        commit = None if reference.revision else commit_of(place.file.parent)
        return {"sha256": _digest(_sources(place.file, place.folder)), "commit": commit}
    files, folder = _module_sources(reference.source)
    return {"sha256": _digest(files), "commit": commit_of(folder) if folder else None}


def files_of(name: str) -> list[Path]:
    """The files that a network from outside is made of; none of what is installed.

    Raises:
        UsageError: Its source is not there, or it is of a revision, whose copy is this machine's.
    """
    if not is_reference(name):
        return []
    reference = Reference.of(name)
    reference.check()
    if reference.source in LIBRARIES:
        return []
    if is_trained(name):
        return files_of_trained(Path(reference.factory))
    if reference.revision:
        raise UsageError(f"--model: {name}: check the revision out; only files can be sent")
    if reference.is_file:
        place = reference.place()
        return _sources(place.file, place.folder)
    files, _ = _module_sources(reference.source)
    here = Path.cwd().resolve()
    return [path for path in files if path.resolve().is_relative_to(here)]


def is_still(then: Mapping[str, str | None], now: Mapping[str, str | None] | None) -> bool:
    """Whether a network from outside is what a record says.

    A commit tells where it came from; another one may leave this network as it was.
    """
    if now is None:
        return False
    unsaid = {name: value for name, value in EARLIER.items() if name in now}
    return {**unsaid, **then, "commit": None} == {**now, "commit": None}


def _sources(path: Path, folder: Path) -> list[Path]:
    """A file and all others of Python it may import from where it lies.

    Its folder, and the whole package it is part of: imports are found by running
    code, so every file counts, and a change that turns out not to matter is
    asked about once more than it need be. Beyond them, what it imports by name from
    beside the package or from the working folder.

    Args:
        path: The file.
        folder: The working folder.
    """
    package = path.parent
    while (package / "__init__.py").exists() and (package.parent / "__init__.py").exists():
        package = package.parent
    beside = package.parent if (package / "__init__.py").exists() else package
    found = (each for each in package.rglob("*.py") if _is_source(each.relative_to(package)))
    nearby = _imported(path, (beside, path.parent, folder))
    return sorted({path, *nearby, *itertools.islice(found, MOST_SOURCES)})


def _is_source(path: Path) -> bool:
    return not any(part.startswith(".") or part in _NOT_SOURCES for part in path.parts)


def _imported(path: Path, folders: Sequence[Path]) -> set[Path]:
    """The files in some folders that a file imports, and those that these import; none is run."""
    found: set[Path] = set()
    left = [path]
    while left and len(found) < MOST_SOURCES:
        here = left.pop()
        for level, name in _imports(here):
            places = folders if not level else [here.parents[min(level, len(here.parents)) - 1]]
            for file in _files(name, places):
                if file not in found:
                    found.add(file)
                    left.append(file)
    return found


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """What a file imports: how many dots lead it, and the name behind them."""
    # What Python cannot read fails when it is imported, with a better message.
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # What is imported from a package may be a module of it.
            yield from ((node.level, f"{node.module or ''}.{each.name}") for each in node.names)


def _files(name: str, folders: Iterable[Path]) -> Iterator[Path]:
    """The modules and packages that importing a dotted name runs, where they lie in folders."""
    parts = [part for part in name.split(".") if part]
    for folder in folders:
        for end in range(1, len(parts) + 1):
            inside = folder.joinpath(*parts[:end])
            for file in (inside.with_name(f"{inside.name}.py"), inside / "__init__.py"):
                if file.is_file():
                    yield file.resolve()


def _module_sources(name: str) -> tuple[list[Path], Path | None]:
    """The files of the package a module is in; found without importing it."""
    first = name.partition(".")[0]
    inside = Path.cwd().joinpath(*name.split("."))
    for path in (inside / "__init__.py", inside.with_suffix(".py")):
        if path.is_file():
            return _sources(path, Path.cwd()), path.parent
    if (folder := Path.cwd() / first).is_dir():
        return sorted(folder.rglob("*.py"))[:MOST_SOURCES], folder
    spec = importlib.util.find_spec(first)
    if spec is None:
        return [], None
    places = [Path(place) for place in spec.submodule_search_locations or []]
    if not places:
        return ([Path(spec.origin)] if spec.origin else []), None
    files = (path for place in places for path in sorted(place.rglob("*.py")))
    return list(itertools.islice(files, MOST_SOURCES)), places[0]


def _digest(files: Iterable[Path]) -> str:
    """Of names and contents: a file more or less shows too."""
    digest = hashlib.sha256()
    for path in files:
        of_file = hashlib.sha256(path.read_bytes()).hexdigest()
        # A name may be no text.
        digest.update(os.fsencode(path.name) + f" {of_file}\n".encode())
    return digest.hexdigest()


def commit_of(folder: Path) -> str | None:
    """The commit of the checkout a folder is in, ``-dirty`` if changed."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return shown.stdout.strip() or None
