"""TPUs and other XLA devices through torch_xla: traced lazily, run at a step mark."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch

from dabench.device.base import DeviceUnavailableError
from dabench.device.energy import EnergyMeter, NoEnergyError
from dabench.timing.engine import DeviceTimer


class XlaDevice:
    """An XLA device; torch_xla must be installed."""

    name = "xla"
    paper_passes = 1
    queues_work = True

    def __init__(self, index: int = 0) -> None:
        try:
            self._xla = importlib.import_module("torch_xla")
        except ImportError:
            raise DeviceUnavailableError("torch_xla is not installed") from None
        self._index = index

    def torch_device(self) -> torch.device:
        device: torch.device = self._xla.device(self._index)
        return device

    def configure(self, *, dtype: str, threads: int, autotune: bool) -> None:
        if threads:
            torch.set_num_threads(threads)

    def synchronize(self) -> None:
        # Cuts the lazy graph here, then waits: without the cut nothing would run.
        self._xla.sync(wait=True)

    def timer(self) -> DeviceTimer | None:
        return None

    def reset_peak(self) -> None:
        """XLA's allocator keeps no peak to reset."""

    def peak_bytes(self) -> int | None:
        return None

    def energy_meter(self) -> EnergyMeter:
        raise NoEnergyError("xla does not tell")

    def throttle_events(self) -> int | None:
        return None

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        return {
            "device_name": f"XLA {self.torch_device()}",
            "torch_xla": self._xla.__version__,
            "threads": torch.get_num_threads(),
        }
