"""Records to pandas tables. Numbers stay in seconds, bytes and operations.

Imports no torch: reports are made wherever the records are.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals

from dabench.base.errors import ResultsError, UsageError
from dabench.device.machine import processor
from dabench.plan.axes import EAGER, VARIANT_AXES, columns_of, variant_in
from dabench.records.counts import read_counts, read_uncounted
from dabench.records.folder import damaged, has_run, read_run
from dabench.records.measurements import (
    COLUMNS,
    SINCE_SCHEMA_2,
    SINCE_SCHEMA_4,
    SINCE_SCHEMA_5,
    SINCE_SCHEMA_6,
    Measurement,
)
from dabench.records.samples import read_samples
from dabench.records.summary import summarised
from dabench.records.timings import (
    LAUNCH_COLUMNS,
    LAUNCHES,
    MEASUREMENTS,
    OLDER_LAUNCH_COLUMNS,
    SAMPLES,
    is_summarised,
    read_launches,
    read_plan,
)
from dabench.timing.engine import KINDS
from dabench.timing.statistics import ratio_interval
from dabench.timing.verdicts import verdict

# What must be equal for two rows to be compared but for their model.
SETTING = ["run_id", "machine", *columns_of("model")]

# An empty field is a missing number; in a column of text it is an empty text.
_NA = {
    column.name: [""] for column in fields(Measurement) if not str(column.type).startswith("str")
}
_NA |= {"round": [""]}


@dataclass(frozen=True)
class Results:
    """Runs, read.

    Attributes:
        runs: The documents of ``run.json``.
        measurements: A row per case and phase, with ``run_id`` and ``machine``.
        samples: A row per timed pass, warm-up included and marked in ``kind``; words are
            categories.
        launches: A row per worker process, ``device`` being what it said of its device and
            settings, ``phases`` the text of what it said of each phase, as JSON.
        counts: A row per network, size and mode, per image.
    """

    runs: list[dict[str, Any]]
    measurements: pd.DataFrame
    samples: pd.DataFrame
    launches: pd.DataFrame
    counts: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The measurements; the same call as on what `dabench.time` returns."""
        return self.measurements

    @cached_property
    def times(self) -> TimesOf:
        """Of `launch_times`, which many sections of a report ask for."""
        return launch_times(self)


