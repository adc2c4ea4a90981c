"""Options that several commands share; those of a sweep's axes are made from `plan.axes`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value, check_choice
from dabench.plan.axes import AXES
from dabench.plan.grids import AXIS_KEYS, SETTINGS, make_grid, parse
from dabench.plan.references import split_names
from dabench.plan.settings import ORDERS, Grid, Settings

Several = list[str] | None


def option(flag: str, text: str, choices: Iterable[str] = ()) -> Any:
    """An option whose name in capitals stands for its value."""
    listed = f" Choices: {', '.join(choices)}." if choices else ""
    metavar = flag.removeprefix("--").upper().replace("-", "_")
    return typer.Option(flag, metavar=metavar, help=text + listed, show_default=False)


def axis_option(key: str) -> Any:
    """The option of an axis."""
    axis = AXES[key]
    # The kinds of devices are in its text, which says more of them.
    return option(axis.option, axis.help, () if key == "device" else axis.choices)


Inputs = Annotated[Several, axis_option("input")]
ModelArgs = Annotated[
    Several, option("--model-arg", "key=value for the factory of a network from outside.")
]
Pretrained = Annotated[
    str | None,
    option(
        "--pretrained", "Whether factories may fetch trained weights. Default off.", ("off", "on")
    ),
]
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

_SETTINGS: Mapping[str, Any] = {
    "warmup": option("--warmup", "Fewest warm-up passes; more follow until steady. Default 2."),
    "repeat": option("--repeat", "Samples per launch. Default: until --target-ci."),
    "target_ci": option(
        "--target-ci", "Stop at this half-width of the 95% interval, such as 1%. Default 5%."
    ),
    "max_time": option(
        "--max-time", "Sampling time per case, over all launches and phases. Default 30s."
    ),
    "launches": option(
        "--launches", "Fresh processes per case. Default: 3, more while time allows."
    ),
    "timeout": option("--timeout", "Ends a launch that takes longer. Default 30min."),
    "seed": option("--seed", "Of weights, inputs and launch order. Default 0."),
    "order": option("--order", "Of launches. Default interleaved.", ORDERS),
}

OPTIONS: Mapping[str, Any] = {
    **{key: Annotated[Several, axis_option(key)] for key in AXES},
    "model_arg": ModelArgs,
    "pretrained": Pretrained,
    **{key: Annotated[str | None, each] for key, each in _SETTINGS.items()},
}
"""Key -> type of the parameter of each option of a sweep."""


def with_options(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds options of `OPTIONS` to a command, before its own; they arrive in its ``**given``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        added = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OPTIONS[key]
            )
            for key in keys
        ]
        kept = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in own.parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        signature = own.replace(parameters=[*added, *kept])
        vars(command)["__signature__"] = signature
        command.__annotations__ = {
            **{each.name: each.annotation for each in signature.parameters.values()},
            "return": None,
        }
        return command

    return decorate


def named(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options a user gave, by name; ``--pretrained`` is applied here and left out.

    Args:
        options: The command's ``locals()``: None and False are options not given, a trailing
            underscore (``input_``) is dropped, and those within ``given`` are included.

    Raises:
        UsageError: ``--pretrained`` is neither ``on`` nor ``off``.
    """
    every = {**options, **options.get("given", {})}
    every.pop("given", None)
    given = {k.rstrip("_"): v for k, v in every.items() if v is not None and v is not False}
    set_pretrained(given.pop("pretrained", None))
    return given


def set_pretrained(choice: str | None) -> None:
    """Sets for workers started from now on whether factories may fetch trained weights.

    Raises:
        UsageError: Neither ``on`` nor ``off``.
    """
    if choice is None:
        return
    check_choice("--pretrained", choice, ("off", "on"))
    os.environ["DABENCH_PRETRAINED"] = choice


def check_file_name(option: str, name: str) -> None:
    """Checks a name that files are to have.

    Raises:
        UsageError: It is empty, or has folders.
    """
    if not name or Path(name).name != name:
        raise bad_value(option, name, "it takes a file name without folders")


_ELSE_CALLED = {
    "checkout": "--source", "source": "PRESET|FILE.toml", "adversarial_weight": "--lambda",
    "aux_weight": "--aux-lambda", "evaluation": "--eval", "split": "--eval-split",
    "quick": "--quick/--full", "timing": "--timing/--no-timing", "pair": "PAIR", "first": "FIRST",
    "second": "SECOND", "checkpoint": "CHECKPOINT", "base": "BASE", "new": "NEW",
}  # fmt: skip
"""Parameters that a user knows by another name."""


def check_alone(given: Mapping[str, Any], also: frozenset[str] | set[str] = frozenset()) -> None:
    """Checks that ``--resume`` is given without options that would change the run.

    Args:
        given: What `named` returned.
        also: Further options that are allowed, since they only change what is printed.

    Raises:
        UsageError: Another option is given.
    """
    allowed = {"resume_from", "quiet", "json", *also}
    if others := sorted(given.keys() - allowed):
        name = _ELSE_CALLED.get(others[0], f"--{others[0].replace('_', '-')}")
        raise UsageError(f"--resume goes on as planned; leave out {name!r}")


def grid_of(given: Mapping[str, Any]) -> tuple[Grid, Settings]:
    """A grid from option values as typed: lists of strings, each perhaps with commas."""
    return make_grid(*typed(given))


def typed(given: Mapping[str, Any]) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """The axes and the settings among the options."""
    axes = {key: _values(key, given[key]) for key in AXIS_KEYS if key in given}
    return axes, {key: parse(key, given[key]) for key in SETTINGS if key in given}


def _values(key: str, values: Iterable[str]) -> tuple[Any, ...]:
    # An argument's value may hold commas.
    split = values if key == "model_arg" else [p for text in values for p in split_names(text)]
    return tuple(parse(key, part) for part in split)
