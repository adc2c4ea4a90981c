"""What a profile leaves behind: raw passes per layer, and the summary made from them.

Beside ``run.json`` (`dabench.records.folder`), with its plan and ceilings::

    launches.csv   a row per worker process, as for timings
    counts.json    operation counts per case
    passes.csv     a row per pass and layer of every launch, raw; of each kind of layer its floor
    layers.csv     a row per case, phase and layer
    models.csv     a row per case and phase, failed ones included
    traces/        where asked for: trace.json and memory.csv per case
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any

from dabench.plan.axes import BY_DEFAULT
from dabench.plan.cases import Case
from dabench.plan.settings import ITEM_BYTES
from dabench.profiling.roofline import BOUNDS, Ceilings, floor_s, roof_of
from dabench.records.counts import COUNTS
from dabench.records.folder import RunFolder, bad_row, read_json, read_table
from dabench.records.measurements import LaunchRecord
from dabench.records.timings import LAUNCH_COLUMNS, LAUNCHES, launch_of, launch_row, no_samples
from dabench.timing.statistics import Interval, launch_interval
from dabench_models import ModelSpec

KIND = "profile"
PASSES, LAYERS, MODELS = "passes.csv", "layers.csv", "models.csv"
PASS_COLUMNS = ("launch", "case_id", "phase", "kind", "layer", "index", "seconds")
REMAINDER = "(remainder)"
_PASS_KINDS = ("floor", "bare", "hooked", "layer")

CORRECTED_ABOVE = 0.05
PROFILE_RULE = (
    "layers are timed by hooks in passes that take turns with passes without them; a layer's time "
    "is the median over launches of its median over passes, its range that of the launches; where "
    f"the hooks made the whole pass over {CORRECTED_ABOVE:.0%} longer, layers are scaled back by "
    "that factor; the remainder is the whole pass without hooks less all layers"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseLayers:
    """One phase of one launch (`dabench.profiling.layers.LayerSamples`), in seconds.

    Attributes:
        floors: What layers take with next to nothing to do (`dabench.profiling.roofline.floor_s`),
            measured beside them; empty in records before schema 7.
    """

    launch: int
    phase: str
    bare: Sequence[float]
    hooked: Sequence[float]
    layers: Mapping[str, Sequence[float]]
    floors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRow:
    """One layer in one phase of one case; seconds, bytes, FLOPs, for the whole batch.

    Attributes:
        low_s: Smallest of the launches' medians.
        high_s: Largest.
        share: Of the whole pass without hooks.
        flops: Algorithmic.
        moved_bytes: Least bytes it must read and write, at the dtype's item size.
        intensity: Executed FLOPs per byte.
        roof_s: Least time under the machine's ceilings.
        bound: What holds it back (`dabench.profiling.roofline.BOUND_RULE`).
    """

    case_id: str
    model: str
    batch: int
    height: int
    width: int
    mode: str
    dtype: str
    memory_format: str
    threads: int
    allocator: str = BY_DEFAULT
    phase: str
    layer: str
    kind: str
    stage: str
    shape: str
    median_s: float
    low_s: float
    high_s: float
    share: float
    macs: int | None = None
    flops: int | None = None
    executed_flops: int | None = None
    moved_bytes: int | None = None
    operators: int | None = None
    intensity: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    compute_s: float | None = None
    memory_s: float | None = None
    roof_s: float | None = None
    roof_fraction: float | None = None
    bound: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """One phase of one case as a whole, or the reason why it could not be profiled.

    Attributes:
        median_s: Of the pass without hooks, over launches; with its 95% interval.
        disturbance: By how much hooks lengthened the pass.
        layers_s: Sum over the layers.
        remainder_s: What no layer accounts for.
        roof_s: Sum of the layers' roofs.
        bound: The one that most of the layers' time falls to.
    """

    case_id: str
    model: str
    family: str
    device: str
    device_name: str | None = None
    batch: int
    channels: int
    height: int
    width: int
    mode: str
    dtype: str
    memory_format: str
    threads: int
    allocator: str = BY_DEFAULT
    phase: str
    status: str
    reason: str = ""
    launches: int = 0
    passes: int = 0
    median_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None
    disturbance: float | None = None
    corrected: bool = False
    layers_s: float | None = None
    remainder_s: float | None = None
    flops: int | None = None
    executed_flops: int | None = None
    moved_bytes: int | None = None
    roof_s: float | None = None
    roof_fraction: float | None = None
    bound: str | None = None


LAYER_COLUMNS = tuple(field.name for field in fields(LayerRow))
MODEL_COLUMNS = tuple(field.name for field in fields(ModelRow))
SINCE_SCHEMA_7 = {"allocator": BY_DEFAULT}
"""Columns that tables before it lack, with what they would have held."""


def summarise_phase(
    case: Case,
    phase: str,
    launches: Sequence[PhaseLayers],
    count: Mapping[str, Any] | None,
    ceilings: Ceilings | None,
    spec: ModelSpec,
    device_name: str | None,
) -> tuple[ModelRow, list[LayerRow]]:
    """A phase's rows from all launches of a case.

    Args:
        case: With its threads resolved.
        phase: ``forward`` or ``backward``.
        launches: At least one.
        count: `dabench.counting.counted.ModelCount` of the same graph and batch, as a document;
            None where it could not be counted.
        ceilings: Of the case's device, dtype and threads; None where they could not be measured.
        spec: Names the stages.
        device_name: As the worker said.
    """
    whole = launch_interval([each.bare for each in launches])
    disturbance = median(median(each.hooked) / median(each.bare) - 1 for each in launches)
    corrected = disturbance > CORRECTED_ABOVE
    scale = 1 / (1 + disturbance) if corrected else 1.0
    counts = {layer["layer"]: layer for layer in count["layers"]} if count else {}
    rows = [
        _layer_row(case, phase, layer, launches, counts.get(layer), ceilings, whole, scale, spec)
        for layer in launches[0].layers
    ]
    layers_s = sum(row.median_s for row in rows)
    left = whole.estimate - layers_s
    rows.append(_remainder(case, phase, left, whole))
    roof_s = sum(row.roof_s or 0.0 for row in rows)
    at_least = any(layer.get("uncounted") for layer in counts.values())
    held = bool(counts) and ceilings is not None and not at_least
    time_of = {name: sum(r.median_s for r in rows if r.bound == name) for name in BOUNDS}
    model = ModelRow(
        **_setting(case, phase),
        family=case.family,
        device=case.device,
        device_name=device_name,
        channels=case.channels,
        status="ok",
        launches=len(launches),
        passes=sum(len(each.bare) for each in launches),
        median_s=whole.estimate,
        ci_low_s=whole.low,
        ci_high_s=whole.high,
        disturbance=disturbance,
        corrected=corrected,
        layers_s=layers_s,
        remainder_s=left,
        **(_totals(rows) if counts else {}),
        roof_s=roof_s if held else None,
        roof_fraction=roof_s / whole.estimate if held else None,
        bound=max(time_of, key=lambda b: time_of[b]) if held else None,
        reason="operations are at least: some operators are uncounted" if at_least else "",
    )
    return model, rows


def _layer_row(
    case: Case,
    phase: str,
    layer: str,
    launches: Sequence[PhaseLayers],
    count: Mapping[str, Any] | None,
    ceilings: Ceilings | None,
    whole: Interval,
    scale: float,
    spec: ModelSpec,
) -> LayerRow:
    """A layer's row; its times are multiplied by ``scale``."""
    medians = [scale * median(each.layers[layer]) for each in launches if layer in each.layers]
    return LayerRow(
        **_setting(case, phase),
        layer=layer,
        stage=spec.stage_of(layer),
        kind=count["kind"] if count else "",
        shape=count["shape"] if count else "",
        median_s=median(medians),
        low_s=min(medians),
        high_s=max(medians),
        share=median(medians) / whole.estimate,
        **_work(count, case, phase, ceilings, median(medians), scale, launches),
    )


