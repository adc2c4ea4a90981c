"""Fields of dataclasses that come from files: of the types that they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "bool": bool,
}  # fmt: skip


@cache
def _simple(kind: Any) -> Mapping[str, tuple[str, bool]]:
    """Field -> its type's name and whether it may be None; of those that are words or numbers."""
    found = {}
    for each in fields(kind):
        name, optional, _ = str(each.type).partition(" | None")
        if name in _TYPES:
            found[each.name] = (name, bool(optional))
    return found


def check_types(kind: Any, values: Mapping[str, Any]) -> None:
    """Checks words and numbers that are to be fields of a dataclass.

    Raises:
        TypeError: One is of another type; the message names it.
    """
    simple = _simple(kind)
    for name, value in values.items():
        if name not in simple:
            continue
        wanted, may_lack = simple[name]
        if value is None and may_lack:
            continue
        # True is 1 to Python.
        if not isinstance(value, _TYPES[wanted]) or isinstance(value, bool) > (wanted == "bool"):
            raise TypeError(f"{name} {value!r}")
