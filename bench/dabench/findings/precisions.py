"""What a precision buys: the fastest way in each, against the fastest in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dabench.findings.tables import (
    VARIANT_SETTING,
    Results,
    by_setting,
    compared,
    variant_in_words,
)

FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Bought:
    """The fastest way in one precision beside the fastest in fp32, of one network and setting.

    Attributes:
        row: Of the measurements, with ``variant``: the fastest in the precision.
        base: The fastest in fp32.
        found: What `compared` says of the one against the other.
    """

    row: dict[str, Any]
    base: dict[str, Any]
    found: dict[str, Any]


def bought(loaded: Results) -> list[Bought]:
    """Every precision that was run beside fp32, in the order in which they come.

    Of inference pass by pass, by one process alone, on an input that lies on the device.
    The fastest are chosen by the same samples that they are compared by: of ways that are close
    the choice is as uncertain as their times.
    """
    rows = loaded.measurements
    good = rows[
        (rows["status"] == "ok")
        & (rows["mode"] == "eval")
        & (rows["protocol"] == "steady")
        & (rows["concurrency"] == 1)
        & (rows["input"] == "device")
    ]
    times = loaded.times
    setting = [name for name in VARIANT_SETTING if name != "dtype"]
    return [
        Bought(row, base, compared(row, base, times))
        for group in by_setting(good, setting)
        for base, row in _pairs(group)
    ]


def _pairs(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The fastest row in fp32 with that of each other precision."""
    fastest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda each: float(each["median_s"])):
        fastest.setdefault(row["dtype"], {**row, "variant": variant_in_words(row)})
    if base := fastest.pop(FP32, None):
        for row in fastest.values():
            yield base, row