def _remainder(case: Case, phase: str, left: float, whole: Interval) -> LayerRow:
    """The row of what no layer accounts for."""
    return LayerRow(
        **_setting(case, phase),
        layer=REMAINDER,
        stage=REMAINDER,
        kind="",
        shape="",
        median_s=left,
        low_s=left,
        high_s=left,
        share=left / whole.estimate,
    )


def _totals(rows: Sequence[LayerRow]) -> dict[str, Any]:
    names = ("flops", "executed_flops", "moved_bytes")
    return {name: sum(getattr(row, name) or 0 for row in rows) for name in names}


def failed_phase(case: Case, phase: str, status: str, reason: str) -> ModelRow:
    """The row of a case that could not be profiled."""
    return ModelRow(
        **_setting(case, phase),
        family=case.family,
        device=case.device,
        channels=case.channels,
        status=status,
        reason=reason,
    )


def _setting(case: Case, phase: str) -> dict[str, Any]:
    names = (
        "model", "batch", "height", "width", "mode", "dtype", "memory_format", "threads",
        "allocator",
    )  # fmt: skip
    setting = {name: getattr(case, name) for name in names}
    return {"case_id": case.case_id, "phase": phase, **setting}


def _work(
    count: Mapping[str, Any] | None,
    case: Case,
    phase: str,
    ceilings: Ceilings | None,
    seconds: float,
    scale: float,
    launches: Sequence[PhaseLayers],
) -> dict[str, Any]:
    """What a layer does, at which rates, and how far below the roof.

    Floors were timed by the same hooks, so where these are taken out of the
    layer's time by ``scale`` they are taken out of its floor.
    """
    if count is None:
        return {}
    backward = phase == "backward"
    which = "backward_" if backward else ""
    macs = int(count[f"{which}macs"])
    executed = 2 * int(count[f"executed_{which}macs"])
    # Counted in fp32.
    moved = int(count[f"{which}bytes_moved"]) // 4 * ITEM_BYTES[case.dtype]
    known: dict[str, Any] = {
        "macs": macs,
        "flops": 2 * macs,
        "executed_flops": executed,
        "moved_bytes": moved,
        "operators": count["operators"],
    }
    if seconds <= 0 or not moved or count.get("uncounted"):
        # Of a lower bound nothing follows.
        return known
    known |= {
        "intensity": executed / moved,
        "flops_per_s": executed / seconds,
        "bytes_per_s": moved / seconds,
    }
    if ceilings is None:
        return known
    layer = (count["kind"], count["form"], count["operators"])
    least_s = median(
        floor_s(each.floors, *layer)
        if each.floors
        else ceilings.floor_s(f"{case.mode} {phase}", *layer)
        for each in launches
    )
    roof = roof_of(ceilings, flops=executed, moved_bytes=moved, launch_s=scale * least_s)
    return {
        **known,
        "compute_s": roof.compute_s,
        "memory_s": roof.memory_s,
        "roof_s": roof.seconds,
        "roof_fraction": roof.fraction(seconds),
        "bound": roof.bound(seconds),
    }


