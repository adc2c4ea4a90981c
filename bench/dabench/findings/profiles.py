"""Profiles as pandas tables: read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.errors import ResultsError
from dabench.profiling.roofline import Ceilings
from dabench.records.folder import damaged, read_run
from dabench.records.profiles import LAYERS, MODELS, SINCE_SCHEMA_7, LayerRow, ModelRow

CASE = ["run_id", "case_id", "phase"]


@dataclass(frozen=True, slots=True)
class Profiles:
    """Profile runs, read.

    Attributes:
        runs: The documents of ``run.json``.
        models: A row per case and phase, with ``run_id``.
        layers: A row per case, phase and layer, with ``run_id``.
        ceilings: Of all runs, each with its run.
        folders: Run -> where its records are.
    """

    runs: list[dict[str, Any]]
    models: pd.DataFrame
    layers: pd.DataFrame
    ceilings: list[tuple[str, Ceilings]]
    folders: dict[str, Path]


def load_profiles(folders: Sequence[Path]) -> Profiles:
    """Reads profile runs.

    Raises:
        UsageError: No run in a folder, or one of a newer dabench.
        ResultsError: A damaged file, named with its line.
    """
    runs, models, layers = [], [], []
    ceilings: list[tuple[str, Ceilings]] = []
    for folder in folders:
        run = read_run(folder)
        runs.append(run)
        ceilings += [(run["run_id"], Ceilings.of(document)) for document in run["ceilings"]]
        models.append(_read(folder / MODELS, ModelRow, run["run_id"]))
        layers.append(_read(folder / LAYERS, LayerRow, run["run_id"]))
    places = {run["run_id"]: folder for run, folder in zip(runs, folders, strict=True)}
    return Profiles(runs, pd.concat(models), pd.concat(layers), ceilings, places)


def ceilings_frame(ceilings: Iterable[Ceilings]) -> pd.DataFrame:
    """Ceilings as a table, a row per setting: FLOP/s, bytes/s, seconds."""
    return pd.DataFrame(
        [
            {
                "device_name": each.device_name,
                **each.setting._asdict(),
                "flops_per_s": each.flops_per_s,
                "kernel": each.best_kernel,
                "memory_bytes_per_s": each.memory_bytes_per_s,
                "launch_s": each.launch_s,
                "measured": each.measured,
                "left_out": ", ".join(each.left_out),
            }
            for each in ceilings
        ]
    )


def _read(path: Path, row: type[LayerRow | ModelRow], run_id: str) -> pd.DataFrame:
    """A table as a frame; a column of text stays one where all of it is empty."""
    columns = tuple(each.name for each in fields(row))
    text = {each.name: "str" for each in fields(row) if str(each.type).startswith("str")}
    try:
        frame = pd.read_csv(path, dtype=text)
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from None
    if tuple(frame.columns) == tuple(name for name in columns if name not in SINCE_SCHEMA_7):
        frame = frame.assign(**SINCE_SCHEMA_7)[list(columns)]
    if tuple(frame.columns) != columns:
        damaged(path, columns, ())
    frame.insert(0, "run_id", run_id)
    return frame
