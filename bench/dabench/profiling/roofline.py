"""The roofline: how fast work could be done under measured ceilings, and what holds it back.

Williams, Waterman and Patterson, "Roofline" (CACM 2009), with a third limit for
what a single operator costs however little it does.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

SLOW_FRACTION = 0.30
LAUNCH_FRACTION = 0.50
BEYOND = 1.05

COMPUTE, MEMORY, LAUNCH, SLOW = "compute", "memory", "launch", "slow kernel"
BOUNDS = (COMPUTE, MEMORY, LAUNCH, SLOW)

BOUND_RULE = (
    f"`{LAUNCH}`: the same kind of layer with next to nothing to do, in the same launch, takes "
    f"over {LAUNCH_FRACTION:.0%} of the time; "
    f"`{SLOW}`: below {SLOW_FRACTION:.0%} of both roofs; otherwise the roof that is nearer, "
    f"`{COMPUTE}` or `{MEMORY}`; `!` marks what is over {BEYOND - 1:.0%} faster than its roof, "
    "which is then too low and says little"
)


class Setting(NamedTuple):
    """What ceilings depend on besides the machine."""

    device: str
    dtype: str
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What one device reached at best, in one dtype, with one number of threads.

    Attributes:
        kernels: Name -> FLOP/s of the kernels tried; the best is the compute roof.
        streams: (bytes read and written, bytes/s, how) of the fastest way to
            move so much, smallest first.
        launch_s: Seconds an operator takes that has next to nothing to do.
        floors: Kind of pass (``eval forward``, ``train forward``, ``train
            backward``) -> form of a convolution or class of another layer ->
            seconds it takes by the profile's own clock with next to nothing to do.
            A profile measures its own beside its layers.
        measured: Date and time, ISO 8601.
        versions: Of torch and what else decides.
        left_out: What there was no time to measure.
    """

    device: str
    device_name: str
    dtype: str
    threads: int
    kernels: Mapping[str, float]
    streams: tuple[tuple[int, float, str], ...]
    launch_s: float
    measured: str
    versions: Mapping[str, str | None]
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def setting(self) -> Setting:
        """Of what these are the ceilings."""
        return Setting(self.device, self.dtype, self.threads)

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
        """Bandwidth of the largest stream, beyond most caches."""
        return self.streams[-1][1]

    def bytes_per_s(self, moved: int) -> float:
        """Bandwidth for work that moves so many bytes.

        Small work runs from the caches, so its roof is higher. What moves less
        can be as fast as what moves more; between two sizes it is interpolated,
        both on logarithmic scales.
        """
        sizes = [size for size, *_ in self.streams]
        rates = [max(rate for _, rate, _ in self.streams[i:]) for i in range(len(sizes))]
        above = bisect_left(sizes, moved)
        if above in (0, len(sizes)):
            return rates[min(above, len(sizes) - 1)]
        below = above - 1
        share = math.log(moved / sizes[below]) / math.log(sizes[above] / sizes[below])
        return rates[below] * math.pow(rates[above] / rates[below], share)

    def floor_s(self, kind_of_pass: str, kind: str, form: str, operators: int) -> float:
        """`floor_s` of the layers of one of the kinds of pass in ``floors``."""
        floors = self.floors.get(kind_of_pass, {})
        return floor_s(floors, kind, form, operators, otherwise=self.launch_s)

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Ceilings.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Ceilings:
        """Reads what `to_dict` wrote."""
        # Before schema 2 copies were the only streams, and there were no floors.
        streams = document.get("streams") or [(*c, "copy") for c in document["copies"]]
        later = ("streams", "floors", "left_out")
        names = [each.name for each in fields(cls) if each.name not in later]
        return cls(
            **{name: document[name] for name in names},
            streams=tuple((int(size), float(rate), str(how)) for size, rate, how in streams),
            floors=document.get("floors", {}),
            left_out=tuple(document.get("left_out", ())),
        )


def floor_s(
    floors: Mapping[str, float], kind: str, form: str, operators: int, *, otherwise: float = 0.0
) -> float:
    """Seconds a layer takes that has next to nothing to do.

    Args:
        floors: Form of a convolution or class of another layer -> such seconds.
        kind: Class of the layer; one that was not measured is taken to cost
            as much per operator as the cheapest that was.
        form: Of a convolution, of whatever class; empty for other layers.
        operators: That it calls.
        otherwise: Per operator where nothing was measured.
    """
    floor = floors.get(form or kind)
    if floor is None:
        return operators * min(floors.values(), default=otherwise)
    return floor


@dataclass(frozen=True, slots=True)
class Roof:
    """The least seconds some work can take.

    Attributes:
        compute_s: Its operations at the compute roof.
        memory_s: Its bytes at the bandwidth.
        launch_s: What a layer of its kind takes with next to nothing to do.
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


def format_roof(fraction: float | None) -> str:
    """A share of the roof for a person; what is beyond it is marked."""
    if fraction is None or fraction != fraction:
        return "-"
    return f"{fraction:.0%}" + (" !" if fraction > BEYOND else "")


def roof_of(ceilings: Ceilings, *, flops: int, moved_bytes: int, launch_s: float) -> Roof:
    """The roof of some work.

    Args:
        ceilings: Of the device, dtype and threads it runs with.
        flops: Executed floating-point operations.
        moved_bytes: Bytes that must be read and written.
        launch_s: Of `floor_s`.
    """
    return Roof(
        compute_s=flops / ceilings.flops_per_s,
        memory_s=moved_bytes / ceilings.bytes_per_s(moved_bytes),
        launch_s=launch_s,
    )
