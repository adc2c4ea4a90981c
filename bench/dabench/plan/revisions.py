"""Files as they were at a revision: a copy of their repository, kept in the cache."""

from __future__ import annotations

import io
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dabench.base.errors import bad_value, clean_line
from dabench.base.files import cache_folder, slug


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is, and the folder that stands for the working one."""

    file: Path
    folder: Path


def at_revision(file: Path, revision: str) -> Place:
    """A file, and the working folder, in a copy of its repository at a revision.

    The copy is made once per commit, without submodules.

    Args:
        file: In a git repository; it need not be there in the working tree.
        revision: Whatever git can resolve: a commit, a tag, a branch, ``HEAD~1``.

    Raises:
        UsageError: No repository, no such revision, or the file is not in it.
    """
    file = file.resolve()
    try:
        folder = next(each for each in file.parents if each.is_dir())
        top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip()).resolve()
        commit = _git(top, "rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
        inside = file.relative_to(top)
        _git(top, "cat-file", "-e", f"{commit}:{inside.as_posix()}")
        copy = cache_folder() / "checkouts" / f"{slug(top.name)}-{commit}"
        if not copy.is_dir():
            _extract(_git(top, "archive", "--format=tar", commit), copy)
    except OSError as error:
        raise bad_value("--model", f"{file.name}@{revision}", str(error.strerror)) from None
    except subprocess.CalledProcessError as error:
        said = clean_line(error.stderr.decode(errors="replace")).removeprefix("fatal: ")
        raise bad_value("--model", f"{file.name}@{revision}", f"git says: {said}") from None
    here = Path.cwd().resolve()
    return Place(copy / inside, copy / here.relative_to(top) if here.is_relative_to(top) else here)


def _extract(archive: bytes, target: Path) -> None:
    """Unpacks an archive whole or not at all."""
    import tarfile

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
        made = Path(temporary) / "copy"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(made, filter="data")
        try:
            made.rename(target)
        except OSError:
            # Another process was faster.
            if not target.is_dir():
                raise


def _git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout
