"""``dabench time`` and ``dabench sweep``."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value
from dabench.cli.output import console, print_json, print_measurements
from dabench.plan.grids import AXES, SETTINGS, load_grids, make_grid, parse, presets
from dabench.plan.references import FORMS, split_names
from dabench.plan.settings import (
    COMPILES,
    DTYPES,
    FUSES,
    INPUTS,
    MEMORY_FORMATS,
    MODES,
    ORDERS,
    PHASES,
    PROTOCOLS,
    RUNTIMES,
    Grid,
    Settings,
)

if TYPE_CHECKING:
    from dabench.run.runner import Observer
    from dabench.run.session import Session

INTERRUPTED = 130

Several = list[str] | None


def _option(flag: str, text: str, choices: Iterable[str] = ()) -> Any:
    listed = f" Choices: {', '.join(choices)}." if choices else ""
    metavar = flag.removeprefix("--").upper().replace("-", "_")
    return typer.Option(flag, metavar=metavar, help=text + listed, show_default=False)


Devices = Annotated[
    Several, _option("--device", "auto (the best there is), cpu, cuda[:N], mps, xla.")
]
Batches = Annotated[Several, _option("--batch", "Images per pass. Default 1.")]
Sizes = Annotated[Several, _option("--size", "HxW of the input. Default: the model's own.")]
Modes = Annotated[Several, _option("--mode", "Default eval.", MODES)]
Dtypes = Annotated[Several, _option("--dtype", "With a ?: only if native. Default fp32.", DTYPES)]
Formats = Annotated[Several, _option("--memory-format", "Default nchw.", MEMORY_FORMATS)]
Threads = Annotated[Several, _option("--threads", "Threads of CPU kernels. Default: torch's.")]
Phases = Annotated[Several, _option("--phase", "Default: all of the mode.", PHASES)]
Protocols = Annotated[Several, _option("--protocol", "Default steady.", PROTOCOLS)]
Compiles = Annotated[
    Several, _option("--compile", "torch.compile; compiling is not timed. Default off.", COMPILES)
]
Fuses = Annotated[
    Several, _option("--fuse", "Fold batch norm into convolutions. Default off.", FUSES)
]
Runtimes = Annotated[
    Several, _option("--runtime", "What runs the network. Default eager.", RUNTIMES)
]
Inputs = Annotated[
    Several,
    _option(
        "--input",
        "host: the copy to the device and the argmax belong to the pass. Default device. "
        "CxHxW: the input's shape.",
        INPUTS,
    ),
]
ModelArgs = Annotated[
    Several, _option("--model-arg", "key=value for the factory of a network from outside.")
]
Pretrained = Annotated[
    str | None,
    _option(
        "--pretrained", "Whether factories may fetch trained weights. Default off.", ("off", "on")
    ),
]
Warmup = Annotated[
    str | None, _option("--warmup", "Fewest warm-up passes; more follow until steady. Default 2.")
]
Repeat = Annotated[
    str | None, _option("--repeat", "Samples per launch. Default: until --target-ci.")
]
TargetCi = Annotated[
    str | None,
    _option("--target-ci", "Stop at this half-width of the 95% interval, such as 1%. Default 5%."),
]
MaxTime = Annotated[
    str | None,
    _option("--max-time", "Sampling time per case, over all launches and phases. Default 30s."),
]
Launches = Annotated[
    str | None,
    _option("--launches", "Fresh processes per case. Default: 3, more while time allows."),
]
Timeout = Annotated[
    str | None, _option("--timeout", "Ends a launch that takes longer. Default 30min.")
]
Seed = Annotated[str | None, _option("--seed", "Of weights, inputs and launch order. Default 0.")]
Order = Annotated[str | None, _option("--order", "Of launches. Default interleaved.", ORDERS)]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the raw records. Default: a new one under results/."),
]
ResumeFrom = Annotated[
    Path | None,
    typer.Option("--resume", metavar="RUN", help="Continue the interrupted run in this folder."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the table.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def time(
    model: Annotated[Several, _option("--model", f"Names of 'dabench models', or {FORMS}.")] = None,
    device: Devices = None,
    batch: Batches = None,
    size: Sizes = None,
    mode: Modes = None,
    dtype: Dtypes = None,
    memory_format: Formats = None,
    threads: Threads = None,
    phase: Phases = None,
    protocol: Protocols = None,
    compile_: Compiles = None,
    fuse: Fuses = None,
    runtime: Runtimes = None,
    input_: Inputs = None,
    model_arg: ModelArgs = None,
    pretrained: Pretrained = None,
    warmup: Warmup = None,
    repeat: Repeat = None,
    target_ci: TargetCi = None,
    max_time: MaxTime = None,
    launches: Launches = None,
    timeout: Timeout = None,
    seed: Seed = None,
    order: Order = None,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Time forward, backward and optimiser of models.

    Options take several values, repeated or separated by commas; every
    combination is a case, measured in fresh processes.

    Example: dabench time --model disc,dw-disc --batch 8 --mode train,eval
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given)
        continue_timing(resume_from, quiet=quiet, json=json)
        return
    if not model:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    grid = grid_of(given)
    _measure([grid], out=out, name=f"time-{_names(grid[0])}", quiet=quiet, json=json)


def sweep(
    source: Annotated[
        str | None, typer.Argument(metavar="PRESET|FILE.toml", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, _option("--preset", "The same as the argument.", presets())
    ] = None,
    resume_from: ResumeFrom = None,
    model: Annotated[Several, _option("--model", "Names, in place of the grid's.")] = None,
    device: Devices = None,
    batch: Batches = None,
    size: Sizes = None,
    mode: Modes = None,
    dtype: Dtypes = None,
    memory_format: Formats = None,
    threads: Threads = None,
    phase: Phases = None,
    protocol: Protocols = None,
    compile_: Compiles = None,
    fuse: Fuses = None,
    runtime: Runtimes = None,
    input_: Inputs = None,
    model_arg: ModelArgs = None,
    pretrained: Pretrained = None,
    warmup: Warmup = None,
    repeat: Repeat = None,
    target_ci: TargetCi = None,
    max_time: MaxTime = None,
    launches: Launches = None,
    timeout: Timeout = None,
    seed: Seed = None,
    order: Order = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure a preset, the grids of a TOML file, or what the options say.

    The options of 'dabench time' replace a grid's own values; without a preset
    or file they are the grid.

    Example: dabench sweep --model disc,dw-disc --batch 1,8
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given)
        continue_timing(resume_from, quiet=quiet, json=json)
        return
    if source and preset:
        raise UsageError(f"--preset: {preset!r} beside {source!r}; name one")
    chosen = source or preset
    if chosen is not None:
        grids, name = load_grids(chosen, *_typed(given)), Path(chosen).stem
    elif model:
        grids = [grid_of(given)]
        name = f"sweep-{_names(grids[0][0])}"
    else:
        raise UsageError(f"sweep needs a preset ({', '.join(presets())}), a .toml file or --model")
    _measure(grids, out=out, name=name, quiet=quiet, json=json)


def _names(grid: Grid) -> str:
    return "-".join(dict.fromkeys(grid.models))[:60]


def check_alone(given: dict[str, Any], also: frozenset[str] | set[str] = frozenset()) -> None:
    """Checks that nothing is asked of a run that goes on as it was planned.

    Args:
        given: Of `named`.
        also: Options that say how it is shown.

    Raises:
        UsageError: Something is.
    """
    allowed = {"resume_from", "quiet", "json", *also}
    if others := sorted(given.keys() - allowed):
        raise UsageError(f"--resume goes on as planned; leave out {others[0]!r}")


def named(options: dict[str, Any]) -> dict[str, Any]:
    """The options a user gave, by name: those that are words of Python end in an underscore."""
    given = {k.rstrip("_"): v for k, v in options.items() if v is not None and v is not False}
    set_pretrained(given.pop("pretrained", None))
    return given


def set_pretrained(choice: str | None) -> None:
    """Tells the workers to come whether factories may fetch trained weights.

    Raises:
        UsageError: Neither ``on`` nor ``off``.
    """
    if choice is None:
        return
    if choice not in ("on", "off"):
        raise bad_value("--pretrained", choice, "choices: off, on")
    os.environ["DABENCH_PRETRAINED"] = choice


def grid_of(given: dict[str, Any]) -> tuple[Grid, Settings]:
    """A grid from option values as typed: lists of strings, each perhaps with commas."""
    return make_grid(*_typed(given))


def _typed(given: dict[str, Any]) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """The axes and the settings among the options."""
    axes = {key: _values(key, given[key]) for key in AXES if key in given}
    return axes, {key: parse(key, given[key]) for key in SETTINGS if key in given}


def _values(key: str, typed: Iterable[str]) -> tuple[Any, ...]:
    # An argument's value may hold commas.
    split = typed if key == "model_arg" else [p for text in typed for p in split_names(text)]
    return tuple(parse(key, part) for part in split)


def _measure(
    grids: list[tuple[Grid, Settings]], *, out: Path | None, name: str, quiet: bool, json: bool
) -> None:
    from dabench.records.folder import new_run_folder

    command = shlex.join(["dabench", *sys.argv[1:]])
    with new_run_folder(out, name) as folder:
        run_timing(grids, folder, command=command, quiet=quiet, json=json)


def run_timing(
    grids: list[tuple[Grid, Settings]], folder: Path, *, command: str, quiet: bool, json: bool
) -> None:
    """Measures grids into a new folder; prints the rows."""
    from dabench.run.session import run_grids

    _show(
        lambda observer: run_grids(grids, folder=folder, observer=observer, command=command),
        quiet=quiet,
        json=json,
    )


def continue_timing(folder: Path, *, quiet: bool, json: bool) -> None:
    """Continues the run in a folder; prints its rows."""
    from dabench.run.session import resume

    _show(lambda observer: resume(folder, observer=observer), quiet=quiet, json=json)


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Observer]:
    """A bar that shows the launches, or nothing."""
    from dabench.run.session import NoProgress

    if quiet:
        yield NoProgress()
        return
    from dabench.cli.progress import LiveProgress

    with LiveProgress() as observer:
        yield observer


def _show(run: Callable[[Observer], Session], *, quiet: bool, json: bool) -> None:
    """Runs with progress, then prints rows; says where the records are."""
    with progress(quiet=quiet or json) as observer:
        session = run(observer)
    rows = session.outcome.measurements
    if json:
        measurements = [row.to_dict() for row in rows]
        print_json({"environment": session.environment, "measurements": measurements})
    else:
        print_measurements(rows)
        if not quiet:
            console(stderr=True).print(f"Records: {session.folder}", markup=False)
    if session.outcome.interrupted:
        if not json:
            again = f"dabench sweep --resume {session.folder}"
            console(stderr=True).print(f"Interrupted; '{again}' continues.", markup=False)
        raise typer.Exit(INTERRUPTED)
    if not any(row.status == "ok" for row in rows):
        raise typer.Exit(1)
