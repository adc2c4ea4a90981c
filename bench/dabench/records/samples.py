"""The samples of a run of timings, read as columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dabench.base.errors import ResultsError
from dabench.records.folder import bad_row, read_table
from dabench.timing.engine import KINDS, PhaseSamples
from dabench.timing.samples import StoredSamples, wall_seconds

SAMPLE_COLUMNS = ("launch", "case_id", "phase", "kind", "index", "wall_s", "device_s")

LARGE = 1 << 20
"""Bytes from which on importing pandas costs less than reading without it."""


Numbers = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Columns:
    """A row per timed pass, in the order of the file.

    Attributes:
        phases: Names.
        launch: (n,) number of the launch.
        phase: (n,) place in `phases`.
        kind: (n,) place in `KINDS`.
        index: (n,) place within its launch, phase and kind.
        wall_s: (n,) seconds by the host's clock.
        device_s: (n,) by the device's; not a number where it has none.
    """

    phases: tuple[str, ...]
    launch: Numbers
    phase: Numbers
    kind: Numbers
    index: Numbers
    wall_s: NDArray[np.float64]
    device_s: NDArray[np.float64]

    def stretches(self) -> Iterator[tuple[int, str, str, slice]]:
        """Launch, phase, kind, and where their rows stand, for each in turn.

        What does not stand together in the file comes in pieces.
        """
        if not len(self.launch):
            return
        keys = (self.launch, self.phase, self.kind)
        changes = np.logical_or.reduce([each[1:] != each[:-1] for each in keys])
        starts = [0, *(np.flatnonzero(changes) + 1).tolist()]
        kinds = tuple(KINDS)
        ends = [*starts[1:], len(self.launch)]
        firsts = (each[starts].tolist() for each in keys)
        for launch, phase, kind, start, end in zip(*firsts, starts, ends, strict=True):
            yield launch, self.phases[phase], kinds[kind], slice(start, end)

    def by_launch(self) -> dict[int, dict[str, PhaseSamples]]:
        """The samples of each launch, by phase."""
        found: dict[int, dict[str, PhaseSamples]] = {}
        for launch, phase, kind, rows in self.stretches():
            samples = found.setdefault(launch, {}).setdefault(phase, PhaseSamples())
            there = samples.of_kind(kind)
            stored = StoredSamples(partial(self._of, rows))
            if len(there):
                there.extend(stored)
            else:
                setattr(samples, KINDS[kind], stored)
        return found

    def _of(self, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.wall_s[rows], self.device_s[rows]


class Later:
    """The samples of a run, of which nothing is read until somebody looks at one.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _found(self) -> dict[int, dict[str, PhaseSamples]]:
        return read_samples(self._path).by_launch()

    def of(self, launch: int, phase: str) -> PhaseSamples:
        """A launch's samples of a phase."""
        samples = PhaseSamples()
        for kind, attribute in KINDS.items():
            setattr(samples, attribute, StoredSamples(partial(self._columns, launch, phase, kind)))
        return samples

    def _columns(
        self, launch: int, phase: str, kind: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        samples = self._found.get(launch, {}).get(phase)
        if samples is None:
            raise ResultsError(f"{self._path}: launch {launch} has no samples of {phase}")
        there = samples.of_kind(kind)
        device_s = [math.nan if each.device_s is None else each.device_s for each in there]
        return np.array(wall_seconds(there)), np.array(device_s)


def is_large(path: Path) -> bool:
    """Whether reading a table takes a while."""
    return path.exists() and path.stat().st_size >= LARGE


def read_samples(path: Path) -> Columns:
    """Reads a table of samples; a torn last line is passed over.

    Args:
        path: The file; a missing one reads as one without rows.

    Raises:
        ResultsError: Damaged; names file and line.
    """
    found = _read_large(path) if is_large(path) and _ends_whole(path) else None
    # Slower, and names the line of what is damaged.
    return found or _read_small(path)


def _read_small(path: Path) -> Columns:
    launch, phase, kind, index = ([] for _ in range(4))
    wall_s, device_s = [], []
    phases: dict[str, int] = {}
    kinds = {name: place for place, name in enumerate(KINDS)}
    for line, row in read_table(path, SAMPLE_COLUMNS):
        with bad_row(path, line):
            launch.append(int(row["launch"]))
            phase.append(phases.setdefault(row["phase"], len(phases)))
            kind.append(kinds[row["kind"]])
            index.append(int(row["index"]))
            wall_s.append(_seconds(float(row["wall_s"])))
            device_s.append(float(row["device_s"]) if row["device_s"] else math.nan)
    return Columns(
        tuple(phases),
        np.array(launch, np.int64),
        np.array(phase, np.int64),
        np.array(kind, np.int64),
        np.array(index, np.int64),
        np.array(wall_s, np.float64),
        np.array(device_s, np.float64),
    )


def _seconds(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"wall_s {value}: a pass takes some time")
    return value


def _are_seconds(values: NDArray[np.float64]) -> bool:
    return bool(np.all((values > 0) & (values < math.inf)))


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def _read_large(path: Path) -> Columns | None:
    """As pandas reads it; None where it is damaged."""
    import pandas as pd

    types: Mapping[str, Any] = {
        "launch": "int32", "phase": "category", "kind": "category", "index": "int32",
        "wall_s": "float64", "device_s": "float64",
    }  # fmt: skip
    with path.open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n")
    try:
        frame = pd.read_csv(
            path, usecols=list(types), dtype=dict(types), keep_default_na=False,
            na_values={"device_s": [""]},
        )  # fmt: skip
        kinds = [list(KINDS).index(kind) for kind in frame["kind"].cat.categories]
        if header != ",".join(SAMPLE_COLUMNS) or not _are_seconds(frame["wall_s"].to_numpy()):
            raise ValueError(header)
    except ValueError:  # pandas' parser errors are ValueErrors
        return None
    return Columns(
        tuple(map(str, frame["phase"].cat.categories)),
        frame["launch"].to_numpy(),
        frame["phase"].cat.codes.to_numpy(),
        np.array(kinds, np.int8)[frame["kind"].cat.codes.to_numpy()],
        frame["index"].to_numpy(),
        frame["wall_s"].to_numpy(),
        frame["device_s"].to_numpy(),
    )


def last_launch(path: Path) -> int:
    """The launch of the last whole row; -1 where there is none.

    Rows are appended launch by launch: those of one that never finished are the last ones.
    """
    if not path.exists():
        return -1
    with path.open("rb") as file:
        size = file.seek(0, 2)
        block = 1 << 16
        file.seek(max(size - block, 0))
        lines: Sequence[bytes] = file.read().split(b"\n")[:-1]
    number = lines[-1].partition(b",")[0] if lines else b""
    return int(number) if number.isdigit() else -1
