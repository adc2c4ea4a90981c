"""What a device must be able to do to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from dabench.device.energy import EnergyMeter
from dabench.timing.engine import DeviceTimer

if TYPE_CHECKING:
    import torch


class DeviceUnavailableError(Exception):
    """This machine lacks the device; the message says why."""


class Device(Protocol):
    """A device that runs passes, perhaps later than they are asked for."""

    @property
    def name(self) -> str:
        """As the user writes it, such as ``cpu`` or ``cuda:0``."""

    @property
    def paper_passes(self) -> int:
        """Passes in one sample of the paper's protocol: 1 on CPU and XLA, 50 on CUDA and MPS."""

    @property
    def queues_work(self) -> bool:
        """Whether asking for work returns before it is done."""

    def torch_device(self) -> torch.device:
        """Where tensors and modules go."""

    def native_dtypes(self) -> tuple[str, ...]:
        """Precisions it computes in; others it emulates, or has not."""

    def configure(self, *, dtype: str, threads: int, autotune: bool) -> None:
        """Sets threads (0: torch's default), TF32 and autotuning before anything is built.

        Raises:
            NotImplementedError: The dtype is tf32 and this GPU has none.
        """

    def full_precision(self) -> AbstractContextManager[None]:
        """A context in which fp32 is computed without TF32, whatever `configure` set."""

    def synchronize(self) -> None:
        """Returns when all queued work is done."""

    def timer(self) -> DeviceTimer | None:
        """A timer on the device's time line; None where there is none (CPU, MPS, XLA)."""

    def reset_peak(self) -> None:
        """Starts a new peak of memory at the current use."""

    def peak_bytes(self) -> int | None:
        """Peak memory in bytes since `reset_peak`; None where the device cannot tell.

        On a CPU the process's resident size above that when the device was opened.
        """

    def energy_meter(self) -> EnergyMeter:
        """Counts the device's joules.

        Raises:
            NoEnergyError: It cannot tell; the message says why.
        """

    def throttle_events(self) -> int | None:
        """A counter that grows while the device slows itself down, or None."""

    def temperature(self) -> float | None:
        """Degrees Celsius now, as the device's own sensors tell; None where none do."""

    def describe(self) -> Mapping[str, str | int | float | bool | None]:
        """What a reader must know of the device and its settings."""
