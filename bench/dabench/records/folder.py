"""One run's folder on disk, whatever its kind.

A run is a folder with a ``run.json``, written first, that says its kind, its
machine and what was asked; tables and documents beside it depend on the kind. A
folder is claimed by creating it and by a lock on ``.lock``, a file that is never
replaced; the lock goes with the process, however that ends. Documents are
replaced whole or not at all, tables are appended to and synced, and a torn last
line is passed over when reading: after any interruption a run can be read and
continued.
"""

from __future__ import annotations

import csv
import fcntl
import io
import itertools
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Self

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import (
    disk_errors,
    json_text,
    parse_json,
    slug,
    sync_folder,
    write_atomically,
)
from dabench.device.machine import difference

SCHEMA = 7
"""1: timing, training; 2: ways to run a network; 3: kinds of runs, rounds; 4: streams;
5: int8;
6: what becomes of freed memory; 7: floors beside the layers of a
profile and what becomes of its memory; compiling without the trial of the machine's compiler."""

RUN, LOCK = "run.json", ".lock"
KINDS = (
    "timing", "profile", "train", "suite", "count", "ceilings", "eval", "choice", "frame",
)  # fmt: skip
LONGEST_NAME = 80

_BLOCK = 1 << 16
"""Bytes that are read at a time from a table's end."""

_NEEDED = ("run_id", "created", "command", "environment")
_SHAPES = {
    "run_id": str, "created": str, "command": str, "environment": dict, "networks": dict,
    "left_out": list, "rules": dict, "calibration": dict,
}  # fmt: skip
_FACTS: Mapping[type, tuple[str, ...]] = {
    str: ("cpu", "os", "python", "dabench", "commit", "torch", "cpu_capability", "cuda", "driver"),
    int: ("physical_cores", "logical_cores", "usable_cores", "memory_bytes", "threads", "cudnn"),
    list: ("gpus", "devices", "cpu_flags"),
    dict: ("packages", "variables", "native"),
}
"""Of the environment, by the type that they have where they are known."""
# Kinds whose run.json lists what is to be measured.
_PLANNED = ("timing", "profile", "count", "ceilings", "eval", "frame")