class ProfileRecord:
    """Appends to one profile's folder.

    Args:
        run: The folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        for name in (PASSES, LAUNCHES):
            run.cut_torn_line(name)

    def launch(self, record: LaunchRecord, phases: Iterable[PhaseLayers]) -> None:
        """Appends one launch and its passes; on disk when this returns."""
        self.run.append(PASSES, PASS_COLUMNS, _pass_rows(record, phases))
        row = launch_row(record)
        self.run.append(LAUNCHES, LAUNCH_COLUMNS, [[row[name] for name in LAUNCH_COLUMNS]])

    def counts(self, counts: Sequence[Mapping[str, Any]]) -> None:
        """Writes the operation counts of the cases, each for its whole batch."""
        self.run.write_json(COUNTS, list(counts))

    def summary(self, models: Sequence[ModelRow], layers: Sequence[LayerRow]) -> None:
        """Rewrites both tables."""
        self.run.write_table(MODELS, MODEL_COLUMNS, map(asdict, models))
        self.run.write_table(LAYERS, LAYER_COLUMNS, map(asdict, layers))


def read_profile_counts(path: Path) -> list[dict[str, Any]]:
    """Reads the operation counts: ``case_id`` and ``count``, empty where it failed."""
    return list(read_json(path / COUNTS) or [])


def next_profile_launch(path: Path) -> int:
    """The first launch number no row uses, those of unfinished launches included."""
    tables = (
        read_table(path / PASSES, PASS_COLUMNS),
        read_table(path / LAUNCHES, LAUNCH_COLUMNS),
    )
    return max((int(row["launch"]) for table in tables for _, row in table), default=-1) + 1


def read_profiled(path: Path) -> tuple[list[LaunchRecord], dict[str, list[PhaseLayers]]]:
    """The finished launches of a profile, and their passes by case.

    Raises:
        ResultsError: A damaged file, named with its line.
    """
    launches = []
    for line, row in read_table(path / LAUNCHES, LAUNCH_COLUMNS):
        with bad_row(path / LAUNCHES, line):
            launches.append(launch_of(row, no_samples))
    finished = {each.launch for each in launches if each.status == "ok"}
    found: dict[tuple[int, str, str], dict[str, dict[str, list[float]]]] = {}
    for line, row in read_table(path / PASSES, PASS_COLUMNS):
        with bad_row(path / PASSES, line):
            if int(row["launch"]) in finished:
                key = int(row["launch"]), row["case_id"], row["phase"]
                kinds = found.setdefault(key, {kind: {} for kind in _PASS_KINDS})
                series = kinds[row["kind"]].setdefault(row["layer"], [])
                series.append(float(row["seconds"]))
    by_case: dict[str, list[PhaseLayers]] = {}
    for (launch, case_id, phase), kinds in found.items():
        layers = PhaseLayers(
            launch=launch,
            phase=phase,
            bare=kinds["bare"][""],
            hooked=kinds["hooked"][""],
            layers=kinds["layer"],
            floors={name: seconds[0] for name, seconds in kinds["floor"].items()},
        )
        by_case.setdefault(case_id, []).append(layers)
    return launches, by_case


def _pass_rows(record: LaunchRecord, phases: Iterable[PhaseLayers]) -> Iterator[tuple[Any, ...]]:
    for each in phases:
        series: list[tuple[str, str, Sequence[float]]] = [
            ("floor", kind, [seconds]) for kind, seconds in each.floors.items()
        ]
        series += [("bare", "", each.bare), ("hooked", "", each.hooked)]
        series += [("layer", layer, seconds) for layer, seconds in each.layers.items()]
        for kind, layer, seconds in series:
            for index, value in enumerate(seconds):
                key = (record.launch, record.case_id, each.phase, kind, layer, index)
                yield (*key, f"{value:.9f}")
