"""Scalars that trainings left behind, anyone's, under one set of names.

Three sources: runs of dabench; TensorBoard's event files, through TensorBoard's own reader (an
extra); and CSV files with the columns ``metric``, ``epoch`` (or ``step``) and ``value``, and where
they are known ``run`` and ``seconds_since_start``. The published curves are such a file, beside
which lie the facts of their runs.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dabench.base.errors import UsageError, bad_value, clean_line
from dabench.findings.tables import reference
from dabench.findings.trainings import SECONDS, load_training
from dabench.records.folder import has_run, kind_of
from dabench.records.trainings import KIND, SUITE

METRICS = {
    "loss": "of the segmentation, per epoch",
    "loss_step": "of the segmentation, per step",
    "adversarial_loss": "of fooling the discriminator, per epoch",
    "adversarial_loss_step": "of fooling the discriminator, per step",
    "disc_loss": "of the discriminator, mean over both domains, per epoch",
    "disc_loss_step": "of the discriminator, mean over both domains, per step",
    "miou": "of the evaluated frames, 0 to 1, per epoch",
    "accuracy": "share of pixels that are right, per epoch",
    "data_s": "seconds of an epoch's training in which a step waited for data",
    "epoch_s": "seconds of an epoch's training",
}
"""What an audit of trainings reads."""

STEPWISE = "_step"
"""Ends the names of those that have a point per step."""

# In the logs that the published curves are from; others are given by --map. Of two for one
# metric the first is taken.
_KNOWN = {
    "loss_step_epoch_mean": "loss",
    "loss_epoch_train": "loss",
    "adv_loss_step_epoch_mean": "adversarial_loss",
    "adv_loss_step": "adversarial_loss_step",
    "miou_val": "miou",
    "precision_val": "accuracy",
}

_EVENTS = "events.out.tfevents."
_TIME = "seconds_since_start"


@dataclass(frozen=True, slots=True)
class Curve:
    """One scalar over a training.

    Attributes:
        points: The epoch or step of each point, each above the one before.
        values: As many.
        seconds: Since the run's start, as many; NaN where that is not known.
    """

    points: tuple[int, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLog:
    """What one training left behind.

    Attributes:
        name: Of the run.
        source: Where it was read.
        curves: By metric (`METRICS`).
        label: What was trained; runs of one label differ in their seed.
        group: Runs are compared within one: the data, and how they are evaluated.
        adversarial_weight: By which the adversarial loss was multiplied before it was logged;
            None if nobody says.
        steps: Of the optimiser, in all; None if nobody says.
        by_seconds: Whether runs of its group had the same seconds, not steps.
        finished: Whether it is over, or may be for all that is known.
        scalars: What was logged, by its own names.
        unknown: Those of them that are no metric.
    """

    name: str
    source: str
    curves: Mapping[str, Curve]
    label: str
    group: str = ""
    adversarial_weight: float | None = None
    steps: int | None = None
    by_seconds: bool = False
    finished: bool = True
    scalars: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read_all(paths: Iterable[Path], names: Mapping[str, str]) -> list[TrainingLog]:
    """The trainings in folders and files; those of one name get their path into it.

    Raises:
        UsageError: See `read_logs`; or a name that was given to no scalar in any of them.
        ResultsError: A damaged record.
    """
    check_names(names)
    each_once = {path.resolve(): path for path in paths}.values()
    logs = [log for path in each_once for log in read_logs(path, names)]
    for name, metric in names.items():
        scalars = dict.fromkeys(each for log in logs for each in log.scalars)
        if not any(_is(name, each) for each in scalars):
            raise bad_value("--map", f"{name}={metric}", f"scalars: {', '.join(scalars)}")
    often = Counter(log.name for log in logs)
    return [
        replace(log, name=f"{log.source}: {log.name}") if often[log.name] > 1 else log
        for log in logs
    ]


def read_logs(path: Path, names: Mapping[str, str]) -> list[TrainingLog]:
    """The trainings in a folder or file, of whichever kind it is.

    Args:
        path: A run or suite of dabench, a CSV file, or an event file or a folder of such at any
            depth, each folder being a run.
        names: Scalar -> metric, besides those known.

    Raises:
        UsageError: Nothing to read, or no scalar that has a metric: they are listed.
        ResultsError: A damaged record.
    """
    if path.is_dir() and has_run(path):
        if kind_of(path) not in (KIND, SUITE):
            raise UsageError(f"{path} holds no trainings")
        return _of_runs(path)
    read = _csv_scalars if path.suffix == ".csv" and path.is_file() else _event_scalars
    found = list(read(path))
    logs = [_log(*each, names) for each in found]
    if not any(log.curves for log in logs):
        scalars = dict.fromkeys(scalar for _, _, curves in found for scalar in curves)
        raise UsageError(
            f"{path}: no scalar has a known name ({', '.join(scalars) or 'it has none'}); say what "
            f"one is with --map NAME=METRIC; metrics: {', '.join(METRICS)}"
        )
    return logs


def check_names(names: Mapping[str, str]) -> None:
    """Checks what scalars are to be taken for.

    Raises:
        UsageError: Something that is no metric.
    """
    for name, metric in names.items():
        if metric not in METRICS:
            raise bad_value("--map", f"{name}={metric}", f"metrics: {', '.join(METRICS)}")


def published_logs() -> list[TrainingLog]:
    """The paper's own trainings (``results/reference/curves.csv``), with what is known of them."""
    facts = {row["run"]: row for row in reference("curve_runs.csv").to_dict("records")}
    logs = []
    for run, rows in reference("curves.csv").groupby("run", sort=False):
        fact = facts[run]
        log = _log(str(run), "published: training curves", _of_table(rows), {})
        weight = float(fact["adversarial_weight"])
        logs.append(
            replace(
                log,
                label=str(fact["label"]),
                group=str(fact["data"]),
                adversarial_weight=None if math.isnan(weight) else weight,
                steps=int(fact["steps_per_epoch"]) * len(log.curves["loss"].points),
            )
        )
    return logs


