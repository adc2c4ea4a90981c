"""Measurements and their samples as the page holds them: columns of numbers and of words."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dabench.findings.choices import command_of
from dabench.findings.proofs import flags
from dabench.findings.standings import Standing, key_of
from dabench.findings.tables import Results, ways_of
from dabench.plan.cases import PlannedCase
from dabench.records.measurements import WITHIN_ONE_LAUNCH

DIGITS = 6
"""Significant ones that numbers keep: twice as many as are shown."""

_WORDS = (
    "run_id", "machine", "case_id", "model", "family", "device", "size", "mode", "dtype", "layout",
    "way", "input", "protocol", "phase", "status", "reason", "flags", "scope", "stop", "rank",
    "standing", "loss", "energy", "command",
)  # fmt: skip
_NUMBERS = (
    "batch", "threads", "rate", "concurrency", "passes", "n", "launches", "warmup_n", "median_s",
    "ci_low_s", "ci_high_s", "mean_s", "std_s", "min_s", "max_s", "p05_s", "p95_s",
    "device_median_s", "images_per_s", "flops_per_s", "peak_bytes", "macs", "compile_s",
    "difference", "joules_per_image", "alone_s", "on_time", "overruns", "queue", "system_share",
)  # fmt: skip

_NAMES = ("run_id", "case_id", "phase")

MOST_SAMPLES = 1_000_000

Columns = dict[str, dict[str, list[Any]]]


def measured_columns(loaded: Results, places: Mapping[tuple[str, str, str], Standing]) -> Columns:
    """A row per case and phase.

    Returns:
        Column -> ``values`` (numbers, None where there is none), or ``words`` and, for each row,
        the ``index`` of its word. Columns that say nothing of any row are left out.
    """
    rows = loaded.measurements
    commands = _commands(loaded)
    table = rows.assign(
        size=rows["channels"].astype(str) + "x" + rows["height"].astype(str)
        + "x" + rows["width"].astype(str),
        dtype=rows["dtype"] + rows["precision"].map(_how),
        layout=rows["memory_format"],
        way=ways_of(rows, input="device"),
        flags=flags(rows),
        scope=rows["ci_scope"].where(rows["ci_scope"] == WITHIN_ONE_LAUNCH, ""),
        command=[
            commands.get(pair, "")
            for pair in rows[["run_id", "case_id"]].itertuples(index=False, name=None)
        ],
    )  # fmt: skip
    standing = [places.get(key_of(row)) for row in _records(rows)]
    # Where nothing arrives by itself there is no rate.
    table["rate"] = rows["rate"].where(rows["rate"] > 0)
    table["rank"] = ["" if each is None else each.rank for each in standing]
    table["standing"] = ["" if each is None else each.reason for each in standing]
    columns: Columns = {}
    for name in _WORDS:
        index, words = pd.factorize(table[name].astype(object).fillna("").astype(str))
        if any(words):
            columns[name] = {"words": list(words), "index": index.tolist()}
    for name in _NUMBERS:
        values = rounded(table[name].astype("float64"))
        if any(value is not None for value in values):
            columns[name] = {"values": values}
    return columns


def _records(rows: pd.DataFrame) -> Iterable[Mapping[str, Any]]:
    named = rows[list(_NAMES)]
    return ({str(k): v for k, v in row.items()} for row in named.to_dict("records"))


def _how(precision: Hashable) -> str:
    return f" ({precision})" if precision and precision not in ("as is", "nan") else ""


def _commands(loaded: Results) -> dict[tuple[str, str], str]:
    """By run and case the line that times it again, as often."""
    planned = ((run["run_id"], PlannedCase.of(item)) for run in loaded.runs for item in run["plan"])
    return {
        (run_id, each.case.case_id): " ".join(
            [
                command_of(each.case),
                *([f"--launches {n}"] if (n := each.settings.launches) else []),
                *([f"--repeat {n}"] if (n := each.settings.repeat) else []),
            ]
        )
        for run_id, each in planned
    }


def rounded(values: Iterable[float]) -> list[float | int | None]:
    """Numbers as JSON may hold them, with `DIGITS` significant digits."""
    return [_rounded(value) for value in values]


def _rounded(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


@dataclass(frozen=True, slots=True)
class Sampled:
    """Samples of launches.

    Attributes:
        launches: By measurement (`name_of`): a launch each, with what it said of itself and, by
            kind, its samples in whole multiples of its ``unit_s``.
        step: Only each so-manieth sample is held; 1 where all are.
    """

    launches: dict[str, list[dict[str, Any]]]
    step: int


def sampled(loaded: Results, most: int = MOST_SAMPLES) -> Sampled:
    """Samples by measurement and launch, with five digits or more.

    Times are the host's; of the paper's protocol, whose clock waits for nothing, ``done`` has what
    the device took beside them.

    Args:
        loaded: Runs.
        most: Held at most; of more, each so-manieth of every launch.
    """
    samples, told = loaded.samples, _told(loaded)
    step = max(1, -(-len(samples) // most))
    found: dict[str, list[dict[str, Any]]] = {}
    if samples.empty:
        return Sampled(found, step)
    seconds, done = (samples[name].to_numpy("float64") for name in ("wall_s", "device_s"))
    paper = samples["case_id"].str.endswith("/paper").to_numpy(dtype=bool)
    waited = paper & ~np.isnan(done)
    words = {name: samples[name].to_numpy(dtype=object) for name in (*_NAMES, "launch", "kind")}
    for start, end in _stretches(samples[[*_NAMES, "launch"]]):
        run_id, case_id, phase, launch = (words[name][start] for name in (*_NAMES, "launch"))
        facts = told.get((run_id, int(launch)), {})
        kinds = words["kind"][start:end]
        by_kind = {str(kind): seconds[start:end][kinds == kind] for kind in dict.fromkeys(kinds)}
        if waited[start:end].any():
            by_kind["done"] = done[start:end][waited[start:end]]
        unit = min(_unit(values) for values in by_kind.values())
        found.setdefault(name_of(run_id, case_id, phase), []).append(
            {
                "launch": int(launch), **facts.get("", {}), **facts.get(phase, {}), "unit_s": unit,
                **{kind: _whole(values[::step] / unit) for kind, values in by_kind.items()},
            }
        )  # fmt: skip
    return Sampled(found, step)


def _whole(values: NDArray[np.float64]) -> list[int]:
    numbers: list[int] = np.rint(values).astype(int).tolist()
    return numbers


def name_of(run_id: str, case_id: str, phase: str) -> str:
    """A measurement in one text, as permalinks name it."""
    return f"{run_id}|{case_id}|{phase}"


def _stretches(names: pd.DataFrame) -> list[tuple[int, int]]:
    """Where rows that agree stand together: their first, and the one behind their last."""
    changes = np.zeros(len(names), bool)
    changes[0] = True
    for name in names:
        values = pd.factorize(names[name])[0]
        changes[1:] |= values[1:] != values[:-1]
    starts = np.flatnonzero(changes).tolist()
    return list(zip(starts, [*starts[1:], len(names)], strict=True))


def _unit(values: NDArray[np.float64]) -> float:
    middle = float(np.median(values))
    return float(f"1e{math.floor(math.log10(middle)) - 5}") if middle > 0 else 1e-9


_OF_LAUNCH = ("started_at",)
_OF_PHASE = ("other_cores", "throttled", "celsius", "stop")


def _told(loaded: Results) -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """By run and launch what it said of itself (under no name) and of each phase."""
    found = {}
    for row in loaded.launches.to_dict("records"):
        whole = {name: _plain(row[name]) for name in _OF_LAUNCH if _plain(row[name]) != ""}
        phases = json.loads(row["phases"] or "{}")
        facts = {
            phase: {name: said[name] for name in _OF_PHASE if said.get(name) is not None}
            for phase, said in phases.items()
        }
        found[row["run_id"], int(row["launch"])] = {"": whole, **facts}
    return found


def _plain(value: Any) -> Any:
    """A cell as JSON may hold it; nothing is an empty text."""
    if value is None or value != value:
        return ""
    return value.item() if isinstance(value, np.generic) else value


def failed_launches(loaded: Results) -> list[dict[str, Any]]:
    """Launches that gave no number: which, and why."""
    bad = loaded.launches[loaded.launches["status"] != "ok"]
    columns: Sequence[str] = ("run_id", "case_id", "launch", "status", "reason")
    return [
        {str(k): _plain(v) for k, v in row.items()} for row in bad[list(columns)].to_dict("records")
    ]
