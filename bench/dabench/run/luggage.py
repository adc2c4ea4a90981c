"""What goes along to other machines: the files of networks from outside, and calibration images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dabench.base.errors import UsageError
from dabench.plan.networks import files_of
from dabench.plan.references import Reference, is_reference
from dabench.plan.trained import is_trained

Message = dict[str, Any]

IMAGES = "calibration"
"""Folder of the images; a network's own files lie where they lie here."""


@dataclass(frozen=True, slots=True)
class Luggage:
    """A folder that becomes the working one on other machines.

    Attributes:
        folder: None if nothing has to go along.
        images: Where an image lies here -> where it lies there.
    """

    folder: Path | None
    images: dict[str, str]

    def repacked(self, request: Message) -> Message:
        """A request that names images as they lie there."""
        chosen = request.get("calibration")
        if not chosen:
            return request
        images = [self.images[path] for path in chosen["images"]]
        return {**request, "calibration": {**chosen, "images": images}}


@contextmanager
def packed(networks: Iterable[str], images: Iterable[Path]) -> Iterator[Luggage]:
    """Copies what networks are made of, and images, to a folder that lasts as long as the context.

    Raises:
        UsageError: A network whose files are elsewhere than in the working folder.
    """
    files = [(path, name) for name in networks for path in _checked(name)]
    renamed = {str(path): f"{IMAGES}/{n}{path.suffix}" for n, path in enumerate(images)}
    if not files and not renamed:
        yield Luggage(None, {})
        return
    with TemporaryDirectory(prefix="dabench-") as folder:
        for path, name in files:
            _copy(path, Path(folder) / _inside(path, name))
        for there, inside in renamed.items():
            _copy(Path(there), Path(folder) / inside)
        yield Luggage(Path(folder), renamed)


def _checked(name: str) -> list[Path]:
    """The files of a network, whose name must lead to them on any machine.

    Raises:
        UsageError: It begins at this machine's root.
    """
    if is_reference(name):
        reference = Reference.of(name)
        path = reference.factory if is_trained(name) else reference.source
        if Path(path).is_absolute():
            raise UsageError(f"--on: {name}: name it as it lies in the working folder")
    return files_of(name)


def _inside(path: Path, name: str) -> Path:
    """Where a file lies in the working folder, by the way that its network's name leads to it.

    Raises:
        UsageError: Elsewhere.
    """
    here = Path.cwd()
    given = path if is_trained(name) else Path(Reference.of(name).source)
    named = Path(os.path.normpath(here / given))
    # Sources are found where links lead: the named file itself, and what lies beside it.
    real = named if is_trained(name) else named.resolve()
    file = here / path
    if file == real:
        if file.name != named.name:
            raise UsageError(f"--on: {name} is a link to {file.name}; name that, or copy it")
        target = named
    elif file.is_relative_to(real.parent):
        target = named.parent / file.relative_to(real.parent)
    else:
        target = here / file.relative_to(here.resolve()) if _is_in(file, here) else file
    if target.is_relative_to(here):
        return target.relative_to(here)
    raise UsageError(
        f"--on: {name} is made of {path}, which is not in the working folder; only what lies there "
        "can be sent"
    )


def _is_in(file: Path, folder: Path) -> bool:
    return file.is_relative_to(folder.resolve())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
