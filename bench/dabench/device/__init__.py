"""Devices behind one Protocol: cpu, cuda, mps, xla."""

from dabench.device.base import Device, DeviceUnavailableError
from dabench.device.registry import available_devices, open_device

__all__ = ["Device", "DeviceUnavailableError", "available_devices", "open_device"]
