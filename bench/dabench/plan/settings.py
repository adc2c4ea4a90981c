"""What the user asked for: frozen, checked on creation, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from dabench.base.errors import bad_value, check_choice
from dabench.plan.axes import AXES

Order = Literal["interleaved", "blocked", "abba"]

ORDERS: tuple[str, ...] = get_args(Order)

ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1}
)
"""Bytes of one element in memory; tf32 is fp32 outside of the matrix units."""

MIN_LAUNCHES = 3
MOST_LAUNCHES = 10_000
"""Each starts a process: what asks for more is a slip, and would be planned for ever."""
DEFAULT_TARGET_CI = 0.05
DEFAULT_MAX_TIME_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How long and how carefully each case is measured.

    Attributes:
        warmup: Fewest warm-up passes per phase (at least one); more follow
            until steady.
        repeat: Samples per phase and launch; None samples until ``target_ci``.
        target_ci: Stop once the 95% interval of the median is within this
            fraction of it. None with ``repeat``.
        max_time_s: Sampling time per case, all phases and launches together;
            None is no limit.
        launches: Fresh processes per case; None is three, and more as
            `dabench.run.runner.LAUNCH_RULE` says.
        timeout_s: Seconds after which a launch is killed.
        seed: Of weights, inputs and the order of launches.
        order: ``interleaved`` alternates the cases, shuffled anew in each round; ``abba``
            runs them forwards and backwards in turn; ``blocked`` finishes each.

    Raises:
        UsageError: A value that is not allowed.
    """

    warmup: int = 2
    repeat: int | None = None
    target_ci: float | None = DEFAULT_TARGET_CI
    max_time_s: float | None = DEFAULT_MAX_TIME_S
    launches: int | None = None
    timeout_s: float = 1800.0
    seed: int = 0
    order: Order = "interleaved"

    def __post_init__(self) -> None:
        positive = "it takes a whole number of at least 1"
        _check("warmup", self.warmup, self.warmup >= 0, "it takes a whole number of at least 0")
        if self.repeat is not None:
            _check("repeat", self.repeat, self.repeat >= 1, positive)
        if self.launches is not None:
            few = 1 <= self.launches <= MOST_LAUNCHES
            _check("launches", self.launches, few, f"{positive} and at most {MOST_LAUNCHES}")
        if self.target_ci is not None:
            ok = 0 < self.target_ci < 1
            _check("target-ci", self.target_ci, ok, "it takes a fraction between 0% and 100%")
        if self.max_time_s is not None:
            _check("max-time", self.max_time_s, self.max_time_s > 0, "it takes seconds above 0")
        seeds = f"it takes a whole number from 0 to {2**63 - 1}"
        _check("seed", self.seed, 0 <= self.seed < 2**63, seeds)
        _check("timeout", self.timeout_s, self.timeout_s > 0, "it takes seconds above 0")
        check_choice("--order", self.order, ORDERS)

    @classmethod
    def of(
        cls,
        *,
        repeat: int | None = None,
        target_ci: float | None = None,
        max_time_s: float | None = None,
        launches: int | None = None,
        warmup: int = 2,
        timeout_s: float = 1800.0,
        seed: int = 0,
        order: Order = "interleaved",
    ) -> Settings:
        """Fills in the stop rule the user left open.

        A fixed ``repeat`` alone means exactly that many samples; otherwise the
        default target and time limit apply.
        """
        fixed = repeat is not None
        return cls(
            repeat=repeat,
            target_ci=DEFAULT_TARGET_CI if target_ci is None and not fixed else target_ci,
            max_time_s=DEFAULT_MAX_TIME_S if max_time_s is None and not fixed else max_time_s,
            launches=launches,
            warmup=warmup,
            timeout_s=timeout_s,
            seed=seed,
            order=order,
        )

    @property
    def first_launches(self) -> int:
        """Launches every case gets before any gets more."""
        return MIN_LAUNCHES if self.launches is None else self.launches


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The axes of a sweep; every combination is a case.

    Attributes:
        models: Names of the registry, or references (`dabench.network.build`).
        devices: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xla``.
        batches: Images per pass.
        sizes: (height, width) in pixels, or (channels, height, width); empty
            takes each model's default.
        modes: ``train``, ``eval``.
        dtypes: ``fp32``, ``tf32``, ``bf16``, ``fp16``, ``int8``; with a ``?`` behind it only
            where the device computes in it natively.
        memory_formats: ``nchw``, ``nhwc``.
        threads: Threads of CPU kernels; empty leaves torch's default.
        phases: Which to time; empty takes all of the mode.
        protocols: ``steady``, ``paper``, ``stream``, ``throughput``.
        rates: Frames per second of streams.
        concurrencies: Processes that share the device at once.
        compiles: Modes of torch.compile; ``freeze`` also folds the weights in.
        fuses: Whether batch norm is folded into convolutions.
        runtimes: What runs the network.
        inputs: ``device``: the forward alone; ``host``: the copy to the device
            before it and the argmax after it belong to the pass.
        calibrations: Images that ranges of int8 are found on; ``dynamic`` finds them in each
            pass; empty takes `dabench.plan.axes.CALIBRATION`, or ``RANDOM``.
        keep_floats: Layers that int8 leaves in fp32: ``none``, ``heads`` or a module's name.
        allocators: ``keep``: memory that the CPU's kernels free stays with the process.
        model_args: Keyword arguments for the factories of all references; no
            axis.
    """

    models: tuple[str, ...]
    devices: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, ...], ...] = ()
    modes: tuple[str, ...] = ("eval",)
    dtypes: tuple[str, ...] = ("fp32",)
    memory_formats: tuple[str, ...] = ("nchw",)
    threads: tuple[int, ...] = ()
    phases: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("steady",)
    compiles: tuple[str, ...] = ("off",)
    fuses: tuple[str, ...] = ("off",)
    runtimes: tuple[str, ...] = ("eager",)
    inputs: tuple[str, ...] = ("device",)
    calibrations: tuple[str, ...] = ()
    keep_floats: tuple[str, ...] = ("none",)
    allocators: tuple[str, ...] = ("default",)
    rates: tuple[float, ...] = ()
    concurrencies: tuple[int, ...] = (1,)
    model_args: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        for axis in AXES.values():
            values = getattr(self, axis.field)
            if (axis.usual or axis.required) and not values:
                raise bad_value(axis.option, "", "it takes at least one value")
            for value in values:
                axis.check(value)


def _check(name: str, value: object, ok: bool, allowed: str) -> None:
    if not ok:
        raise bad_value(f"--{name}", value, allowed)
