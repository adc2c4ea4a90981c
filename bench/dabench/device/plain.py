"""Defaults for devices without settings, timer, memory peak or energy counter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from dabench.device.energy import EnergyMeter, NoEnergyError
from dabench.timing.engine import DeviceTimer


class PlainDevice:
    """Sets threads and measures nothing; devices override what they can do (`Device`)."""

    name: str

    def configure(self, *, dtype: str, threads: int, autotune: bool) -> None:
        if threads:
            torch.set_num_threads(threads)

    def full_precision(self) -> AbstractContextManager[None]:
        return nullcontext()

    def timer(self) -> DeviceTimer | None:
        return None

    def reset_peak(self) -> None:
        """Keeps no peak."""

    def peak_bytes(self) -> int | None:
        return None

    def energy_meter(self) -> EnergyMeter:
        raise NoEnergyError(f"{self.name.partition(':')[0]} does not tell")

    def throttle_events(self) -> int | None:
        return None

    def temperature(self) -> float | None:
        return None
