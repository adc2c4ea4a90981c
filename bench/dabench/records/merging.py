"""Runs of other machines, brought in from folders and archives."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dabench.base.errors import UsageError
from dabench.base.files import disk_errors, json_text, write_atomically
from dabench.records.catalog import LABELS, run_folders
from dabench.records.folder import LOCK, read_json, read_run
from dabench.records.summary import launches_by_case
from dabench.records.timings import read_plan

PROVENANCE = "provenance.json"
"""Where a merged run came from: one entry for each time it was merged."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")

# What may differ between two copies of one run.
_OWN = {LOCK, LABELS, PROVENANCE}


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge came to: names of the runs that are new, and of those that were there."""

    new: list[str]
    known: list[str]


@dataclass(frozen=True, slots=True)
class _Incoming:
    path: Path
    bundle: str
    sha256: str | None


def merge(bundles: Sequence[Path], into: Path) -> Merged:
    """Copies the runs of bundles into a folder; all of them or none.

    Args:
        bundles: Folders that hold runs or are one, or archives (`ARCHIVES`).
        into: Made if missing.

    Raises:
        UsageError: A bundle holds no runs or cannot be read, or a run of the same name says
            something else.
        ResultsError: Damaged records.
    """
    with tempfile.TemporaryDirectory(prefix="dabench-") as scratch:
        incoming: dict[str, _Incoming] = {}
        for number, bundle in enumerate(bundles):
            for each in _runs_of(bundle, Path(scratch) / str(number)):
                _check(each.path)
                name = each.path.resolve().name
                for other in (into / name, incoming[name].path if name in incoming else None):
                    if other is not None and other.exists():
                        _check_same(other, each.path, bundle)
                incoming.setdefault(name, each)
        new = [name for name in incoming if not (into / name).exists()]
        with disk_errors(into):
            into.mkdir(parents=True, exist_ok=True)
            with _staging(into) as stage:
                for name in new:
                    _copy(incoming[name], stage / name)
                for name in new:
                    (stage / name).rename(into / name)
    return Merged(new, [name for name in incoming if name not in new])


def _runs_of(bundle: Path, scratch: Path) -> Iterator[_Incoming]:
    """The runs of one bundle, unpacked where need be."""
    sha256 = None
    folder = bundle
    if bundle.is_file() and bundle.name.endswith(ARCHIVES):
        sha256 = hashlib.sha256(bundle.read_bytes()).hexdigest()
        _unpack(bundle, scratch)
        folder = scratch
    elif not bundle.is_dir():
        raise UsageError(f"{bundle} is neither a folder nor an archive ({', '.join(ARCHIVES)})")
    found = [_Incoming(path, bundle.resolve().name, sha256) for path in run_folders(folder)]
    if not found:
        raise UsageError(f"{bundle} holds no run")
    yield from found


def _unpack(bundle: Path, folder: Path) -> None:
    try:
        # Leaves out what leads out of the folder.
        shutil.unpack_archive(bundle, folder, filter=None if bundle.suffix == ".zip" else "data")
    except (shutil.ReadError, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{bundle} cannot be unpacked: {error}") from None


def _check(path: Path) -> None:
    """Reads what will be read later on."""
    document = read_run(path)
    if document["kind"] == "timing":
        launches_by_case(path, read_plan(path, document))


def _check_same(there: Path, coming: Path, bundle: Path) -> None:
    one, two = (
        {
            str(file.relative_to(folder))
            for file in folder.rglob("*")
            if file.is_file() and file.name not in _OWN
        }
        for folder in (there, coming)
    )
    differing = sorted(one ^ two) or filecmp.cmpfiles(there, coming, sorted(one), shallow=False)[1]
    if differing:
        raise UsageError(
            f"{bundle}: its run {coming.name} contradicts {there}: {differing[0]} differs; "
            "nothing was merged"
        )


@contextmanager
def _staging(into: Path) -> Iterator[Path]:
    """A folder beside the runs, so that a run appears there whole."""
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=into) as folder:
        yield Path(folder)


def _copy(run: _Incoming, target: Path) -> None:
    shutil.copytree(run.path, target, ignore=shutil.ignore_patterns(LOCK))
    history = read_json(run.path / PROVENANCE) or []
    entry = {
        "bundle": run.bundle,
        "sha256": run.sha256,
        "merged": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(target / PROVENANCE, json_text([*history, entry]))
