"""Runs on disk: which there are, what a person said of them, and which may go.

Tags and notes lie in ``labels.json`` beside a run's records, which stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dabench.base.errors import DabenchError, ResultsError, UsageError, bad_value
from dabench.base.files import disk_errors, json_text, slug, write_atomically
from dabench.device.machine import machine_key
from dabench.records.folder import LOCK, RUN, RunFolder, began, has_run, read_json, read_run

LABELS = "labels.json"


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person said of a run.

    Attributes:
        at: When, in ISO 8601.
    """

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Labels:
    """Tags, in alphabetical order, and notes, oldest first, of one run."""

    tags: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a catalogue.

    Attributes:
        document: Of its ``run.json``.
        machine: Its identity (`dabench.device.machine.machine_key`).
    """

    path: Path
    document: dict[str, Any]
    labels: Labels
    machine: str

    @property
    def created(self) -> str:
        """When it was begun, in ISO 8601, UTC."""
        return str(self.document["created"])

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def run_folders(root: Path, *, nested: bool = False) -> Iterator[Path]:
    """Folders of runs below a folder, or that folder itself; none within hidden ones.

    Args:
        root: Where to look.
        nested: Whether to list those within another run, such as a suite's, too.

    Raises:
        UsageError: There is no such folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder")
    found: set[Path] = set()
    for file in sorted(root.rglob(RUN), key=lambda file: (len(file.parts), file)):
        # Such as what a merge was copying when it was cut off.
        if any(part.startswith(".") for part in file.relative_to(root).parts):
            continue
        if nested or not found.intersection(file.parents):
            found.add(file.parent)
            yield file.parent


def catalogue(
    roots: Sequence[Path], *, nested: bool = False
) -> tuple[list[Entry], list[tuple[Path, str]]]:
    """The runs below some folders, oldest first, and those that cannot be read, with the reason.

    Raises:
        UsageError: A folder that does not exist.
    """
    entries, unreadable = [], []
    for path in dict.fromkeys(p for root in roots for p in run_folders(root, nested=nested)):
        try:
            entries.append(read_entry(path))
        except DabenchError as error:
            unreadable.append((path, str(error)))
    return sorted(entries, key=lambda entry: (entry.created, str(entry.path))), unreadable


def read_entry(path: Path) -> Entry:
    """One run.

    Raises:
        UsageError: No run there.
        ResultsError: It is damaged.
    """
    document = read_run(path)
    return Entry(path, document, read_labels(path), machine_key(document["environment"]))


def read_labels(path: Path) -> Labels:
    """Tags and notes of a run.

    Raises:
        ResultsError: Damaged.
    """
    document = read_json(path / LABELS)
    if document is None:
        return Labels()
    try:
        notes = tuple(Note(at=str(n["at"]), text=str(n["text"])) for n in document["notes"])
        return Labels(tuple(map(str, document["tags"])), notes)
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path / LABELS}: not what dabench writes: {error}") from error


def label(
    path: Path, *, add: Sequence[str] = (), remove: Sequence[str] = (), note: str = ""
) -> Labels:
    """Changes what a person says of a run.

    Args:
        path: Its folder.
        add: Tags.
        remove: Tags.
        note: A note to add; empty adds none.

    Returns:
        All that is said of it now.

    Raises:
        UsageError: No run there, a tag that is none, or one to be removed that it has not.
        ResultsError: What was said before is damaged, or the folder cannot be written.
    """
    read_run(path)
    before = read_labels(path)
    for tag in add:
        if not tag or slug(tag) != tag.lower():
            raise bad_value("tag", tag, "it takes letters, digits and single dashes")
    for tag in remove:
        if tag not in before.tags:
            has = ", ".join(before.tags) or "no tags"
            raise bad_value("--remove", tag, f"{path} has {has}")
    tags = tuple(sorted({*before.tags, *add} - {*remove}))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    notes = (*before.notes, *[Note(now, note)] * bool(note))
    labels = Labels(tags, notes)
    with disk_errors(path):
        write_atomically(path / LABELS, json_text(asdict(labels)))
    return labels


def prunable(
    entries: Sequence[Entry], *, before: datetime | None, keep: int | None
) -> tuple[list[Entry], list[Entry]]:
    """The runs that may go, and those that would but for a tag of theirs or of a run within.

    Args:
        entries: Oldest first.
        before: Only those begun before; None takes no account of that.
        keep: So many of the latest stay whatever their age; None is none.
    """
    old = entries[: len(entries) - keep] if keep else entries
    chosen = [
        entry
        for entry in old
        if before is None or ((time := began(entry.created)) is not None and time < before)
    ]
    tagged = [entry for entry in chosen if _is_tagged(entry.path)]
    return [entry for entry in chosen if entry not in tagged], tagged


def _is_tagged(path: Path) -> bool:
    return any(read_labels(folder).tags for folder in run_folders(path, nested=True))


_RECORDS = (".json", ".csv", ".png", ".pt")
_FOLDERS = ("traces", "trials", "checkpoints", "tensorboard")


def foreign_file(path: Path) -> Path | None:
    """A file in a run's folder that no record of dabench is; None if there is none.

    Somebody may have made a folder of something else a run.
    """
    single = read_run(path)["kind"] == "timing"
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        inside = file.relative_to(path)
        folders = [path.joinpath(*inside.parts[:end]) for end in range(1, len(inside.parts))]
        # Suites hold runs, explanations hold trials; timings hold nothing but tables.
        ours = all(_is_ours(each, path) for each in folders) and not (single and folders)
        known = inside.name == LOCK or inside.suffix in _RECORDS or "tensorboard" in inside.parts
        if not (ours and known):
            return file
    return None


def _is_ours(folder: Path, run: Path) -> bool:
    """Whether a folder within a run holds records: a run, or what lies below one we know."""
    return has_run(folder) or any(part in _FOLDERS for part in folder.relative_to(run).parts)


def remove_run(path: Path) -> None:
    """Deletes a run with all its files.

    Raises:
        UsageError: Another process is writing it, or there is more in it than records.
        ResultsError: It cannot be deleted.
    """
    if (foreign := foreign_file(path)) is not None:
        raise UsageError(f"{path} holds more than a run: {foreign}")
    with RunFolder.open(path), disk_errors(path):
        shutil.rmtree(path)
