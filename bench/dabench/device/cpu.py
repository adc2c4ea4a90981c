"""The CPU: synchronous, so the host's clock is the device's."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from dabench.device import memory
from dabench.device.base import DeviceUnavailableError
from dabench.device.energy import EnergyMeter, Rapl
from dabench.device.native import int8_dot_products, native_on_cpu
from dabench.device.plain import PlainDevice
from dabench.device.processor import cpu_flags, cpu_model

_THROTTLE_COUNTERS = "devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
# Drivers whose sensors are the processor's: Intel's, AMD's, those of most Arm boards.
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")


class CpuDevice(PlainDevice):
    """All processors of the host."""

    name = "cpu"
    paper_passes = 1
    queues_work = False

    def __init__(self, index: int = 0) -> None:
        if index:
            raise DeviceUnavailableError("there is one cpu device; use --threads to limit it")
        self._baseline = memory.resident_bytes()

    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def native_dtypes(self) -> tuple[str, ...]:
        flags = cpu_flags()
        # macOS names no flags; every Apple chip that it runs on has dot products (since A13).
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        return (*native_on_cpu(flags), *["int8"] * (apple or int8_dot_products(flags)))

    def synchronize(self) -> None:
        """Nothing is ever queued."""

    def reset_peak(self) -> None:
        memory.reset_peak()

    def peak_bytes(self) -> int | None:
        return max(memory.peak_resident_bytes() - self._baseline, 0)

    def energy_meter(self) -> EnergyMeter:
        return Rapl()

    def throttle_events(self) -> int | None:
        counters = list(Path("/sys").glob(_THROTTLE_COUNTERS))
        return sum(int(path.read_text()) for path in counters) if counters else None

    def temperature(self) -> float | None:
        if not hasattr(psutil, "sensors_temperatures"):  # psutil knows none on macOS and Windows
            return None
        sensors = psutil.sensors_temperatures()
        told = [each.current for name in _PROCESSOR_SENSORS for each in sensors.get(name, ())]
        return max(told, default=None)

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        return {
            "device_name": cpu_model() or platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
