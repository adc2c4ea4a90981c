"""Runs of other machines, brought in from folders and archives."""

from __future__ import annotations

import filecmp
import hashlib
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import disk_errors, json_text, write_atomically
from dabench.device.machine import machine_key
from dabench.records.catalog import LABELS, run_folders
from dabench.records.folder import LOCK, RUN, has_run, read_json, read_run
from dabench.records.summary import launches_by_case
from dabench.records.timings import MEASUREMENTS, SUMMARY, read_plan

PROVENANCE = "provenance.json"
"""Where a merged run came from: one entry for each time it was merged."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")

# What may differ between two copies of one run.
_OWN = {LOCK, LABELS, PROVENANCE, MEASUREMENTS, SUMMARY}
_RAW = (".json", ".csv")

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
"""What a run may be called: its folder has that name."""


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
                name = _name(each.path, into, incoming)
                for other in (into / name, incoming[name].path if name in incoming else None):
                    if other is not None and other.exists():
                        _check_same(other, each.path, bundle)
                incoming.setdefault(name, each)
        new = [name for name in incoming if not (into / name).exists()]
        with disk_errors(into):
            into.mkdir(parents=True, exist_ok=True)
            with staging(into) as stage:
                for name in new:
                    _copy(incoming[name], stage / name)
                for name in new:
                    (stage / name).rename(into / name)
    return Merged(new, [name for name in incoming if name not in new])


def _name(path: Path, into: Path, incoming: Mapping[str, _Incoming]) -> str:
    """A run's own name; with its machine, where a run of another machine has that name."""
    document = read_run(path)
    name = str(document["run_id"])
    machine = machine_key(document["environment"])
    taken = (into / name, incoming[name].path if name in incoming else None)
    others = [read_run(each) for each in taken if each is not None and has_run(each)]
    if any(machine_key(each["environment"]) != machine for each in others):
        return f"{name}-{machine}"
    return name


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


_DAMAGES = (
    shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError,
    OSError, ValueError, RuntimeError,
)  # fmt: skip
"""What reading a damaged or encrypted archive raises."""


def _unpack(bundle: Path, folder: Path) -> None:
    zipped = bundle.suffix == ".zip"
    try:
        if not zipped:
            _check_whole(bundle)
        # Leaves out what leads out of the folder.
        shutil.unpack_archive(bundle, folder, filter=None if zipped else "data")
    except _DAMAGES as error:
        raise UsageError(f"{bundle} cannot be unpacked: {error}") from None


def _check_whole(bundle: Path) -> None:
    """Checks that an archive ends as it should: tarfile takes a bad header for the end.

    Raises:
        ValueError: It is cut off or damaged.
    """
    with tarfile.open(bundle) as archive:
        end = max((each.offset_data + each.size for each in archive.getmembers()), default=0)
        assert archive.fileobj is not None
        archive.fileobj.seek(-(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        rest = archive.fileobj.read(-1)  # to the end, where compressed ones keep their checksum
    if rest.strip(b"\0") or len(rest) < 2 * tarfile.BLOCKSIZE:
        raise ValueError("it is cut off or damaged")


def _check(path: Path) -> None:
    """Reads what will be read later on.

    Raises:
        ResultsError: Damaged, or not whole.
    """
    document = read_run(path)
    if not NAME.fullmatch(document["run_id"]):
        raise ResultsError(f"{path / RUN} line 1: not what dabench writes: run_id")
    if document["kind"] == "timing":
        launches = launches_by_case(path, read_plan(path, document))
        found = sum(map(len, launches.values()))
        summarised = read_json(path / SUMMARY)
        if isinstance(summarised, dict) and summarised.get("launches", 0) > found:
            raise ResultsError(
                f"{path} is not whole: {found} of {summarised['launches']} launches are there"
            )


def _check_same(there: Path, coming: Path, bundle: Path) -> None:
    """Compares the records of two copies of a run; what is made from them may differ.

    Raises:
        UsageError: They say different things.
    """
    one, two = (
        {
            str(file.relative_to(folder))
            for file in folder.rglob("*")
            if file.is_file() and file.suffix in _RAW and file.name not in _OWN
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
def staging(into: Path) -> Iterator[Path]:
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