def check_new_run(path: Path) -> None:
    """Checks, without writing, that a new run could be written to a folder.

    Raises:
        UsageError: It could not; the message says why.
    """
    try:
        taken = (path / RUN).exists()
        existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(path)!r}: {error.strerror}") from None
    if taken:
        raise UsageError(f"--out: {str(path)!r} holds a run already; choose another folder")
    if not existing.is_dir():
        raise UsageError(f"--out: cannot write {str(path)!r}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"--out: cannot write {str(path)!r}: {existing} is not writable")


@contextmanager
def new_run_folder(
    out: Path | None, name: str, root: Path = Path("results"), *, option: str = "--out"
) -> Iterator[Path]:
    """The folder of a new run: the one the user named, or one of its own, made here.

    Its own is ``ROOT/<UTC time>-<name>``, claimed by making it, so that two processes
    never get the same; it goes again if nothing was written to it.

    Args:
        out: As the user named it.
        name: Of what is run.
        root: Where else.
        option: By which another place is named.

    Raises:
        UsageError: It cannot be made.
    """
    if out is not None:
        yield out
        return
    first = not root.exists()
    path = _claimed(root, name, option)
    try:
        yield path
    finally:
        # What is not empty stays.
        with suppress(OSError):
            path.rmdir()
            if first:
                root.rmdir()


def _claimed(root: Path, name: str, option: str) -> Path:
    # References hold slashes and brackets.
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{slug(name)[:LONGEST_NAME]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = root / (stem if number == 1 else f"{stem}-{number}")
            with suppress(FileExistsError):
                path.mkdir()
                break
    except OSError as error:
        raise UsageError(f"{option}: cannot write {str(root)!r}: {error.strerror}") from None
    return path


class RunFolder:
    """One run's folder, locked for writing; a context manager.

    Attributes:
        path: The folder.
        document: Of ``run.json``.
    """

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path = path
        self.document = dict(document)
        self._release: Callable[[], object] = lambda: None

    @classmethod
    def create(
        cls,
        path: Path,
        kind: str,
        *,
        command: str,
        environment: Mapping[str, Any],
        again: bool = False,
        wait_s: float = 0.0,
        **details: Any,
    ) -> RunFolder:
        """Claims a folder and begins a run in it.

        Args:
            path: Made if missing.
            kind: Of `KINDS`.
            command: What the user asked for.
            environment: The machine (`dabench.device.machine`).
            again: Begin anew where an attempt was cut off.
            wait_s: So long for another process to end that is writing there.
            **details: What else ``run.json`` says of a run of this kind.

        Raises:
            UsageError: The folder cannot be written, holds a run or is being written.
        """
        assert kind in KINDS
        if not again:
            check_new_run(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out: cannot write {str(path)!r}: {error.strerror}") from error
        run = cls(path, {})
        run._lock(wait_s)
        try:
            if not again:
                # Another process may have been faster since the check.
                check_new_run(path)
            run.document = {
                "schema": SCHEMA,
                "kind": kind,
                # A name of a folder may be no text.
                "run_id": path.resolve().name.encode(errors="backslashreplace").decode(),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command,
                "environment": dict(environment),
                **details,
            }
            with disk_errors(path):
                run.write(RUN, json_text(run.document))
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path, *kinds: str) -> RunFolder:
        """Opens a run to continue it.

        Args:
            path: The folder.
            *kinds: Which kinds will do.

        Raises:
            UsageError: No run of those kinds there, or another process is at it.
            ResultsError: Its ``run.json`` is damaged.
        """
        run = cls(path, read_run(path, *kinds))
        run._lock()
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ending: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write."""
        self._release()

    def write(self, name: str, text: str) -> None:
        """Replaces a file, whole or not at all.

        Raises:
            ResultsError: The disk is full or gone. What was there stays readable.
        """
        with disk_errors(self.path):
            write_atomically(self.path / name, text)

    def write_json(self, name: str, document: object) -> None:
        """Replaces a JSON document; raises as `write`."""
        self.write(name, json_text(document))

    def write_table(
        self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
    ) -> None:
        """Replaces a CSV table; raises as `write`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write(name, text.getvalue())

    def append(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Appends rows to a table in one write; on disk when this returns.

        Raises:
            ResultsError: The disk is full or gone. What was there stays readable.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        path = self.path / name
        with disk_errors(self.path):
            # Empty where the header itself was cut off.
            new = not path.exists() or not path.stat().st_size
            if new:
                writer.writerow(columns)
            writer.writerows(rows)
            before = path.stat().st_size if path.exists() else 0
            try:
                with path.open(
                    "a", encoding="utf-8", errors="backslashreplace", newline=""
                ) as file:
                    file.write(text.getvalue())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                # Half a line would spoil what another launch appends.
                with suppress(OSError):
                    os.truncate(path, before)
                raise
            if new:
                sync_folder(self.path)

    def cut_torn_line(self, name: str) -> None:
        """Drops an unfinished last line of a table, so that appending starts on a fresh one."""
        path = self.path / name
        if path.exists():
            with disk_errors(self.path), path.open("rb+") as file:
                end = file.seek(0, os.SEEK_END)
                while end:
                    start = max(end - _BLOCK, 0)
                    file.seek(start)
                    newline = file.read(end - start).rfind(b"\n")
                    if newline >= 0:
                        file.truncate(start + newline + 1)
                        return
                    end = start
                file.truncate(0)

    def _lock(self, wait_s: float = 0.0) -> None:
        try:
            descriptor = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be locked: {error.strerror}") from None
        until = time.monotonic() + wait_s
        try:
            while not _locked(descriptor):
                if time.monotonic() >= until:
                    raise UsageError(f"{self.path} is being written by another dabench")
                time.sleep(0.05)
        except BaseException:
            os.close(descriptor)
            raise
        # Also when the object is forgotten: the lock must not outlive its writer.
        self._release = weakref.finalize(self, os.close, descriptor)


class Following(RunFolder):
    """A run's folder as a process sees it that leaves writing to another."""

    def write(self, name: str, text: str) -> None:
        """Nothing."""

    def append(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Nothing."""


def _locked(descriptor: int) -> bool:
    """Takes a lock; whether it was free.

    Raises:
        UsageError: There are no locks on this file system.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(f"the run cannot be locked: {error.strerror}") from None
    return True


def kind_of(path: Path) -> str:
    """The kind of a run; runs of timings did not say it before schema 3.

    Raises:
        UsageError: No run there, or one of a newer dabench.
        ResultsError: A damaged ``run.json``.
    """
    return str(read_run(path)["kind"])


def has_run(path: Path) -> bool:
    """Whether a folder holds a run, of whatever kind."""
    return (path / RUN).exists()


def read_run(path: Path, *kinds: str) -> dict[str, Any]:
    """Reads ``run.json``.

    Args:
        path: The folder.
        *kinds: Which kinds will do; all if none is named.

    Raises:
        UsageError: No run of those kinds there, or one of a newer dabench.
        ResultsError: Not what dabench writes.
    """
    file = path / RUN
    try:
        run = parse_json(file, file.read_text(encoding="utf-8"))
        schema = run["schema"]
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} holds no run ({RUN} is missing)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {file}: {error}") from None
    except (KeyError, TypeError):
        raise ResultsError(f"{file} line 1: not a record of dabench: no schema") from None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UsageError(
            f"{file} has schema {schema}, this dabench reads up to {SCHEMA}; upgrade dabench"
        )
    kind = run.setdefault("kind", "timing")
    if kind not in KINDS:
        raise ResultsError(f"{file} line 1: not a record of dabench: kind {kind!r}")
    missing = [key for key in (*_NEEDED, *["plan"] * (kind in _PLANNED)) if key not in run]
    if missing:
        raise ResultsError(f"{file} line 1: not a record of dabench: no {missing[0]}")
    for key, shape in _SHAPES.items():
        if key in run and not isinstance(run[key], shape):
            raise ResultsError(f"{file} line 1: not what dabench writes: {key} {run[key]!r}")
    check_facts(f"{file} line 1", run)
    plan = run["plan"] if kind in _PLANNED else []
    if not isinstance(plan, list) or not all(isinstance(each, dict) for each in plan):
        raise ResultsError(f"{file} line 1: not what dabench writes: plan {plan!r}")
    if kinds and kind not in kinds:
        raise UsageError(f"{path} holds a run of kind {kind!r}, not {' or '.join(kinds)}")
    return dict(run)


def began(created: str) -> datetime | None:
    """When a run began; None where it does not say.

    Raises:
        ValueError: No time.
        OverflowError: One out of this world.
    """
    return datetime.fromisoformat(created).astimezone(UTC) if created else None


def check_facts(where: str, run: Mapping[str, Any]) -> None:
    """Checks the facts that every command shows of a run: when it began, and on what machine.

    Args:
        where: It stands, for what is said of it.
        run: Its ``created`` and its ``environment``.

    Raises:
        ResultsError: Not what dabench writes.
    """
    facts = run["environment"]
    for shape, names in _FACTS.items():
        for name in names:
            value = facts.get(name)
            # True is 1 to Python.
            if value is not None and (not isinstance(value, shape) or isinstance(value, bool)):
                raise ResultsError(f"{where}: not what dabench writes: {name} {value!r}")
    for name in ("gpus", "devices"):
        if not all(isinstance(each, str) for each in facts.get(name) or ()):
            raise ResultsError(f"{where}: not what dabench writes: {name} {facts[name]!r}")
    try:
        began(run["created"])
    except (ValueError, OverflowError):
        raise ResultsError(
            f"{where}: not what dabench writes: created {run['created']!r}"
        ) from None


def read_json(path: Path) -> Any:
    """Reads a JSON document of a run; None if it is not there.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from None
    return parse_json(path, text)


def read_table(
    path: Path,
    columns: Sequence[str],
    older: Sequence[Sequence[str]] = (),
    *,
    whole: bool = False,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table with their line numbers; a torn last line is passed over.

    Args:
        path: A missing file reads as one without rows.
        columns: What its header must say.
        older: Headers of earlier schemas; columns they lack are empty.
        whole: It is written at once, and not row by row: a torn line is damage.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from error
    if not text.endswith("\n"):
        if whole:
            raise ResultsError(f"{path} line {text.count(chr(10)) + 1}: cut off")
        text = text[: text.rfind("\n") + 1]
    reader = _rows(path, csv.reader(io.StringIO(text)))
    _, header = next(reader, (1, list(columns)))
    if tuple(header) not in {tuple(columns), *map(tuple, older)}:
        raise ResultsError(f"{path} line 1: expected the columns {','.join(columns)}")
    missing = {name: "" for name in columns if name not in header}
    for line, row in reader:
        if len(row) != len(header):
            raise ResultsError(f"{path} line {line}: {len(row)} fields, expected {len(header)}")
        yield line, {**dict(zip(header, row, strict=True)), **missing}


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV reader with their line numbers."""
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ResultsError(f"{path} line {reader.line_num}: {error}") from None


@contextmanager
def bad_row(path: Path, line: int) -> Iterator[None]:
    """Turns what parsing a row raises into an error with file and line."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UsageError) as error:
        raise ResultsError(f"{path} line {line}: not what dabench writes: {error}") from error


def damaged(
    path: Path,
    columns: Sequence[str],
    numeric: Sequence[str],
    older: Sequence[Sequence[str]] = (),
) -> NoReturn:
    """Finds the damaged line of a table that is known to be damaged.

    Raises:
        ResultsError: Always; names file and line.
    """
    for line, row in read_table(path, columns, older):
        with bad_row(path, line):
            for name in numeric:
                float(row[name])
    raise ResultsError(f"{path}: not what dabench writes")


def check_same_machine(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Checks that a run goes on with the machine, software and settings it was begun with.

    Raises:
        UsageError: Something differs; the message says what.
    """
    found = difference(then, now)
    if found is not None:
        raise UsageError(f"--resume: {folder} was measured elsewhere: {found}")
