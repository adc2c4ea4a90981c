"""The roofline: how fast work could be done under measured ceilings, and what holds it back.

Williams, Waterman and Patterson, "Roofline" (CACM 2009), with a third limit for
what a single operator costs however little it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

SLOW_FRACTION = 0.30
LAUNCH_FRACTION = 0.50

COMPUTE, MEMORY, LAUNCH, SLOW = "compute", "memory", "launch", "slow kernel"
BOUNDS = (COMPUTE, MEMORY, LAUNCH, SLOW)

BOUND_RULE = (
    f"`{LAUNCH}`: calling the operators alone takes over {LAUNCH_FRACTION:.0%} of the time; "
    f"`{SLOW}`: below {SLOW_FRACTION:.0%} of both roofs; otherwise the roof that is nearer, "
    f"`{COMPUTE}` or `{MEMORY}`"
)

ITEM_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What one device reached at best, in one dtype, with one number of threads.

    Attributes:
        kernels: Name -> FLOP/s of the kernels tried; the best is the compute roof.
        copies: (bytes read and written, bytes/s) of copies, smallest first.
        launch_s: Seconds an operator takes that has next to nothing to do.
        measured: Date and time, ISO 8601.
        versions: Of torch and what else decides.
    """

    device: str
    device_name: str
    dtype: str
    threads: int
    kernels: Mapping[str, float]
    copies: tuple[tuple[int, float], ...]
    launch_s: float
    measured: str
    versions: Mapping[str, str | None]

    @property
    def flops_per_s(self) -> float:
        """The compute roof."""
        return max(self.kernels.values())

    @property
    def best_kernel(self) -> str:
        """Which kernel reached it."""
        return max(self.kernels, key=lambda name: self.kernels[name])

    @property
    def memory_bytes_per_s(self) -> float:
        """Bandwidth of the largest copy, beyond the caches."""
        return self.copies[-1][1]

    def bytes_per_s(self, moved: int) -> float:
        """Bandwidth for work that moves so many bytes.

        Small work runs from the caches, so its roof is higher: the best of the
        copies at least as large.
        """
        fitting = [rate for size, rate in self.copies if size >= moved]
        return max(fitting, default=self.memory_bytes_per_s)

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Ceilings.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Ceilings:
        """Reads what `to_dict` wrote."""
        known = {field.name: document[field.name] for field in fields(cls)}
        copies = tuple((int(size), float(rate)) for size, rate in document["copies"])
        return cls(**{**known, "copies": copies})


@dataclass(frozen=True, slots=True)
class Roof:
    """The least seconds some work can take.

    Attributes:
        compute_s: Its operations at the compute roof.
        memory_s: Its bytes at the bandwidth.
        launch_s: Its operators at the cost of calling them.
    """

    compute_s: float
    memory_s: float
    launch_s: float

    @property
    def seconds(self) -> float:
        """The larger of operations over rate and bytes over bandwidth."""
        return max(self.compute_s, self.memory_s)

    def fraction(self, seconds: float) -> float:
        """The share of the roof that work done in so many seconds reached."""
        return self.seconds / seconds

    def bound(self, seconds: float) -> str:
        """What held work back that took so many seconds (`BOUND_RULE`)."""
        if self.launch_s > LAUNCH_FRACTION * seconds:
            return LAUNCH
        if self.fraction(seconds) < SLOW_FRACTION:
            return SLOW
        return COMPUTE if self.compute_s >= self.memory_s else MEMORY


def roof_of(ceilings: Ceilings, *, flops: int, moved_bytes: int, operators: int) -> Roof:
    """The roof of some work.

    Args:
        ceilings: Of the device, dtype and threads it runs with.
        flops: Executed floating-point operations.
        moved_bytes: Bytes that must be read and written.
        operators: Operators called.
    """
    return Roof(
        compute_s=flops / ceilings.flops_per_s,
        memory_s=moved_bytes / ceilings.bytes_per_s(moved_bytes),
        launch_s=operators * ceilings.launch_s,
    )