def measurement_frame(rows: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as a frame with the vocabulary's columns."""
    return _typed(pd.DataFrame([row.to_dict() for row in rows], columns=list(COLUMNS)))


def load(folders: Sequence[Path]) -> Results:
    """Reads runs and puts them under one another; nothing is averaged.

    Raises:
        UsageError: No run in a folder, or one of a newer dabench.
        ResultsError: A damaged file, named with its line.
    """
    runs, measurements, samples, launches = [], [], [], []
    counts: list[dict[str, Any]] = []
    names: Counter[str] = Counter()
    for folder in dict.fromkeys(path.resolve() for path in folders):
        run = read_run(folder)
        names[run["run_id"]] += 1
        if names[run["run_id"]] > 1:
            # Runs of the same name from two machines must not be mixed.
            run["run_id"] += f" ({names[run['run_id']]})"
        read_plan(folder, run)  # of which reports say what was asked
        runs.append(run)
        launched = _read_launches(folder, run["run_id"])
        if is_summarised(folder, len(launched), run["schema"]):
            measured = _read_measurements(folder / MEASUREMENTS)
        else:
            # The run ended before it could write its summary.
            measured = measurement_frame(summarised(folder, run))
        measured.insert(0, "run_id", run["run_id"])
        devices = zip(measured["device_name"], measured["device"], strict=True)
        machines = [machine_name(run["environment"], *device) for device in devices]
        measured.insert(1, "machine", machines)
        measurements.append(_checked(measured, folder / MEASUREMENTS))
        launches.append(launched)
        samples.append(_read_samples(folder, run["run_id"], launched))
        counts.extend({"run_id": run["run_id"], **count} for count in read_counts(folder))
    return Results(
        runs=runs,
        measurements=pd.concat(measurements, ignore_index=True),
        samples=_under_one_another(samples),
        launches=pd.concat(launches, ignore_index=True),
        counts=_counts_frame(counts),
    )


def load_counts(folders: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads runs of operation counts.

    Returns:
        The counts as in `Results`, and what could not be counted with its ``reason``.

    Raises:
        ResultsError: A damaged file, named with its line.
    """
    counts, failed = [], []
    for folder in folders:
        run_id = read_run(folder)["run_id"]
        counts += [{"run_id": run_id, **count} for count in read_counts(folder)]
        failed += [{"run_id": run_id, **each} for each in read_uncounted(folder)]
    return _counts_frame(counts), pd.DataFrame(failed)


def _counts_frame(counts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(counts).drop(columns="layers", errors="ignore")


def machine_name(environment: dict[str, Any], device_name: object, device: str) -> str:
    """A machine as a column heading: its processor with its cores, or its GPU."""
    if device != "cpu":
        return str(device_name or device)
    cores = environment.get("logical_cores")  # unknown of what another tool measured
    cpu = processor(environment)
    return f"{cpu}, {cores} cores" if cores else cpu


def published() -> pd.DataFrame:
    """Figures from the literature (``results/reference/published.csv``), as printed."""
    return reference("published.csv")


def reference(name: str) -> pd.DataFrame:
    """A table of ``results/reference``."""
    with resources.as_file(resources.files("dabench") / "reference" / name) as path:
        return pd.read_csv(path)


def paper_timing(measurements: pd.DataFrame, device: str) -> pd.DataFrame:
    """The paper's discriminator timing beside this project's, same protocol and shape.

    Args:
        measurements: Of `Results`.
        device: ``cpu`` for the table of single passes, in which the paper has a
            TPU too, or ``cuda`` for that of 50 passes.

    Returns:
        A row per mode, model and machine; columns ``source`` (``published`` or
        ``measured``), ``seconds``, ``ci_low_s``, ``ci_high_s``, ``launches``,
        ``device_median_s``; for measured ones ``run_id``, ``device``, ``threads`` and
        ``dtype``, for published ones ``note``.
    """
    printed = published()
    on_gpu = (printed["device"] == "cuda") == (device == "cuda")
    printed = printed[(printed["protocol"] == "paper") & on_gpu]
    shape = ["batch", "channels", "height", "width", "passes"]
    wanted = printed[shape].drop_duplicates().astype(int)
    ours = measurements[
        (measurements["protocol"] == "paper")
        & (measurements["status"] == "ok")
        & measurements["dtype"].isin(["fp32", "tf32"])
        & (measurements["memory_format"] == "nchw")
    ].merge(wanted, on=shape)
    # PyTorch's default lets convolutions use TF32 where the GPU has it.
    ours["machine"] += ours["dtype"].map({"fp32": "", "tf32": ", tf32"})
    keys = ["mode", "model", "machine"]
    # What shares a cell is told apart by more columns: none hides another.
    for name in ("device", "threads", "run_id"):
        again = ours.duplicated(keys, keep=False)
        apart = ours["machine"] + f", {name} " + ours[name].astype(str)
        differs = ours.groupby(keys)[name].transform("nunique") > 1
        ours["machine"] = ours["machine"].where(~(again & differs), apart)
    return pd.concat(
        [
            printed[[*keys, "note"]].assign(source="published", seconds=printed["value"]),
            ours[
                [
                    *keys,
                    "ci_low_s",
                    "ci_high_s",
                    "ci_scope",
                    "launches",
                    "device_median_s",
                    "run_id",
                    "device",
                    "threads",
                    "dtype",
                ]
            ].assign(source="measured", seconds=ours["median_s"]),
        ],
        ignore_index=True,
    )


def ratios(loaded: Results, models: Sequence[str]) -> pd.DataFrame:
    """Time of each model over each other one in the same run and setting.

    Args:
        loaded: Records with their samples.
        models: Which to compare, and in which order.

    Returns:
        Columns of `SETTING`, ``numerator``, ``denominator``, ``ratio``,
        ``ratio_low``, ``ratio_high`` (95%), ``launches``, ``verdict`` (of the
        numerator against the denominator).
    """
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    # Of several processes at once 'dabench compare' keeps the samples apart.
    good = good[good["model"].isin(models) & (good["concurrency"] == 1)]
    times = loaded.times
    rows = []
    for group in by_setting(good, SETTING):
        order = sorted(group, key=lambda row: models.index(row["model"]))
        rows += [
            {
                **{name: top[name] for name in SETTING},
                "numerator": top["model"],
                "denominator": bottom["model"],
                **compared(top, bottom, times),
            }
            for top, bottom in itertools.combinations(order, 2)
        ]
    return pd.DataFrame(rows)


def by_setting(frame: pd.DataFrame, names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Rows that agree in some columns, in the order in which they come.

    As plain dictionaries: thousands of small groups cost pandas seconds.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        # A missing value is unequal to itself.
        key = tuple(None if pd.isna(row[name]) else row[name] for name in names)
        groups.setdefault(key, []).append({str(name): value for name, value in row.items()})
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class LaunchTimes:
    """Seconds of each sample of each launch of one phase of a case, and the launches' rounds.

    Attributes:
        medians: Of the launches.
    """

    seconds: list[Sequence[float]]
    rounds: list[int | None]
    medians: list[float]

    @property
    def for_ratios(self) -> list[Sequence[float]]:
        """What stands for each launch in a ratio: its median, unless there is just one launch."""
        return self.seconds if len(self.seconds) == 1 else [[each] for each in self.medians]


TimesOf = Mapping[tuple[str, str, str], LaunchTimes]
"""By run, case and phase."""


class _Times(dict[tuple[str, str, str], LaunchTimes]):
    """Of every measured row of sound records."""

    def __missing__(self, key: tuple[str, str, str]) -> LaunchTimes:
        run_id, case_id, phase = key
        raise ResultsError(
            f"run {run_id}: {MEASUREMENTS} lists {case_id} {phase}, of which {SAMPLES} has nothing"
        )


class _Stretch(Sequence[float]):
    """Numbers that stand together in an array, as floats when somebody looks at them."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> Any:
        return self._values[key].tolist()

    def __iter__(self) -> Iterator[float]:
        return iter(self._values.tolist())


def launch_times(loaded: Results) -> TimesOf:
    """Seconds of each sample, by (run, case, phase) and launch.

    Host times; under the paper's protocol on a device that queues work, whose clock does not
    wait for it, the times until the work was done.
    """
    samples = loaded.samples
    kept = (samples["kind"] == "sample").to_numpy()
    device_s = samples["device_s"].to_numpy()
    paper = samples["case_id"].str.endswith("/paper").to_numpy(dtype=bool)
    seconds = np.where(paper & ~np.isnan(device_s), device_s, samples["wall_s"])[kept]
    known = loaded.launches[["run_id", "launch", "round"]]
    numbers = {
        (run_id, launch): None if round_ != round_ or round_ == "" else int(round_)
        for run_id, launch, round_ in known.itertuples(index=False)
    }
    found = _Times()
    keys = samples[["run_id", "case_id", "phase", "launch"]][kept]
    changes = np.zeros(max(len(keys), 1), bool)
    changes[0] = True
    for name in keys:
        column = keys[name]
        values = column.cat.codes if isinstance(column.dtype, pd.CategoricalDtype) else column
        changes[1:] |= values.to_numpy()[1:] != values.to_numpy()[:-1]
    starts = np.flatnonzero(changes)[: len(keys)]
    ends = [*starts[1:].tolist(), len(keys)]
    firsts = list(keys.iloc[starts].itertuples(index=False, name=None))
    if len(set(firsts)) < len(firsts):
        # What does not stand together in the file does so here.
        ordered = samples.sort_values([*map(str, keys)], kind="stable", ignore_index=True)
        return launch_times(replace(loaded, samples=ordered))
    for (run_id, case_id, phase, launch), start, end in zip(firsts, starts, ends, strict=False):
        times = found.setdefault((str(run_id), str(case_id), str(phase)), LaunchTimes([], [], []))
        times.seconds.append(_Stretch(seconds[start:end]))
        times.medians.append(float(np.median(seconds[start:end])))
        times.rounds.append(numbers.get((run_id, launch)))
    return found


def compared(top: Mapping[Any, Any], bottom: Mapping[Any, Any], times: TimesOf) -> dict[str, Any]:
    """The time of one measurement over that of another, with its interval and a verdict.

    Args:
        top: A row of the measurements.
        bottom: Another one of the same machine.
        times: Of `launch_times`.

    Returns:
        ``ratio``, ``ratio_low``, ``ratio_high`` (95%), ``launches`` and ``samples`` (of the
        one that has fewer) and ``verdict`` (of the first against the second).
    """
    first, second = (times[row["run_id"], row["case_id"], row["phase"]] for row in (top, bottom))
    # Rounds are of a run: those of two runs have nothing in common.
    alternated = top["run_id"] == bottom["run_id"]
    rounds = (first.rounds, second.rounds) if alternated else None
    interval = ratio_interval(first.for_ratios, second.for_ratios, rounds)
    launches = min(len(first.seconds), len(second.seconds))
    samples = min(sum(map(len, each.seconds)) for each in (first, second))
    return {
        "samples": samples,
        "ratio": interval.estimate,
        "ratio_low": interval.low,
        "ratio_high": interval.high,
        "launches": launches,
        "verdict": verdict(interval) if launches > 1 else "undecided",
    }


# What must be equal for two ways of running one network to be compared: an
# exported one chooses its layout itself, so torch may take its better one too.
VARIANT_SETTING = [
    "run_id", "machine",
    *columns_of(
        "compile", "fuse", "runtime", "memory_format", "calibration", "keep_float", "allocator"
    ),
]  # fmt: skip


def variants(loaded: Results) -> list[list[dict[str, Any]]]:
    """Ways of running one network in one setting, where it was run in several.

    Returns:
        A list per setting of rows of the measurements with ``variant``, and
        where torch's plain forward in NCHW was measured too, ``against``: what
        `compared` says of it against that.
    """
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    times = loaded.times
    found = []
    for group in by_setting(good, VARIANT_SETTING):
        rows = [{**row, "variant": variant_in_words(row)} for row in group]
        if len({row["variant"] for row in rows}) > 1:
            plain = [r for r in rows if (r["variant"], r["memory_format"]) == (EAGER, "nchw")]
            for row in rows:
                is_plain = bool(plain) and row is plain[0]
                row["against"] = None if is_plain or not plain else compared(row, plain[0], times)
            found.append(rows)
    return found


def variant_in_words(row: Mapping[str, Any]) -> str:
    """The way in which a row of the measurements was run; where its input lay is its setting."""
    return variant_in(row, input="device")


def ways_of(rows: pd.DataFrame, **instead: str) -> list[str]:
    """The way in which each row of the measurements was run, in words.

    Args:
        rows: Their other columns are left alone: of rows this wide dictionaries take long.
        instead: What an axis is taken for, whatever the rows say.
    """
    axes = rows[rows.columns.intersection(["model", *VARIANT_AXES])]
    return [variant_in(row, **instead) for row in axes.to_dict("records")]


def find_runs(root: Path) -> list[Path]:
    """Folders up to two levels below ``root`` that hold a run, sorted by path.

    Raises:
        UsageError: There are none.
    """
    found = sorted(path for folder in root.glob("*") for path in parts_of(folder))
    if not found:
        raise UsageError(f"no runs under {root}; measure one with 'dabench sweep paper-cpu'")
    return found


def parts_of(folder: Path) -> list[Path]:
    """The folder itself if it holds a run, else those directly below that do."""
    if has_run(folder):
        return [folder]
    return sorted(path.parent for path in folder.glob("*/run.json"))


def _read_measurements(path: Path) -> pd.DataFrame:
    """Reads ``measurements.csv``, also of older schemas."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with path.open(encoding="utf-8") as file:
            header = file.readline().rstrip("\n")
        for since in (SINCE_SCHEMA_2, SINCE_SCHEMA_4, SINCE_SCHEMA_5, SINCE_SCHEMA_6):
            older = [name for name in COLUMNS if name not in since]
            if header == ",".join(older):
                usual: dict[str, Any] = {
                    f.name: f.default for f in fields(Measurement) if f.name in since
                }
                return _read_csv(path, older).assign(**usual)
    return _read_csv(path, COLUMNS)


def _read_launches(folder: Path, run_id: str) -> pd.DataFrame:
    path = folder / LAUNCHES
    launches = _read_csv(path, LAUNCH_COLUMNS, ("launch", "seconds"), OLDER_LAUNCH_COLUMNS)
    launches = launches.reindex(columns=list(LAUNCH_COLUMNS))
    try:
        launches["device"] = [json.loads(text) for text in launches["device"]]
        _check_launches(launches)
    except (ValueError, OverflowError) as error:
        read_launches(folder)  # names the line
        raise ResultsError(f"{path}: not what dabench writes: {error}") from error
    launches.insert(0, "run_id", run_id)
    return launches


def _check_launches(launches: pd.DataFrame) -> None:
    """Checks what `launch_of` would read.

    Raises:
        ValueError: It could not.
        OverflowError: A number is none.
    """
    for row in launches.to_dict("records"):
        if row["round"] == row["round"] and row["round"] != "":
            int(row["round"])
        int(row["launch"])
        phases = json.loads(row["phases"] or "{}")
        whole = isinstance(row["device"], dict) and isinstance(phases, dict)
        if not whole or not all(isinstance(each, dict) for each in phases.values()):
            raise ValueError(f"launch {row['launch']}: device or phases")
    if launches["launch"].duplicated().any():
        raise ValueError("a launch a second time")


def _read_samples(folder: Path, run_id: str, launches: pd.DataFrame) -> pd.DataFrame:
    """The samples, of which there may be millions: words are categories."""
    columns = read_samples(folder / SAMPLES)
    # Samples of a launch that never finished have no row there.
    cases = pd.Series(
        launches["case_id"].to_numpy(), launches["launch"].to_numpy(dtype=int), dtype="str"
    )
    cases = cases[~cases.index.duplicated(keep="last")]
    known = pd.Categorical(cases)
    places = pd.Series(known.codes, cases.index).reindex(columns.launch, fill_value=-1).to_numpy()
    kept = places >= 0
    frame = pd.DataFrame(
        {
            "run_id": pd.Categorical.from_codes(np.zeros(len(places), np.int8), _words([run_id])),
            "launch": columns.launch,
            "case_id": pd.Categorical.from_codes(places, known.categories),
            "phase": pd.Categorical.from_codes(columns.phase, _words(columns.phases)),
            "kind": pd.Categorical.from_codes(columns.kind, _words(KINDS)),
            "index": columns.index,
            "wall_s": columns.wall_s,
            "device_s": columns.device_s,
        },
        copy=False,
    )
    return frame if kept.all() else frame[kept].reset_index(drop=True)


def _words(names: Iterable[str]) -> pd.Index[str]:
    """Categories, of the same type also where there are none."""
    return pd.Index(list(names), dtype="str")


def _under_one_another(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames of samples as one, whose words stay categories."""
    if len(frames) == 1:
        return frames[0]
    words = [name for name in frames[0] if isinstance(frames[0][name].dtype, pd.CategoricalDtype)]
    whole = pd.concat([each.drop(columns=words) for each in frames], ignore_index=True)
    for name in words:
        whole[name] = union_categoricals([each[name] for each in frames])
    return whole[list(frames[0])]


def _read_csv(
    path: Path,
    columns: Sequence[str],
    required: Sequence[str] = (),
    older: Sequence[Sequence[str]] = (),
) -> pd.DataFrame:
    """Reads one of our tables, passing over a last line that was cut short.

    Args:
        path: A missing file reads as one without rows.
        columns: What its header must say.
        required: Numeric columns that no row may leave empty.
        older: Headers of earlier schemas.
    """
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    try:
        frame = pd.read_csv(io.BytesIO(whole), keep_default_na=False, na_values=_NA)
        sound = tuple(frame.columns) in {tuple(columns), *map(tuple, older)} and all(
            pd.api.types.is_numeric_dtype(frame[name]) and frame[name].notna().all()
            for name in (() if frame.empty else required)
        )
    except (ValueError, UnicodeDecodeError):  # pandas' parser errors are ValueErrors
        sound = False
    if not sound:
        # Slower, and names the line.
        damaged(path, columns, required, older)
    return frame


def _checked(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    try:
        return _typed(frame)
    except (ValueError, TypeError, OverflowError) as error:
        raise ResultsError(f"{path}: not what dabench writes: {error}") from error


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Gives columns the types of `Measurement`, the same for rows made here and read back."""
    for column in fields(Measurement):
        kind = str(column.type).removesuffix(" | None")
        values = frame[column.name]
        if kind == "str":
            # What is as it should be stays: of few rows each step costs more than the rows do.
            if values.dtype != "str" or values.hasnans:
                frame[column.name] = values.astype(object).fillna("").astype("str")
            continue
        if not pd.api.types.is_numeric_dtype(values):
            values = pd.to_numeric(values.replace("", None))
        if "None" not in str(column.type) and values.isna().any():
            raise ValueError(f"a row lacks {column.name}")
        wanted: Literal["Int64", "float64"] = "Int64" if kind == "int" else "float64"
        if frame[column.name].dtype != wanted:
            frame[column.name] = values.astype(wanted)
    return frame
