"""Apple GPUs through Metal: queued like CUDA, without a timer we trust."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import torch

from dabench.device.base import DeviceUnavailableError
from dabench.device.native import NATIVE_ON_MPS
from dabench.device.plain import PlainDevice


class MpsDevice(PlainDevice):
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

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        return {
            "device_name": f"Apple GPU ({platform.machine()})",
            # Since torch 2.5.
            "memory_bytes": getattr(torch.mps, "recommended_max_memory", lambda: None)(),
            "threads": torch.get_num_threads(),
        }
