"""TPUs and other XLA devices through torch_xla: traced lazily, run when asked to."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch

from dabench.device.base import DeviceUnavailableError
from dabench.device.plain import PlainDevice


class XlaDevice(PlainDevice):
    """An XLA device; torch_xla must be installed."""

    name = "xla"
    paper_passes = 1
    queues_work = True

    def __init__(self, index: int = 0) -> None:
        try:
            self._xla = importlib.import_module("torch_xla")
            self._model = importlib.import_module("torch_xla.core.xla_model")
        except ImportError:
            raise DeviceUnavailableError("torch_xla is not installed") from None
        self._index = index

    @property
    def client(self) -> str:
        """What runs the work: ``TPU``, ``CUDA`` or ``CPU``."""
        return str(self._model.xla_device_hw(self.torch_device()))

    def torch_device(self) -> torch.device:
        device: torch.device = self._xla.device(self._index)
        return device

    def native_dtypes(self) -> tuple[str, ...]:
        return ("fp32", "bf16") if self.client == "TPU" else ("fp32",)

    def synchronize(self) -> None:
        # Cuts the lazy graph here and hands it to the device: without the cut nothing would
        # run. That call returns at once, also where it is told to wait; the second one waits.
        self._xla.sync()
        self._model.wait_device_ops()

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        return {
            "device_name": f"XLA {self.client}",
            "client": self.client,
            "torch_xla": self._xla.__version__,
            "threads": torch.get_num_threads(),
        }
