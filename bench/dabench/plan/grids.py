"""Grids from TOML files and presets.

A file holds one or more ``[[grid]]`` tables whose keys are the options of
``dabench time``, each a value or a list::

    [[grid]]
    model = ["disc", "dw-disc"]
    batch = [1, 8]
    mode = ["train", "eval"]
    phase = "forward"
    launches = 5
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dabench.base.errors import DabenchError, UsageError, bad_value
from dabench.base.units import parse_duration, parse_fraction
from dabench.plan.axes import AXES
from dabench.plan.references import check_argument, parse_argument
from dabench.plan.settings import Grid, Settings

AXIS_KEYS = (*AXES, "model_arg")
"""Keys of a file that take several values; with dashes, options of the command line."""

SETTINGS = {
    "warmup": "warmup",
    "repeat": "repeat",
    "target_ci": "target_ci",
    "max_time": "max_time_s",
    "launches": "launches",
    "timeout": "timeout_s",
    "seed": "seed",
    "order": "order",
}
_WHOLE = {"warmup", "repeat", "launches", "seed"}


def presets() -> list[str]:
    """Names of the grids that come with dabench."""
    folder = resources.files("dabench.plan") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def load_grids(
    source: str,
    axes: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> list[tuple[Grid, Settings]]:
    """Reads a preset by name or a TOML file by path.

    Args:
        source: Either.
        axes: Keys of `AXIS_KEYS` whose values replace the file's.
        settings: Keys of `SETTINGS`, likewise.

    Raises:
        UsageError: Neither, or the file says something no grid can say.
    """
    if source in presets():
        text = (resources.files("dabench.plan") / "presets" / f"{source}.toml").read_text("utf-8")
    elif source.endswith(".toml"):
        try:
            # Windows editors begin UTF-8 files with a mark.
            text = Path(source).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the grid file {source!r}: {error}") from None
    else:
        allowed = f"presets: {', '.join(presets())}; or the path of a .toml file"
        raise bad_value("--preset", source, allowed)
    import tomllib

    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{source}: not TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{source}: not TOML: nested too deeply") from None
    unknown = set(document) - {"grid"}
    tables = document.get("grid")
    if unknown or not isinstance(tables, list) or not tables:
        what = f"unknown key {min(unknown)!r}" if unknown else "nothing to measure"
        raise UsageError(f"{source}: {what}; a grid file holds [[grid]] tables")
    return [_table(source, table, axes, settings) for table in tables]


def make_grid(
    axes: Mapping[str, tuple[Any, ...]], settings: Mapping[str, Any]
) -> tuple[Grid, Settings]:
    """Makes a grid and its settings from option names and values.

    Args:
        axes: Keys of `AXIS_KEYS`; empty tuples are left at their default.
        settings: Keys of `SETTINGS`; None is left at its default.

    Raises:
        UsageError: A value that an option does not take, or an input size
            given twice.
    """
    keys = [key for key, _ in axes.get("model_arg", ())]
    if again := [key for key in keys if keys.count(key) > 1]:
        raise bad_value("--model-arg", again[0], "it is given twice")
    split: dict[str, Any] = split_input(axes)
    arguments = split.pop("model_arg", ())
    named = {AXES[key].field: values for key, values in split.items() if values}
    grid = Grid(**named, model_args=arguments)
    given = {SETTINGS[key]: value for key, value in settings.items() if value is not None}
    return grid, Settings.of(**given)


def split_input(axes: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Axes with the shapes among ``input`` moved to ``size``.

    ``input`` says where the input lies, how large it is, or both.

    Raises:
        UsageError: ``size`` is given too.
    """
    values = axes.get("input", ())
    shapes = tuple(value for value in values if isinstance(value, tuple))
    if not shapes:
        return dict(axes)
    if axes.get("size"):
        shape = "x".join(map(str, shapes[0]))
        raise bad_value("--input", shape, "--size gives the size already; name one")
    sources = tuple(value for value in values if value not in shapes)
    rest = {key: value for key, value in axes.items() if key != "input"}
    return {**rest, "size": shapes, **({"input": sources} if sources else {})}


def _table(
    source: str, table: object, axes: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Grid, Settings]:
    known = (*AXIS_KEYS, *SETTINGS)
    if not isinstance(table, dict):
        raise UsageError(f"{source}: {table!r} is not a [[grid]] table")
    for key in table:
        if key not in known:
            raise UsageError(f"{source}: unknown key {key!r}; known: {', '.join(known)}")
    if "model" not in table:
        raise UsageError(f"{source}: a [[grid]] without 'model'")
    try:
        own_axes = {key: _axis(key, table[key]) for key in AXIS_KEYS if key in table}
        own = {key: parse(key, table[key]) for key in SETTINGS if key in table}
        # Each split by itself: a shape from the command line replaces the file's.
        return make_grid({**split_input(own_axes), **split_input(axes)}, {**own, **settings})
    except DabenchError as error:
        raise UsageError(f"{source}: {error}") from None


def _axis(key: str, values: object) -> tuple[Any, ...]:
    if key == "model_arg" and isinstance(values, Mapping):
        return arguments_of(values)
    if values == []:
        raise bad_value("--" + key.replace("_", "-"), values, "it takes at least one value")
    return tuple(parse(key, value) for value in (values if isinstance(values, list) else [values]))


def arguments_of(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Keyword arguments for factories from a table or a mapping.

    Raises:
        UsageError: A key or a value that no reference can hold.
    """
    for key, value in values.items():
        try:
            check_argument(key, value)
        except ValueError:
            raise bad_value("--model-arg", f"{key}={value}", _FORMS["model_arg"]) from None
    return tuple(values.items())


def parse(key: str, value: object) -> Any:
    """Reads one value of an option, from a string or a TOML value.

    Raises:
        UsageError: Not a value of that option; the message says what is.
    """
    if key in AXES:
        return AXES[key].parse(value)
    option = "--" + key.replace("_", "-")
    text = str(value).strip()
    try:
        if key in _WHOLE:
            return int(text)
        if key == "model_arg":
            return parse_argument(text)
        if key == "target_ci":
            return parse_fraction(text)
        if key in ("max_time", "timeout"):
            return parse_duration(text)
    except ValueError:
        raise bad_value(option, value, _FORMS.get(key, "it takes whole numbers")) from None
    return text


_FORMS = {
    "model_arg": "it takes key=value with a Python literal or a text, such as num_classes=19",
    "target_ci": "it takes a percentage such as 1%",
    "max_time": "it takes seconds, or a number with ms, s, min or h",
    "timeout": "it takes seconds, or a number with ms, s, min or h",
}
