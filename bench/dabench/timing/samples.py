"""Timed passes: one, and many as two columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Columns = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed pass, in seconds: by the host's clock and by the device's."""

    wall_s: float
    device_s: float | None


class StoredSamples(MutableSequence[Sample]):
    """Samples of a record, kept as the columns that were read: ten million fit in memory.

    Whoever changes one gets a list of their own.

    Args:
        read: Gives the columns when somebody looks at them: (n,) seconds by the host's clock, and
            (n,) by the device's, not a number where it has none.
    """

    __slots__ = ("_changed", "_read", "_there")

    def __init__(self, read: Callable[[], Columns]) -> None:
        self._read = read
        self._there: Columns | None = None
        self._changed: list[Sample] | None = None

    @property
    def _columns(self) -> Columns:
        if self._there is None:
            self._there = self._read()
        return self._there

    def wall_s(self) -> list[float]:
        """Seconds by the host's clock."""
        if self._changed is not None:
            return [each.wall_s for each in self._changed]
        seconds: list[float] = self._columns[0].tolist()
        return seconds

    def __len__(self) -> int:
        return len(self._columns[0] if self._changed is None else self._changed)

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice) -> MutableSequence[Sample]: ...
    def __getitem__(self, key: int | slice) -> Sample | MutableSequence[Sample]:
        if self._changed is not None:
            return self._changed[key]
        wall_s, device_s = self._columns
        if isinstance(key, slice):
            return StoredSamples(lambda: (wall_s[key], device_s[key]))
        return _sample(float(wall_s[key]), float(device_s[key]))

    def __iter__(self) -> Iterator[Sample]:
        if self._changed is not None:
            return iter(self._changed)
        wall_s, device_s = self._columns
        return map(_sample, wall_s.tolist(), device_s.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == list(other)

    def __hash__(self) -> int:
        raise TypeError("samples can change")

    def _own(self) -> list[Sample]:
        if self._changed is None:
            self._changed = list(self)
        return self._changed

    @overload
    def __setitem__(self, key: int, value: Sample) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: Iterable[Sample]) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None:
        self._own()[key] = value

    def __delitem__(self, key: int | slice) -> None:
        del self._own()[key]

    def insert(self, index: int, value: Sample) -> None:
        """Puts a sample before another one."""
        self._own().insert(index, value)


def as_columns(samples: Sequence[Sample]) -> StoredSamples:
    """The same samples as columns."""
    import numpy as np

    wall_s = np.array([each.wall_s for each in samples], float)
    device_s = [math.nan if each.device_s is None else each.device_s for each in samples]
    columns = (wall_s, np.array(device_s, float))
    return StoredSamples(lambda: columns)


def wall_seconds(samples: Sequence[Sample]) -> list[float]:
    """Seconds of each sample by the host's clock."""
    if isinstance(samples, StoredSamples):
        return samples.wall_s()
    return [each.wall_s for each in samples]


def _sample(wall_s: float, device_s: float) -> Sample:
    return Sample(wall_s, None if math.isnan(device_s) else device_s)
