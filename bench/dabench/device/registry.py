"""Device names to devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from dabench.device.base import Device, DeviceUnavailableError
from dabench.device.cpu import CpuDevice
from dabench.device.cuda import CudaDevice
from dabench.device.mps import MpsDevice
from dabench.device.xla import XlaDevice

# Best first: what ``auto`` picks.
DEVICES: Mapping[str, Callable[[int], Device]] = MappingProxyType(
    {"cuda": CudaDevice, "mps": MpsDevice, "xla": XlaDevice, "cpu": CpuDevice}
)


def open_device(name: str) -> Device:
    """Opens ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xla``.

    Raises:
        DeviceUnavailableError: Unknown here, or not on this machine.
    """
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not index.isdecimal()):
        raise DeviceUnavailableError(f"no such device: {name}")
    return DEVICES[kind](int(index or 0))


def available_devices() -> list[str]:
    """Kinds of device this machine has, best first."""
    found: list[str] = []
    last: list[str] = []
    for kind in DEVICES:
        try:
            device = open_device(kind)
        except DeviceUnavailableError:
            continue
        # XLA's CPU client is the CPU once more, and slower.
        behind = isinstance(device, XlaDevice) and device.client == "CPU"
        (last if behind else found).append(kind)
    return [*found, *last]