def _of_table(rows: pd.DataFrame) -> dict[str, Curve]:
    return {
        str(name): Curve(tuple(one["epoch"]), tuple(one["value"]), tuple(one[_TIME]))
        for name, one in rows.groupby("metric", sort=False)
    }


Scalars = tuple[str, str, dict[str, Curve]]
"""A run's name, where it was read, and its scalars by their own names."""


def _csv_scalars(path: Path) -> Iterator[Scalars]:
    runs: dict[str, dict[str, list[tuple[int, float, float]]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in _csv_rows(path, file):
                points = runs.setdefault(row.get("run") or path.stem, {})
                points.setdefault(row["metric"], []).append(_csv_point(path, line, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file of scalars: {clean_line(str(error))}") from None
    if not runs:
        raise UsageError(f"{path}: no scalar in it")
    for run, scalars in runs.items():
        yield run, str(path), {name: _in_order(path, points) for name, points in scalars.items()}


def _csv_rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines and their fields; the point of either name under ``epoch``."""
    table = csv.DictReader(file, strict=True)
    columns = [name.strip() for name in table.fieldnames or ()]
    point = "step" if "step" in columns and "epoch" not in columns else "epoch"
    if missing := [name for name in ("metric", point, "value") if name not in columns]:
        raise UsageError(
            f"{path}: no column {missing[0]!r}; it takes metric, epoch or step, and value, and "
            f"where they are known run and {_TIME}"
        )
    if len(set(columns)) < len(columns):
        raise UsageError(f"{path}: two columns of one name: {', '.join(columns)}")
    table.fieldnames = ["epoch" if name == point else name for name in columns]
    for row in table:
        if None in row or None in row.values():
            raise UsageError(f"{path} line {table.line_num}: not {len(columns)} fields")
        yield table.line_num, row


def _csv_point(path: Path, line: int, row: Mapping[str, str]) -> tuple[int, float, float]:
    numbers = []
    for name in ("epoch", "value", _TIME):
        text = (row.get(name) or "").strip()
        try:
            # Time need not be known.
            number = math.nan if name == _TIME and not text else float(text)
        except ValueError:
            raise UsageError(f"{path} line {line}: {name} {text!r} is no number") from None
        if name == "epoch" and not number.is_integer():
            raise UsageError(f"{path} line {line}: {name} {text!r} is no whole number")
        numbers.append(number)
    return int(numbers[0]), numbers[1], numbers[2]


def _in_order(path: Path, points: Iterable[tuple[int, float, float]]) -> Curve:
    ordered = sorted(points, key=lambda point: point[0])
    twice = [a[0] for a, b in itertools.pairwise(ordered) if a[0] == b[0]]
    if twice:
        raise UsageError(f"{path}: a scalar has two values at {twice[0]}; runs need a column run")
    return Curve(*zip(*ordered, strict=True))


def _is(name: str, scalar: str) -> bool:
    """Whether a scalar goes by a name: its whole one, or what follows its last slash."""
    return name in (scalar, scalar.rpartition("/")[2])


def _log(
    name: str, source: str, scalars: Mapping[str, Curve], names: Mapping[str, str]
) -> TrainingLog:
    curves: dict[str, Curve] = {}
    unknown = dict.fromkeys(scalars)
    for known, metric in {**names, **dict(zip(METRICS, METRICS, strict=True)), **_KNOWN}.items():
        for scalar in scalars:
            if _is(known, scalar):
                curves.setdefault(metric, scalars[scalar])
                unknown.pop(scalar, None)
    for metric in curves.keys() & {"miou", "accuracy"}:
        curves[metric] = _as_share(f"{source}: {name}: {metric}", curves[metric])
    return TrainingLog(
        name=name,
        source=source,
        curves=curves,
        label=_SEED.sub("", name) or name,
        scalars=tuple(scalars),
        unknown=tuple(unknown),
    )


_SEED = re.compile(r"[-_ ./]*seed[-_ =]*[0-9]+", re.IGNORECASE)
"""Of a run's name; runs whose names differ in it alone are seeds of one thing."""


def _as_share(what: str, curve: Curve) -> Curve:
    """A share from 0 to 1, also where it was logged in percent.

    Raises:
        UsageError: It is neither.
    """
    known = [value for value in curve.values if math.isfinite(value)]
    if not known or (min(known) >= 0 and max(known) <= 1):
        return curve
    if not (min(known) >= 0 and max(known) <= 100):
        worst = max(known) if max(known) > 100 else min(known)
        raise UsageError(f"{what}: {worst:g} is not allowed; a share of 0 to 1, or a percentage")
    return replace(curve, values=tuple(value / 100 for value in curve.values))


def _event_scalars(path: Path) -> Iterator[Scalars]:
    files = sorted(path.rglob(f"{_EVENTS}*")) if path.is_dir() else [path]
    files = [file for file in files if file.name.startswith(_EVENTS) and file.is_file()]
    if not files:
        raise UsageError(
            f"{path} holds no training that can be read: a run of dabench, a CSV file of scalars, "
            f"or TensorBoard's event files ({_EVENTS}*)"
        )
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise UsageError(
            f"{path}: TensorBoard reads event files: pip install 'dabench[tensorboard]'"
        ) from None
    for file in files:
        _check_whole(file)
    for folder in dict.fromkeys(file.parent for file in files):
        # 0: every point; the default is a sample of them.
        every = {"scalars": 0, "tensors": 0}
        events = EventAccumulator(str(folder if path.is_dir() else path), every)
        try:
            events.Reload()
            begun = events.FirstEventTimestamp()
        except (DecodeError, ValueError) as error:
            reason = clean_line(str(error)) or type(error).__name__
            raise UsageError(f"{folder}: damaged event file: {reason}") from None
        tags = events.Tags()
        found = {
            tag: _since(begun, ((e.step, e.value, e.wall_time) for e in events.Scalars(tag)))
            for tag in tags["scalars"]
        }
        for tag in tags["tensors"]:
            # TensorFlow 2 keeps scalars as tensors.
            if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                tensors = events.Tensors(tag)
                values = (float(make_ndarray(each.tensor_proto)) for each in tensors)
                points = ((e.step, v, e.wall_time) for e, v in zip(tensors, values, strict=True))
                found[tag] = _since(begun, points)
        name = folder.relative_to(path).as_posix() if path.is_dir() else folder.name
        yield (folder.name if name == "." else name), str(folder), found


def _since(begun: float, points: Iterable[tuple[int, float, float]]) -> Curve:
    """A scalar of event files; where a run went on from an earlier step, that is what counts."""
    kept: list[tuple[int, float, float]] = []
    for step, value, at in points:
        while kept and kept[-1][0] >= step:
            kept.pop()
        kept.append((step, value, at - begun))
    return Curve(*zip(*kept, strict=True))


def _check_whole(file: Path) -> None:
    """Checks that an event file is whole: TensorBoard's reader stops where it is not.

    Raises:
        UsageError: Empty, cut off, damaged, or closed to us.
    """
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    events = 0
    try:
        if file.stat().st_size == 0:
            raise UsageError(f"{file}: empty event file")
        reader = PyRecordReader_New(str(file))
        with contextlib.suppress(OutOfRangeError):
            while True:
                reader.GetNext()
                events += 1
    except DataLossError:
        raise UsageError(f"{file}: damaged or cut off after {events} whole events") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None


_OF_EPOCHS = {
    "loss": "loss",
    "adversarial_loss": "adversarial_loss",
    "disc_loss": "disc_loss",
    "miou": "miou",
    "accuracy": "accuracy",
    "data_s": "data_s",
    "epoch_s": "seconds",
}
"""Metric -> field of `EpochRow`."""


def _of_runs(folder: Path) -> list[TrainingLog]:
    loaded = load_training([folder])
    if loaded.epochs.empty:
        raise UsageError(f"{folder} holds no epoch yet")
    facts = {row["run"]: row for row in loaded.runs.to_dict("records")}
    logs = []
    for run, epochs in loaded.epochs.groupby("run", sort=False):
        curves = {}
        for metric, field in _OF_EPOCHS.items():
            known = epochs[epochs[field].notna()]
            if not known.empty:
                # Times are apart from the start: evaluation is none of an epoch's seconds.
                curves[metric] = Curve(
                    tuple(known["epoch"].astype(int)),
                    tuple(known[field].astype(float)),
                    (math.nan,) * len(known),
                )
        fact = facts[run]
        logs.append(
            TrainingLog(
                name=str(run),
                source=str(folder if folder.name == run else folder / str(run)),
                curves=curves,
                scalars=tuple(curves),
                label=str(fact["label"]),
                group=f"{fact['data']}: {fact['protocol']}",
                adversarial_weight=1.0,  # kept before lambda
                steps=int(epochs["step"].iloc[-1]),
                by_seconds=fact["budget"] == SECONDS,
                finished=fact["status"] == "ok",
            )
        )
    return logs
