"""Axes expanded to cases, and cases to an order of launches."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dabench.base.errors import UsageError, bad_value
from dabench.base.typed import check_types
from dabench.plan.axes import (
    ALL,
    AXES,
    BY_DEFAULT,
    INT8,
    NO_CALIBRATION,
    OPTIONAL,
    PHASES,
    usual_calibration,
)
from dabench.plan.networks import spec_of
from dabench.plan.references import is_reference, with_arguments
from dabench.plan.settings import Grid, Settings
from dabench.plan.variants import Installed, is_installed, why_impossible
from dabench_models import ModelSpec

OWN = "own"
"""Mode, precision and layout of what dabench did not build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One point of the sweep.

    Attributes:
        threads: Threads of CPU kernels; 0 leaves torch's default.
        phases: What is timed of it, each with its own samples.
        compile: Mode of torch.compile, or ``off``.
        fuse: ``on`` folds batch norm into convolutions.
        runtime: What runs the network.
        input: ``host`` adds the copy to the device and the argmax.
        calibration: Images that ranges of int8 are found on, or ``dynamic``; ``none`` of what is
            not quantised.
        keep_float: Layers that int8 leaves in fp32.
        allocator: ``keep`` leaves freed memory with the process.
        rate: Frames per second of a stream; 0 of what is none.
        concurrency: Processes that share the device at once.
    """

    model: str
    family: str
    device: str
    batch: int
    channels: int
    height: int
    width: int
    mode: str
    dtype: str
    memory_format: str
    threads: int
    protocol: str
    phases: tuple[str, ...]
    compile: str = "off"
    fuse: str = "off"
    runtime: str = "eager"
    input: str = "device"
    calibration: str = NO_CALIBRATION
    keep_float: str = ALL
    allocator: str = BY_DEFAULT
    rate: float = 0.0
    concurrency: int = 1

    @classmethod
    def apart(cls, name: str, *, device: str, batch: int = 1) -> Case:
        """A case of something that dabench did not build, such as a callable.

        Its one phase is ``forward``; input, mode, precision and layout are its own, which nobody
        asks it.
        """
        return cls(
            model=name, family="other", device=device, batch=batch, channels=0, height=0, width=0,
            mode=OWN, dtype=OWN, memory_format=OWN, threads=0, protocol="steady",
            phases=("forward",),
        )  # fmt: skip

    @property
    def case_id(self) -> str:
        """A readable key, unique within a run."""
        parts = (axis.part(self) for axis in AXES.values())
        return "/".join(part for part in parts if part is not None)

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Case.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> Case:
        """Reads what `to_dict` wrote."""
        check_types(cls, document)
        return cls(**{**document, "phases": tuple(document["phases"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCase:
    """A case with how to measure it, or with the reason why it cannot be."""

    case: Case
    settings: Settings
    impossible: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `PlannedCase.of` reads it back."""
        return {
            "case": self.case.to_dict(),
            "settings": asdict(self.settings),
            "impossible": self.impossible,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> PlannedCase:
        """Reads what `to_dict` wrote."""
        check_types(Settings, document["settings"])
        return cls(
            case=Case.of(document["case"]),
            settings=Settings(**document["settings"]),
            impossible=document["impossible"],
        )


def expand(
    grid: Grid, settings: Settings, installed: Installed = is_installed
) -> list[PlannedCase]:
    """Every combination of the axes, impossible ones kept with their reason.

    Devices must be resolved already (no ``auto``).

    A mode that has none of the phases asked for keeps its row too.

    Args:
        grid: The axes.
        settings: How each case is measured.
        installed: Of the machine that they are to run on.

    Raises:
        UsageError: Unknown model, a size the network cannot take, arguments for
            a network that takes none, or phases that none of the modes has.
    """
    _check_phases(grid)
    _check_rates(grid)
    _check_quantised(grid)
    if grid.model_args and not any(map(is_reference, grid.models)):
        raise bad_value(
            "--model-arg", grid.model_args[0][0], "only networks from outside take arguments"
        )
    planned: dict[str, PlannedCase] = {}
    # The ways of running one network stand together in the plan.
    axes = sorted((a for a in AXES.values() if a.key != "phase"), key=lambda axis: axis.variant)
    specs = {name: spec_of(with_arguments(name, grid.model_args)) for name in grid.models}
    for values in itertools.product(*(getattr(grid, axis.field) or (None,) for axis in axes)):
        chosen = {axis.key: value for axis, value in zip(axes, values, strict=True)}
        spec = specs[chosen.pop("model")]
        channels, height, width = input_shape(spec, chosen.pop("size"))
        phases = phases_of(chosen["mode"], chosen["protocol"], grid.phases)
        quantised = chosen["dtype"] == INT8
        calibration = chosen.pop("calibration") or usual_calibration(spec.name)
        keep_float = chosen.pop("keep_float")
        case = Case(
            model=spec.name,
            family=spec.family,
            channels=channels,
            height=height,
            width=width,
            threads=chosen.pop("threads") or 0,
            phases=phases or grid.phases,
            # Of what is no stream it says nothing.
            rate=(chosen.pop("rate") or 0.0) * (chosen["protocol"] == STREAM),
            calibration=calibration if quantised else NO_CALIBRATION,
            keep_float=keep_float if quantised else ALL,
            **chosen,
        )
        impossible = _impossible(spec, case, installed) if phases else _NO_SUCH_PHASE
        planned[case.case_id] = PlannedCase(case=case, settings=settings, impossible=impossible)
    return list(planned.values())


_NO_SUCH_PHASE = (
    "eval mode and the paper protocol have only forward, streams and throughput of training only "
    "total"
)
STREAM, THROUGHPUT = "stream", "throughput"
LOADS = (STREAM, THROUGHPUT)
"""Protocols of what is more than one pass after the other."""


def phases_of(mode: str, protocol: str, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The phases a mode has, in order, limited to those wanted.

    The paper timed forward passes only, in both modes; what streams in or is queued is whole.
    """
    if mode == "eval" or protocol == "paper":
        has: tuple[str, ...] = ("forward",)
    else:
        has = ("total",) if protocol in LOADS else PHASES
    return tuple(phase for phase in has if not wanted or phase in wanted)


def _check_phases(grid: Grid) -> None:
    pairs = itertools.product(grid.modes, grid.protocols)
    if not any(phases_of(mode, protocol, grid.phases) for mode, protocol in pairs):
        wanted = ",".join(grid.phases)
        raise bad_value("--phase", wanted, _NO_SUCH_PHASE)


def _check_rates(grid: Grid) -> None:
    """A stream needs a rate, and nothing else has one."""
    if STREAM in grid.protocols and not grid.rates:
        raise UsageError("--protocol: a stream needs a --rate, in frames per second")
    if grid.rates and STREAM not in grid.protocols:
        raise bad_value("--rate", f"{grid.rates[0]:g}", "only --protocol stream has one")


def _check_quantised(grid: Grid) -> None:
    """What is not quantised has neither calibration nor layers left out of it."""
    if any(dtype.removesuffix(OPTIONAL) == INT8 for dtype in grid.dtypes):
        return
    kept = tuple(value for value in grid.keep_floats if value != ALL)
    for axis, given in (("calibration", grid.calibrations), ("keep_float", kept)):
        if given:
            raise bad_value(AXES[axis].option, given[0], f"only --dtype {INT8} has one")


def input_shape(spec: ModelSpec, size: Sequence[int] | None) -> tuple[int, int, int]:
    """Channels, height and width of an input; a network's own where nothing is said.

    Args:
        spec: Of the network.
        size: (height, width), (channels, height, width) or None.

    Raises:
        UsageError: The network does not take it; the message says what it needs.
    """
    *given, height, width = size or (spec.height, spec.width)
    channels = given[0] if given else spec.channels
    if channels != spec.channels and not is_reference(spec.name):
        shape = f"{channels}x{height}x{width}"
        raise bad_value("--input", shape, f"{spec.name} takes {spec.channels} channels")
    check_size(spec, height, width)
    return channels, height, width


def check_size(spec: ModelSpec, height: int, width: int) -> None:
    """Checks that a network takes inputs of a size.

    Raises:
        UsageError: It does not; the message says what it needs.
    """
    multiple = spec.size_multiple
    if height % multiple or width % multiple:
        allowed = f"{spec.name} needs height and width in multiples of {multiple}"
        raise bad_value("--size", f"{height}x{width}", allowed)


def _impossible(spec: ModelSpec, case: Case, installed: Installed) -> str | None:
    if case.mode == "train" and case.batch < spec.min_train_batch:
        return (
            f"{spec.name} cannot train on batch {case.batch}: its global-context branch "
            f"batch-normalises a 1x1 map, which needs at least {spec.min_train_batch} images"
        )
    if case.dtype == "tf32" and not case.device.startswith("cuda"):
        return "tf32 is a mode of NVIDIA's matrix units; use --device cuda"
    if case.concurrency > 1 and case.protocol in ("paper", STREAM):
        return f"--concurrency: under the protocol {case.protocol} one process runs alone"
    return why_impossible(case, installed)


def launch_order(cases: Sequence[PlannedCase], *, round_index: int, seed: int) -> list[PlannedCase]:
    """The order of one round of launches, one launch per case.

    Shuffled anew in each round, so that no case always follows the same other
    one, and the same again under the same seed. Cases in the order ``abba`` run
    forwards and backwards in turn: what a machine does steadily, such as warm up,
    favours none.
    """
    if cases and cases[0].settings.order == "abba":
        return list(cases)[:: -1 if round_index % 2 else 1]
    shuffled = list(cases)
    random.Random(f"{seed}/{round_index}").shuffle(shuffled)
    return shuffled


def schedule(cases: Sequence[PlannedCase]) -> Iterator[tuple[int, PlannedCase]]:
    """First launches of every possible case as (round, case), in order.

    Interleaved cases alternate round by round; blocked ones follow, each with
    all its launches in a row.
    """
    possible = [planned for planned in cases if planned.impossible is None]
    interleaved = [p for p in possible if p.settings.order != "blocked"]
    rounds = max((p.settings.first_launches for p in interleaved), default=0)
    for index in range(rounds):
        due = [p for p in interleaved if index < p.settings.first_launches]
        for planned in launch_order(due, round_index=index, seed=due[0].settings.seed):
            yield index, planned
    for planned in possible:
        if planned.settings.order == "blocked":
            for index in range(planned.settings.first_launches):
                yield index, planned


def remaining(
    cases: Sequence[PlannedCase], done: Mapping[str, int]
) -> list[tuple[int, PlannedCase]]:
    """First launches still to be made, as `schedule` orders them.

    Args:
        cases: The plan.
        done: Case id -> launches that an interrupted run has already.
    """
    left = Counter(done)
    due = []
    for index, planned in schedule(cases):
        if left[planned.case.case_id] > 0:
            left[planned.case.case_id] -= 1
        else:
            due.append((index, planned))
    return due
