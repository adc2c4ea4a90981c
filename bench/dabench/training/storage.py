"""Where runs on a cluster keep what they need to go on elsewhere: any path that fsspec knows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from dabench.base.errors import UsageError, bad_value, one_line
from dabench.plan.trained import CHECKPOINTS
from dabench.records.trainings import RESULT

_UNFINISHED = ".part"


class Storage:
    """A folder in a storage.

    Args:
        url: Such as ``s3://bucket/folder`` or ``/mnt/shared/folder``.

    Raises:
        UsageError: Of no protocol that is known here, or a path that begins nowhere.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if "://" not in url and not Path(url).is_absolute():
            raise bad_value("--storage", url, "it takes a URL, or a path from the root")
        if url.startswith("memory:"):
            raise bad_value("--storage", url, "what is there ends with the process")
        if urlsplit(url).password is not None:
            # It would be in every record.
            raise UsageError(
                "--storage: a URL with a password is not allowed; it goes into fsspec's own "
                "configuration"
            )
        try:
            found: tuple[Any, str] = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            raise bad_value("--storage", url, one_line(str(error))) from None
        self._fs, self._root = found

    def check(self) -> None:
        """Writes, reads and removes a file.

        Raises:
            UsageError: That cannot be done; names the storage and why.
        """
        probe = f"{self._root}/.dabench"
        # Every file system has errors of its own.
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            for content in (b"before", b"dabench"):
                self._fs.pipe_file(probe + _UNFINISHED, content)
                self._fs.mv(probe + _UNFINISHED, probe)
            whole = self._fs.cat_file(probe) == b"dabench"
            self._fs.rm_file(probe)
        except Exception as error:
            raise self._refused(error) from error
        if not whole:
            raise bad_value("--storage", self.url, "what is written there does not come back")

    def _refused(self, error: Exception) -> UsageError:
        said = getattr(error, "strerror", None) or one_line(str(error)) or type(error).__name__
        return bad_value("--storage", self.url, f"it cannot be written: {said}")

    def put(self, file: Path, name: str) -> None:
        """Copies a file there: others see the old one or the new one.

        Raises:
            UsageError: It cannot be written.
        """
        target = f"{self._root}/{name}"
        try:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            # Of this process: one that is thought to be gone may write still.
            unfinished = f"{target}.{uuid.uuid4().hex[:8]}{_UNFINISHED}"
            self._fs.put_file(str(file), unfinished)
            self._fs.mv(unfinished, target)
        except Exception as error:
            raise self._refused(error) from error

    def names(self) -> list[str]:
        """All whole files, relative to the folder; none where there is no such folder."""
        found: Sequence[str] = self._fs.find(self._root)
        names = [path.removeprefix(self._root).lstrip("/") for path in found]
        return sorted(name for name in names if not name.endswith(_UNFINISHED))

    def get(self, folder: Path) -> None:
        """Copies everything from there."""
        for name in self.names():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(f"{self._root}/{name}", str(target))

    def remove(self, names: Sequence[str] | None = None) -> None:
        """Removes some files, or the folder and all that is in it."""
        if names is None:
            if self._fs.exists(self._root):
                self._fs.rm(self._root, recursive=True)
            return
        for name in names:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{name}")


class Mirror:
    """Keeps a run's folder in a storage as far as it takes to go on.

    Args:
        storage: The run's own folder there.
        folder: Here.
    """

    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage, self._folder = storage, folder

    def restore(self) -> None:
        """Brings back what is there."""
        self._storage.get(self._folder)

    def epoch_done(self) -> None:
        """Copies rows, then the checkpoint that follows them; drops what it replaces."""
        present = set(self._storage.names())
        # What says that a run is over comes after all else that it left.
        for path in sorted(self._folder.glob("*.*"), key=lambda path: (path.name == RESULT, path)):
            if path.is_file() and not path.name.startswith("."):
                self._storage.put(path, path.name)
        kept = [f"{CHECKPOINTS}/{path.name}" for path in (self._folder / CHECKPOINTS).glob("*.pt")]
        for name in sorted(set(kept) - present):
            self._storage.put(self._folder / name, name)
        old = [name for name in present if name.startswith(CHECKPOINTS) and name not in kept]
        self._storage.remove(old)
