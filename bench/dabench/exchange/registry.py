"""Formats by name, and which a file is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from dabench.base.errors import ResultsError, UsageError, check_choice
from dabench.device.machine import machine_key
from dabench.exchange.document import KEY, read_json
from dabench.exchange.runs import Format, check_run, keep, whole_run

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "csv": "flat:Csv",
        "parquet": "flat:Parquet",
        "json": "document:Document",
        "pytest-benchmark": "pytest_benchmark:PytestBenchmark",
        "timm": "timm:Timm",
        "nvbench": "nvbench:Nvbench",
    }
)
"""Name -> module and class."""

ONE_MACHINE = ("pytest-benchmark", "timm", "nvbench")
"""Those in which rows do not say where they were measured."""

IMPORTS = tuple(name for name in FORMATS if name != "timm")
"""Those that carry samples."""


def format_of(name: str) -> Format:
    """A format by its name.

    Raises:
        UsageError: There is none of that name.
    """
    check_choice("--format", name, FORMATS)
    module, _, kind = FORMATS[name].partition(":")
    made: Format = getattr(import_module(f"dabench.exchange.{module}"), kind)()
    return made


def export_runs(runs: Sequence[Path], name: str, out: Path) -> list[str]:
    """Writes runs to a file.

    Returns:
        What the format cannot hold of them, a line each.

    Raises:
        UsageError: No such format, no timings in a run, or the file is there already.
        ResultsError: Damaged records.
    """
    chosen = format_of(name)
    if out.exists():
        raise UsageError(f"--out: {str(out)!r} exists already; choose another name")
    whole = [whole_run(path) for path in runs]
    for path, run in zip(runs, whole, strict=True):
        if not run.launches:
            raise UsageError(f"{path} is empty: nothing was measured")
    _check_names([run.run_id for run in whole])
    machines = {machine_key(run.document["environment"]) for run in whole}
    if name in ONE_MACHINE and len(machines) > 1:
        raise UsageError(f"--format: a file of {name} is of one machine, these runs are not")
    try:
        return chosen.write(whole, out)
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(out)!r}: {error.strerror}") from None


def import_file(path: Path, name: str | None, into: Path) -> list[Path]:
    """Makes runs of a file; none if one of them is there already.

    Args:
        path: The file.
        name: Its format; None finds out.
        into: Where the runs' folders go.

    Raises:
        UsageError: A format without samples, an unknown one, or a run of that name is there.
        ResultsError: Damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    chosen = name or _guessed(path)
    try:
        runs = format_of(chosen).read(path)
        if not any(run.launches for run in runs):
            raise UsageError(f"{path} holds no samples")
        for run in runs:
            check_run(run, path)
        _check_names([run.run_id for run in runs])
        for run in runs:
            if (into / run.run_id).exists():
                raise UsageError(f"{into / run.run_id} is there already; nothing was imported")
        return keep(runs, into, path)
    except _NOT_OURS as error:
        raise ResultsError(f"{path}: not of the format {chosen}: {error!r}") from error


_NOT_OURS = (
    KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, IndexError,
)  # fmt: skip
"""What reading a file raises that says something else than it should."""


def _check_names(names: Sequence[str]) -> None:
    """Checks that runs can be told apart by their names.

    Raises:
        UsageError: They cannot.
    """
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two runs are called {name}; take one at a time")


def _guessed(path: Path) -> str:
    if path.suffix in (".csv", ".parquet"):
        return path.suffix[1:]
    if path.suffix == ".json":
        document = read_json(path)
        keys = document.keys() if isinstance(document, dict) else set()
        if "machine_info" in keys:
            return "pytest-benchmark"
        if KEY in keys:
            return "json"
        if "devices" in keys and "benchmarks" in keys:
            return "nvbench"
    raise UsageError(f"{path}: of no known format; name one with --format: {', '.join(IMPORTS)}")
