"""Apple GPUs through Metal: queued like CUDA, without a timer we trust."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from dabench.device.base import DeviceUnavailableError
from dabench.device.energy import EnergyMeter, NoEnergyError
from dabench.device.native import NATIVE_ON_MPS
from dabench.timing.engine import DeviceTimer


class MpsDevice:
    """The GPU of an Apple machine."""

    name = "mps"
    paper_passes = 50
    queues_work = True

    def __init__(self, index: int = 0) -> None:
        if index or not torch.backends.mps.is_available():
            raise DeviceUnavailableError("torch sees no Apple GPU")

    def torch_device(self) -> torch.device:
        return torch.device("mps")

    def native_dtypes(self) -> tuple[str, ...]:
        return NATIVE_ON_MPS

    def configure(self, *, dtype: str, threads: int, autotune: bool) -> None:
        if threads:
            torch.set_num_threads(threads)

    def full_precision(self) -> AbstractContextManager[None]:
        return nullcontext()

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def timer(self) -> DeviceTimer | None:
        return None

    def reset_peak(self) -> None:
        """Metal keeps no peak to reset."""

    def peak_bytes(self) -> int | None:
        return None

    def energy_meter(self) -> EnergyMeter:
        raise NoEnergyError("mps does not tell")

    def throttle_events(self) -> int | None:
        return None

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        return {
            "device_name": f"Apple GPU ({platform.machine()})",
            # Since torch 2.5.
            "memory_bytes": getattr(torch.mps, "recommended_max_memory", lambda: None)(),
            "threads": torch.get_num_threads(),
        }
