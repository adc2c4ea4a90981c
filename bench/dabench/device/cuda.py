"""NVIDIA GPUs: work is queued, so time is taken between synchronisations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from dabench.device.base import DeviceUnavailableError
from dabench.device.energy import Counter, EnergyMeter, NoEnergyError
from dabench.device.native import native_on_cuda
from dabench.timing.engine import DeviceTimer


class CudaTimer:
    """A pair of CUDA events on the current stream."""

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._stop = torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        self._start.record()

    def stop(self) -> None:
        self._stop.record()

    def elapsed_s(self) -> float:
        return float(self._start.elapsed_time(self._stop)) / 1e3


class CudaDevice:
    """One GPU, by its index."""

    paper_passes = 50
    queues_work = True

    def __init__(self, index: int = 0) -> None:
        if not torch.cuda.is_available():
            raise DeviceUnavailableError("torch sees no CUDA GPU")
        if index >= torch.cuda.device_count():
            raise DeviceUnavailableError(f"there are {torch.cuda.device_count()} CUDA GPUs")
        self.name = f"cuda:{index}"
        self._index = index

    def torch_device(self) -> torch.device:
        return torch.device("cuda", self._index)

    def native_dtypes(self) -> tuple[str, ...]:
        return native_on_cuda(torch.cuda.get_device_capability(self._index))

    def configure(self, *, dtype: str, threads: int, autotune: bool) -> None:
        if dtype == "tf32" and torch.cuda.get_device_capability(self._index) < (8, 0):
            raise NotImplementedError("tf32 needs a GPU of compute capability 8.0 or newer")
        torch.cuda.set_device(self._index)
        torch.backends.cudnn.benchmark = autotune
        torch.backends.cudnn.allow_tf32 = dtype == "tf32"
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
        if threads:
            torch.set_num_threads(threads)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        convolutions = torch.backends.cudnn.allow_tf32
        products = torch.get_float32_matmul_precision()
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = convolutions
            torch.set_float32_matmul_precision(products)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._index)

    def timer(self) -> DeviceTimer | None:
        return CudaTimer()

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._index)

    def peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_allocated(self._index))

    def energy_meter(self) -> EnergyMeter:
        try:
            import pynvml
        except ImportError:
            raise NoEnergyError("NVML is missing; pip install 'dabench[cuda]'") from None
        try:
            handle = self._nvml_handle()
            return Counter("NVML", lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        except pynvml.NVMLError as error:
            raise NoEnergyError(f"NVML cannot tell: {error}") from None

    def _nvml_handle(self) -> Any:
        """This GPU in NVML, which counts those that CUDA does not see too."""
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(self._index).uuid}"
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def throttle_events(self) -> int | None:
        """Microseconds of slowdown for power or heat, from NVML where it is installed."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            handle = self._nvml_handle()
            policies = (pynvml.NVML_PERF_POLICY_POWER, pynvml.NVML_PERF_POLICY_THERMAL)
            times = [pynvml.nvmlDeviceGetViolationStatus(handle, p) for p in policies]
        except pynvml.NVMLError:
            return None
        return sum(int(t.violationTime) for t in times) // 1000

    def temperature(self) -> float | None:
        try:
            import pynvml
        except ImportError:
            return None
        try:
            handle = self._nvml_handle()
            return float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        except pynvml.NVMLError:
            return None

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        properties = torch.cuda.get_device_properties(self._index)
        return {
            "device_name": properties.name,
            "memory_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cudnn.allow_tf32,
            "threads": torch.get_num_threads(),
            **self._state(),
        }

    def _state(self) -> dict[str, int | float | str | None]:
        """Clocks, power limit and other programs on the GPU now; None for what it does not tell."""
        try:
            import pynvml

            handle = self._nvml_handle()
        except Exception:  # noqa: BLE001 - no library, no driver or no such GPU: nothing is known
            return {}

        def ask(function: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return function(handle, *arguments)
            except (pynvml.NVMLError, AttributeError):
                return None

        limit = ask(pynvml.nvmlDeviceGetEnforcedPowerLimit)
        processes = ask(pynvml.nvmlDeviceGetComputeRunningProcesses)
        sm, memory = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
        return {
            "sm_clock_mhz": ask(pynvml.nvmlDeviceGetClockInfo, sm),
            "memory_clock_mhz": ask(pynvml.nvmlDeviceGetClockInfo, memory),
            "max_sm_clock_mhz": ask(pynvml.nvmlDeviceGetMaxClockInfo, sm),
            "power_limit_w": None if limit is None else limit / 1e3,
            "performance_state": ask(pynvml.nvmlDeviceGetPerformanceState),
            # In a container the list may hold none of the others.
            "other_processes": None
            if processes is None
            else sum(process.pid != os.getpid() for process in processes),
        }
