"""The Python interface: what the command line does, returning objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

from dabench.base.errors import DabenchError
from dabench.plan.grids import AXIS_KEYS, SETTINGS, arguments_of, load_grids, make_grid, parse
from dabench.plan.networks import spec_of
from dabench.plan.references import is_reference
from dabench.plan.settings import Grid, Settings
from dabench.records.choices import limits_of
from dabench.records.measurements import Measurement
from dabench.run.choosing import Asked, asked_for, check_data, choose_into, data_for
from dabench.run.counts import CountRequest, count_models
from dabench.run.session import NoProgress, Session, run_grids
from dabench.timing.verdicts import DELTA

if TYPE_CHECKING:
    import pandas as pd

    from dabench.counting.counted import ModelCount
    from dabench.findings.choices import Choice
    from dabench.findings.compare import Compared
    from dabench.findings.tables import Results


class TimeResult(Sequence[Measurement]):
    """Measurements of one run, a row per case and phase.

    Where there is just one, its numbers are attributes here too:
    ``result.median_s``. Otherwise pick: ``result["backward"]`` or ``result[0]``.
    """

    def __init__(self, session: Session) -> None:
        if session.outcome.interrupted:
            # The records are kept; the caller's loop must not go on.
            raise KeyboardInterrupt
        self.measurements = session.outcome.measurements
        self.environment = session.environment
        self.folder = session.folder

    def __len__(self) -> int:
        return len(self.measurements)

    @overload
    def __getitem__(self, key: int) -> Measurement: ...
    @overload
    def __getitem__(self, key: slice) -> list[Measurement]: ...
    @overload
    def __getitem__(self, key: str) -> Measurement: ...
    def __getitem__(self, key: int | slice | str) -> Measurement | list[Measurement]:
        if isinstance(key, str):
            found = [row for row in self.measurements if row.phase == key]
            if len(found) != 1:
                raise KeyError(f"{len(found)} rows have the phase {key!r}")
            return found[0]
        return self.measurements[key]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are not attributes of this object.
        if name.startswith("_") or name not in Measurement.__slots__:
            raise AttributeError(name)
        if len(self.measurements) != 1:
            phases = ", ".join(sorted({row.phase for row in self.measurements}))
            n = len(self.measurements)
            raise AttributeError(f"{n} rows have a {name}; pick by index or phase ({phases})")
        return getattr(self.measurements[0], name)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas frame with the vocabulary's columns."""
        from dabench.findings.tables import measurement_frame

        return measurement_frame(self.measurements)


def time(
    model: str | Iterable[str], *, out: str | Path | None = None, **options: Any
) -> TimeResult:
    """Measures a model, or every combination of several options.

    Args:
        model: One name of the registry or several, or references such as
            ``nets.py:build`` and ``timm:resnet18``.
        out: Folder for the raw records; None keeps none.
        **options: The options of ``dabench time`` with underscores, each one
            value or several: ``device``, ``batch``, ``size``, ``mode``,
            ``dtype``, ``memory_format``, ``threads``, ``phase``, ``protocol``,
            ``compile``, ``fuse``, ``runtime``, ``input``, ``calibration``,
            ``keep_float``, ``allocator``, ``rate``, ``concurrency``; ``model_arg``,
            a mapping of keyword arguments for factories; ``warmup``, ``repeat``,
            ``target_ci``, ``max_time``, ``launches``, ``timeout``, ``seed``,
            ``order``. ``max_time`` and ``timeout`` are seconds or a text such as
            ``"2min"``, ``target_ci`` is a fraction or ``"1%"``, ``size`` is
            ``"HxW"`` or (height, width) in pixels.

    Raises:
        UsageError: An option or value that does not exist, or a device this
            machine lacks.
        TypeError: A keyword that is no option.
        DabenchError: The worker process could not be started or describe the machine.
        KeyboardInterrupt: Ctrl-C; what was measured is in ``out``, if given.
    """
    given: Mapping[str, Any] = {"model": model, **options}
    folder = None if out is None else Path(out)
    session = run_grids(
        [grid_of("time()", given)],
        folder=folder,
        observer=NoProgress(),
        command=f"dabench.time({', '.join(f'{k}={v!r}' for k, v in given.items())})",
    )
    return TimeResult(session)


def grid_of(caller: str, given: Mapping[str, Any]) -> tuple[Grid, Settings]:
    """A grid from the options of a call.

    Args:
        caller: For the error, such as ``time()``.
        given: As of `time`, the model among them.

    Raises:
        UsageError: A value that does not exist.
        TypeError: A keyword that is no option.
    """
    unknown = sorted(set(given) - {*AXIS_KEYS, *SETTINGS})
    if unknown:
        raise TypeError(f"{caller} got an unexpected keyword argument {unknown[0]!r}")
    axes = {key: _several(key, given[key]) for key in AXIS_KEYS if given.get(key) is not None}
    settings = {key: parse(key, given[key]) for key in SETTINGS if given.get(key) is not None}
    return make_grid(axes, settings)


def sweep(source: str | Path, *, out: str | Path | None = None) -> TimeResult:
    """Measures a preset (``paper-cpu``, ...) or the grids of a TOML file.

    Raises:
        UsageError: As `time`; also for a file that is not a grid.
    """
    folder = None if out is None else Path(out)
    session = run_grids(
        load_grids(str(source)),
        folder=folder,
        observer=NoProgress(),
        command=f"dabench.sweep({str(source)!r})",
    )
    return TimeResult(session)


