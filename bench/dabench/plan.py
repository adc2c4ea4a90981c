"""Axes expanded to cases, and cases to an order of launches."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dabench.config import PHASES, Grid, Settings
from dabench.errors import UsageError, bad_value
from dabench_models import ModelSpec, UnknownModelError, resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One point of the sweep.

    Attributes:
        threads: Threads of CPU kernels; 0 leaves torch's default.
        phases: What is timed of it, each with its own samples.
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

    @property
    def case_id(self) -> str:
        """A readable key, unique within a run."""
        size = f"{self.channels}x{self.height}x{self.width}"
        threads = f"t{self.threads}" if self.threads else "tdefault"
        parts = (self.model, self.device, f"b{self.batch}", size, self.mode, self.dtype)
        return "/".join((*parts, self.memory_format, threads, self.protocol))

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Case.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> Case:
        """Reads what `to_dict` wrote."""
        return cls(**{**document, "phases": tuple(document["phases"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCase:
    """A case with how to measure it, or with the reason why it cannot be."""

    case: Case
    settings: Settings
    impossible: str | None = None


def spec_of(name: str) -> ModelSpec:
    """Looks a model up for the command line.

    Raises:
        UsageError: Not in the registry.
    """
    try:
        return resolve(name)
    except UnknownModelError as error:
        raise UsageError(f"--model: {error}") from None


def expand(grid: Grid, settings: Settings) -> list[PlannedCase]:
    """Every combination of the axes, impossible ones kept with their reason.

    Devices must be resolved already (no ``auto``).

    A mode that has none of the phases asked for keeps its row too.

    Raises:
        UsageError: Unknown model, a size the network cannot take, or phases
            that none of the modes has.
    """
    _check_phases(grid)
    planned: dict[str, PlannedCase] = {}
    axes = itertools.product(
        grid.models,
        grid.devices,
        grid.batches,
        grid.sizes or (None,),
        grid.modes,
        grid.dtypes,
        grid.memory_formats,
        grid.threads or (0,),
        grid.protocols,
    )
    for name, device, batch, size, mode, dtype, memory_format, threads, protocol in axes:
        spec = spec_of(name)
        height, width = size or (spec.height, spec.width)
        check_size(spec, height, width)
        phases = phases_of(mode, protocol, grid.phases)
        case = Case(
            model=spec.name,
            family=spec.family,
            device=device,
            batch=batch,
            channels=spec.channels,
            height=height,
            width=width,
            mode=mode,
            dtype=dtype,
            memory_format=memory_format,
            threads=threads,
            protocol=protocol,
            phases=phases or grid.phases,
        )
        impossible = _impossible(spec, case) if phases else _NO_SUCH_PHASE
        planned[case.case_id] = PlannedCase(case=case, settings=settings, impossible=impossible)
    return list(planned.values())


_NO_SUCH_PHASE = "eval mode and the paper protocol have only forward"


def phases_of(mode: str, protocol: str, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The phases a mode has, in order, limited to those wanted.

    The paper timed forward passes only, in both modes.
    """
    has = ("forward",) if mode == "eval" or protocol == "paper" else PHASES
    return tuple(phase for phase in has if not wanted or phase in wanted)


def _check_phases(grid: Grid) -> None:
    pairs = itertools.product(grid.modes, grid.protocols)
    if not any(phases_of(mode, protocol, grid.phases) for mode, protocol in pairs):
        wanted = ",".join(grid.phases)
        raise bad_value("--phase", wanted, _NO_SUCH_PHASE)


def check_size(spec: ModelSpec, height: int, width: int) -> None:
    """Checks that a network takes inputs of a size.

    Raises:
        UsageError: It does not; the message says what it needs.
    """
    multiple = spec.size_multiple
    if height % multiple or width % multiple:
        allowed = f"{spec.name} needs height and width in multiples of {multiple}"
        raise bad_value("--size", f"{height}x{width}", allowed)


def _impossible(spec: ModelSpec, case: Case) -> str | None:
    if case.mode == "train" and case.batch < spec.min_train_batch:
        return (
            f"{spec.name} cannot train on batch {case.batch}: its global-context branch "
            f"batch-normalises a 1x1 map, which needs at least {spec.min_train_batch} images"
        )
    if case.dtype == "tf32" and not case.device.startswith("cuda"):
        return "tf32 is a mode of NVIDIA's matrix units; use --device cuda"
    return None


def launch_order(cases: Sequence[PlannedCase], *, round_index: int, seed: int) -> list[PlannedCase]:
    """The order of one round of launches, one launch per case.

    Shuffled anew in each round, so that no case always follows the same other
    one, and the same again under the same seed.
    """
    shuffled = list(cases)
    random.Random(f"{seed}/{round_index}").shuffle(shuffled)
    return shuffled


def schedule(cases: Sequence[PlannedCase]) -> Iterator[tuple[int, PlannedCase]]:
    """First launches of every possible case as (round, case), in order.

    Interleaved cases alternate round by round; blocked ones follow, each with
    all its launches in a row.
    """
    possible = [planned for planned in cases if planned.impossible is None]
    interleaved = [p for p in possible if p.settings.order == "interleaved"]
    rounds = max((p.settings.first_launches for p in interleaved), default=0)
    for index in range(rounds):
        due = [p for p in interleaved if index < p.settings.first_launches]
        for planned in launch_order(due, round_index=index, seed=due[0].settings.seed):
            yield index, planned
    for planned in possible:
        if planned.settings.order == "blocked":
            for index in range(planned.settings.first_launches):
                yield index, planned
