"""Units at the edge where a person reads or types; seconds and bytes inside."""

from __future__ import annotations

import re

from dabench.base.errors import bad_value

_SIZE = re.compile(r"\d+x\d+")
_SHAPE = re.compile(r"\d+x\d+x\d+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_size(text: str) -> tuple[int, ...]:
    """Reads ``HxW``, such as ``512x1024``, as (height, width) in pixels.

    Raises:
        ValueError: Not of that form.
    """
    return _sides(_SIZE, text)


def parse_shape(text: str) -> tuple[int, ...]:
    """Reads ``CxHxW``, such as ``3x512x1024``, as (channels, height, width).

    Raises:
        ValueError: Not of that form.
    """
    return _sides(_SHAPE, text)


def _sides(form: re.Pattern[str], text: str) -> tuple[int, ...]:
    match = form.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(text)
    return tuple(map(int, match[0].split("x")))


def parse_fraction(text: str) -> float:
    """Reads ``1%`` or ``0.01`` as 0.01.

    Raises:
        ValueError: Not a number.
    """
    stripped = text.strip()
    if stripped.endswith("%"):
        return float(stripped[:-1]) / 100
    return float(stripped)


def threshold_of(name: str, value: object) -> float:
    """A fraction as typed: at least 0 and below 1.

    Args:
        name: Of the option, for the error.
        value: A text such as ``5%``, or a number.

    Raises:
        UsageError: It is none.
    """
    allowed = "it takes a percentage such as 2%, below 100%"
    try:
        fraction = parse_fraction(str(value))
    except ValueError:
        raise bad_value(name, value, allowed) from None
    if not 0 <= fraction < 1:
        raise bad_value(name, value, allowed)
    return fraction


def parse_duration(text: str) -> float:
    """Reads ``90``, ``90s``, ``1.5min``, ``200ms``, ``1h`` or ``30d`` as seconds.

    Raises:
        ValueError: Not of that form.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2] or "s"]


_BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(text: str) -> float:
    """Reads ``1G``, ``1GiB``, ``512 MB`` or ``4096``: binary units, however they are written.

    Raises:
        ValueError: Not of that form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _BYTES[match[2]]


def format_seconds(value: float | None, digits: int = 3) -> str:
    """Formats seconds with a fitting unit: ``1.23 s``, ``4.56 ms``, ``7.89 µs``."""
    if value is None or value != value:  # NaN is the only value unequal to itself
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if _rounded(value, digits) >= scale:
            return f"{significant(value / scale, digits)} {unit}"
    return f"{significant(value / 1e-9, digits)} ns"


def format_share(share: float) -> str:
    """A share in percent, with no more digits than it has: ``99.9%``."""
    return f"{100 * share:.6g}%"


def format_interval(low: float, high: float) -> str:
    """Formats two times with one unit, that of the larger: ``0.61 to 1.03 ms``."""
    if low != low or high != high:
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if _rounded(high) >= scale or unit == "ns":
            break
    return f"{significant(low / scale)} to {significant(high / scale)} {unit}"


def format_bytes(value: float | None) -> str:
    """Formats bytes in binary units: ``1.5 GiB``."""
    if value is None or value != value:
        return "-"
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if _rounded(size, 4) < 1024:
            return f"{significant(size)} {unit}"
        size /= 1024
    return f"{significant(size)} GiB"


def format_count(value: float | None) -> str:
    """Formats a large count: ``15.4 G``, ``191 k``, ``12``."""
    if value is None or value != value:
        return "-"
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if _rounded(value) >= scale:
            return f"{significant(value / scale)} {unit}"
    return significant(value)


def significant(value: float, digits: int = 3) -> str:
    """Formats to ``digits`` significant digits, and whole numbers above them in full."""
    if value != value:
        return "-"
    if value == 0:
        return "0"
    if _rounded(value, digits) >= 10**digits:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def _rounded(value: float, digits: int = 3) -> float:
    """The magnitude that will be shown: 0.99996 is one, and takes its unit."""
    return abs(float(f"{value:.{digits}g}"))


def format_launches(count: int) -> str:
    """``1 launch``, ``2 launches``."""
    return f"{count} launch{'es' if count > 1 else ''}"


def format_threads(count: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} thread{'s' if count > 1 else ''}"
