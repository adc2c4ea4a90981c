"""Energy, where the machine can tell: RAPL on Linux processors, NVML on NVIDIA GPUs.

Joules are those of the whole package or board, the draw of an idle one included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

POWERCAP = Path("/sys/class/powercap")


class NoEnergyError(Exception):
    """This machine cannot tell; the message says why."""


class EnergyMeter(Protocol):
    """Counts joules from `start` on."""

    @property
    def source(self) -> str:
        """What is read, for the record."""

    @property
    def fewest_seconds(self) -> float:
        """Shortest time, in seconds, that it can measure: its counter moves in steps."""

    def start(self) -> None:
        """Starts counting from 0."""

    def joules(self) -> float:
        """Joules used since `start`."""


class Rapl:
    """Running average power limit counters of all processor packages, through Linux's powercap.

    Args:
        root: The kernel's folder.

    Raises:
        NoEnergyError: There are none, or this user may not read them.
    """

    fewest_seconds = 0.1  # ticks of about a millisecond

    def __init__(self, root: Path = POWERCAP) -> None:
        try:
            # Zones within a package count a part of it again, and so does the platform's.
            self._zones = [
                zone
                for zone in sorted(root.glob("*-rapl:*"))
                if (zone / "name").read_text().startswith("package")
            ]
            if not self._zones:
                raise NoEnergyError("the system shows no RAPL counters, as most virtual machines")
            self._ranges = [_number(zone / "max_energy_range_uj") for zone in self._zones]
            self._begin = self._read()
        except OSError as error:
            raise NoEnergyError(f"RAPL counters cannot be read: {error.strerror}") from None
        self.source = f"RAPL, {len(self._zones)} package{'s' if len(self._zones) > 1 else ''}"

    def start(self) -> None:
        self._begin = self._read()

    def joules(self) -> float:
        """Since `start`; a counter that came to its end once since then is understood."""
        spent = 0
        for begin, end, most in zip(self._begin, self._read(), self._ranges, strict=True):
            spent += end - begin if end >= begin else end + most - begin
        return spent / 1e6

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._zones]


class Counter:
    """A counter of millijoules that only grows, such as NVML's.

    Args:
        source: What is read.
        millijoules: Reads it.
    """

    fewest_seconds = 1.0  # NVML's ticks take up to 100 ms

    def __init__(self, source: str, millijoules: Callable[[], int]) -> None:
        self.source = source
        self._millijoules = millijoules
        self._begin = millijoules()

    def start(self) -> None:
        self._begin = self._millijoules()

    def joules(self) -> float:
        return (self._millijoules() - self._begin) / 1e3


def _number(path: Path) -> int:
    return int(path.read_text())