def count(
    model: str,
    *,
    batch: int = 1,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    mode: str = "eval",
) -> ModelCount:
    """Counts operations, parameters and bytes; see `dabench.counting.counted.ModelCount`.

    Networks of the registry are counted in this process, others in a worker.

    Raises:
        UsageError: Unknown model or mode, or a size the network cannot take.
        DabenchError: It could not be run at that size.
    """
    item: dict[str, Any] = {
        "batch": batch, "channels": channels, "height": height, "width": width, "mode": mode,
    }  # fmt: skip
    if not is_reference(model):
        from dabench.counting.counts import count_model

        return count_model(model, **item)
    from dabench.counting.counted import ModelCount

    spec_of(model)  # what can be checked before a worker starts
    counted = count_models(CountRequest(items=[{"name": model, **item}]))
    for each in counted.failed:
        raise DabenchError(f"cannot count {model} ({mode}): {each['reason']}")
    return ModelCount.of(counted.counts[0])


def compare(base: str | Path, new: str | Path, *, delta: float = DELTA) -> list[Compared]:
    """Compares the cases that two runs of one machine have in common, as ``dabench compare`` does.

    Args:
        base: Folder of a run.
        new: Of another one.
        delta: Differences of up to this share are called the same.

    Returns:
        Per case and phase; see `dabench.findings.compare.Compared`: ``verdict`` of new against
        base, ``ratio`` with its interval, ``code`` and ``reason`` where it is undecided.

    Raises:
        UsageError: No timings there, two machines, or no case in common.
        ResultsError: A damaged file, named with its line.
    """
    from dabench.findings.compare import compare_runs

    return compare_runs(Path(base), Path(new), delta)


def choose(
    models: str | Iterable[str] = (),
    *,
    checkpoints: str | Path | Iterable[str | Path] = (),
    ways: str | Iterable[str] = (),
    data: str | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Choice:
    """Says which network to deploy, run how.

    Args:
        models: Names or references, as of `time`.
        checkpoints: Runs of ``dabench train``, scored on ``data``.
        ways: Names such as ``"nhwc+fuse"`` and ``"openvino"``; none takes the usual ones.
        data: The domain that checkpoints are scored on, such as ``"camvid:dusk"``.
        split: Of it; None is the one that is reported.
        out: Folder for the raw records; None keeps none.
        **options: ``deadline`` and ``max_time`` (seconds, or a text such as ``"33ms"``),
            ``percentile``, ``miou`` (a fraction or ``"70%"``), ``memory`` (bytes or ``"1G"``) and
            ``energy`` (joules); ``device``, ``batch``, ``size``, ``threads``, ``seed`` as of
            `time`, one value each.

    Returns:
        What keeps every limit, the front, and the one to take; ``to_frame()`` has a row for every
        way.

    Raises:
        UsageError: An option or value that does not exist, or a device this machine lacks.
        TypeError: A keyword that is no option.
        KeyboardInterrupt: Ctrl-C; what was measured is in ``out``, if given.
    """
    from dabench.findings.choices import choice_of

    given = {"models": models, "checkpoints": checkpoints, "ways": ways, **options}
    asked = _asked(given)
    check_data(asked.models, asked.limits, data)
    opened = None if data is None else data_for(data, split, asked.models, {})
    with TemporaryDirectory(prefix="dabench-") as passing:
        folder = Path(passing) / "choice" if out is None else Path(out)
        choose_into(
            folder,
            asked,
            opened,
            command=f"dabench.choose({', '.join(f'{k}={v!r}' for k, v in given.items())})",
            observer=NoProgress(),
            told=lambda case: None,
        )
        return choice_of(folder)


_LIMITS = ("deadline", "percentile", "miou", "memory", "energy", "max_time")
_SHAPE = ("device", "batch", "size", "threads")


def _asked(given: Mapping[str, Any]) -> Asked:
    """What a call of `choose` asks."""
    unknown = sorted(given.keys() - {"models", "checkpoints", "ways", "seed", *_LIMITS, *_SHAPE})
    if unknown:
        raise TypeError(f"choose() got an unexpected keyword argument {unknown[0]!r}")
    several = {
        key: [given[key]] if isinstance(given[key], str | Path) else list(given[key])
        for key in ("models", "checkpoints", "ways")
    }
    shape = {key: _several(key, given[key]) for key in _SHAPE if key in given}
    return asked_for(
        models=tuple(map(str, several["models"])),
        checkpoints=tuple(map(str, several["checkpoints"])),
        ways=tuple(map(str, several["ways"])),
        limits=limits_of({key: given[key] for key in _LIMITS if key in given}),
        shape=shape,
        seed=int(given.get("seed", 0)),
    )


def load_results(*folders: str | Path) -> Results:
    """Reads the records of runs; see `dabench.findings.tables.Results`.

    Raises:
        UsageError: A folder without a run, or with one of a newer dabench.
        ResultsError: A damaged file, named with its line.
    """
    from dabench.findings.tables import load

    return load([Path(folder) for folder in folders])


def _several(key: str, values: object) -> tuple[Any, ...]:
    """One value or several, each parsed; sizes may also be (height, width).

    Arguments of factories are a mapping.
    """
    if key == "model_arg" and isinstance(values, Mapping):
        return arguments_of(values)
    if key == "size" and isinstance(values, tuple) and all(isinstance(v, int) for v in values):
        return (values,)
    if isinstance(values, Iterable) and not isinstance(values, str):
        return tuple(v if isinstance(v, tuple) else parse(key, v) for v in values)
    return (parse(key, values),)
