"""Printed speeds of real-time segmenters: what contradicts what, and ratios beside ours.

``results/reference/segmenter-speeds.csv`` holds figures as printed, with their conditions as far
as the source states them. No one has their cards: times of different devices are not compared,
the ratio of two networks on one device is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from dabench.base.units import format_count, significant
from dabench.findings.audit import ROW_COLUMNS, Finding, audit, peak_of, setting_of
from dabench.findings.tables import Results, ratios, reference
from dabench.plan.settings import ITEM_BYTES

SPEEDS = "segmenter-speeds.csv"

LARGER_FASTER = "larger printed as faster"
NOT_REACHED = "printed speed not reached"
ORDER_FLIPS = "order flips between sources"

SPEED_FINDINGS = (LARGER_FASTER, NOT_REACHED, ORDER_FLIPS)

APART = 1.25
"""Times: figures of one network on one device that are further apart contradict each other."""

CLOSE = 0.03
"""Two networks whose figures are this close have no order."""

SPEEDS_RULE = (
    f"`{LARGER_FASTER}`: of two sizes of one design in one setting of one source; `{NOT_REACHED}`: "
    f"one network on one device at one size, {APART:g} times apart in two sources, of which none "
    "names another runtime, version or precision; "
    f"`{ORDER_FLIPS}`: of two networks that both sources print in one stated setting, more than "
    f"{CLOSE:.0%} apart in each"
)

_PLACE = ["source", "device", "runtime", "dtype", "input_hw"]
"""What makes figures of one source comparable with each other."""


def printed_speeds() -> pd.DataFrame:
    """The figures as printed.

    Returns:
        Columns of the file; ``model`` names the network of this project's that is meant to be the
        same, ``name`` is network and encoder as one text. Texts that are not there are empty.
    """
    speeds = reference(SPEEDS)
    for name in set(speeds) - {"images_per_s", "miou", "params_m"}:
        speeds[name] = speeds[name].fillna("").astype(str)
    encoders = speeds["encoder"].map(lambda text: f" ({text})" if text else "")
    return speeds.assign(name=speeds["network"] + encoders)


def speed_findings(speeds: pd.DataFrame, operations: pd.DataFrame) -> list[Finding]:
    """What among printed speeds cannot be, or contradicts another.

    Args:
        speeds: Of `printed_speeds`.
        operations: As of `dabench.findings.audit.audit`.
    """
    macs = {
        (row["model"], f"{row['height']}x{row['width']}"): float(row["executed_macs"])
        for row in operations.to_dict("records")
    }
    return [
        *audit(_rows(speeds), operations),
        *_larger_faster(speeds, macs),
        *_not_reached(speeds),
        *_flips(speeds),
    ]


def _rows(speeds: pd.DataFrame) -> pd.DataFrame:
    """The speeds of networks that we can count, as rows to audit against the chips' peaks.

    Where no precision is stated it is the fastest that the chip has.
    """
    rows = []
    counted = (speeds["model"] != "") & (speeds["input_hw"] != "")
    for row in speeds[counted & speeds["dtype"].isin(["", *ITEM_BYTES])].to_dict("records"):
        height, width = map(int, row["input_hw"].split("x"))
        rows.append(
            {
                **dict.fromkeys(ROW_COLUMNS, ""),
                "source": f"printed: {row['source']}",
                "machine": row["device"],
                "device_name": row["device"],
                "device": "cuda",
                "model": row["model"],
                "batch": 1,
                "channels": 3,
                "height": height,
                "width": width,
                "mode": "eval",
                "dtype": row["dtype"] or _fastest(row["device"]),
                "setting": row["runtime"],
                "passes": 1,
                "seconds": 1 / float(row["images_per_s"]),
                "low_s": float("nan"),
                "high_s": float("nan"),
            }
        )
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def _fastest(device: str) -> str:
    peak = peak_of(device)
    return max(peak.flops_per_s, key=peak.flops_per_s.__getitem__) if peak else "fp32"


def _design(model: str) -> str:
    """A network's name without its size."""
    return re.sub(r"\d+", "", model)


def _larger_faster(
    speeds: pd.DataFrame, macs: Mapping[tuple[str, str], float]
) -> Iterator[Finding]:
    known = speeds[speeds["model"] != ""]
    for _, group in known.groupby(_PLACE, sort=False):
        for a, b in itertools.permutations(group.to_dict("records"), 2):
            small, large = (macs.get((each["model"], each["input_hw"])) for each in (a, b))
            if small is None or large is None or _design(a["model"]) != _design(b["model"]):
                continue
            if large > small and b["images_per_s"] > a["images_per_s"]:
                evidence = (
                    f"{b['name']} {significant(b['images_per_s'], 4)} images/s with "
                    f"{format_count(large)} multiply-adds, {a['name']} "
                    f"{significant(a['images_per_s'], 4)} with {format_count(small)}, whose layers "
                    "it has, and more"
                )
                yield _finding(b, LARGER_FASTER, evidence)


def _not_reached(speeds: pd.DataFrame) -> Iterator[Finding]:
    stated = speeds[(speeds["input_hw"] != "") & (speeds["device"] != "not stated")]
    stated = stated.assign(key=[_key(row) for row in stated.to_dict("records")])
    for _, group in stated.groupby(["key", "device", "input_hw"], sort=False):
        pairs = [
            (high, low)
            for high, low in itertools.permutations(group.to_dict("records"), 2)
            if high["source"] != low["source"]
            and high["tier"] != "reported"
            and _run_alike(high, low)
        ]
        if not pairs:
            continue
        high, low = max(pairs, key=lambda pair: pair[0]["images_per_s"] / pair[1]["images_per_s"])
        ratio = high["images_per_s"] / low["images_per_s"]
        if ratio > APART:
            evidence = (
                f"{significant(high['images_per_s'], 4)} images/s{_by(high)}, "
                f"{significant(low['images_per_s'], 4)}{_by(low)} ({low['source']}, "
                f"{low['tier']}): {significant(ratio)} times apart"
            ) + "".join(f"; {row['note']}" for row in (high, low) if row["note"])
            yield _finding(high, NOT_REACHED, evidence)


def _run_alike(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    """Whether nothing says that two figures are of other runtimes or precisions."""
    one, other = sorted((a["runtime"], b["runtime"]), key=len)
    # A name without a version may be of any.
    alike = one in ("", other) or other.partition(" ")[0] == one
    return alike and len({a["dtype"], b["dtype"]} - {""}) < 2


def _by(row: Mapping[Any, Any]) -> str:
    how = " ".join(part for part in (row["runtime"], row["dtype"]) if part)
    return f" by {how}" if how else ""


def _flips(speeds: pd.DataFrame) -> Iterator[Finding]:
    """Pairs of networks that one source orders one way and another the other way."""
    said: dict[tuple[str, str], list[tuple[bool, dict[Any, Any], dict[Any, Any]]]] = {}
    stated = speeds[(speeds["input_hw"] != "") & (speeds["device"] != "not stated")]
    for _, group in stated.groupby(_PLACE, sort=False):
        rows = sorted(group.to_dict("records"), key=_key)
        for a, b in itertools.combinations(rows, 2):
            pair = _key(a), _key(b)
            if pair[0] != pair[1] and abs(a["images_per_s"] / b["images_per_s"] - 1) > CLOSE:
                said.setdefault(pair, []).append((a["images_per_s"] > b["images_per_s"], a, b))
    for orders in said.values():
        first, other = next(
            (
                (one, two)
                for one, two in itertools.combinations(orders, 2)
                if one[0] != two[0] and one[1]["source"] != two[1]["source"]
            ),
            (orders[0], None),
        )
        if other is not None:
            evidence = "; ".join(
                f"{a['name']} {significant(a['images_per_s'], 4)}, {b['name']} "
                f"{significant(b['images_per_s'], 4)} images/s ({_where(a)})"
                for _, a, b in (first, other)
            )
            yield _finding(
                first[1], ORDER_FLIPS, evidence, f"{first[1]['name']}, {first[2]['name']}"
            )


def _where(row: Mapping[Any, Any]) -> str:
    facts = (row["source"], row["device"], row["input_hw"], row["runtime"], row["dtype"])
    return ", ".join(str(fact) for fact in facts if fact)


def _key(row: Mapping[Any, Any]) -> str:
    """A network's name as sources would agree on it; ours where it is known."""
    return str(row["model"]) or re.sub(r"[^a-z0-9]", "", row["name"].lower())


def _finding(
    row: Mapping[Any, Any], finding: str, evidence: str, what: str | None = None
) -> Finding:
    facts = (what or row["name"], row["input_hw"], row["runtime"], row["dtype"])
    return Finding(
        source=f"printed: {row['source']}",
        machine=str(row["device"]),
        what=", ".join(str(fact) for fact in facts if fact),
        finding=finding,
        evidence=evidence,
    )


def beside_ours(speeds: pd.DataFrame, loaded: Results) -> pd.DataFrame:
    """Printed ratios of two networks on one device beside measured ones.

    Args:
        speeds: Of `printed_speeds`.
        loaded: Measured runs.

    Returns:
        A row per pair of networks and place, printed ones first: ``pair`` (slower network over
        faster one by name of ours), ``where``, ``size``, ``ratio`` of times, ``low`` and ``high``
        (95%; missing for printed figures) and ``measured``. Empty where nothing was measured that
        somebody prints.
    """
    models = [m for m in dict.fromkeys(loaded.measurements["model"]) if m in set(speeds["model"])]
    if len(models) < 2:
        return pd.DataFrame()
    rows = [*_printed_ratios(speeds, models), *_measured_ratios(loaded, models)]
    found = pd.DataFrame(rows)
    measured = set(found.loc[found["measured"], "pair"])
    printed = set(found.loc[~found["measured"], "pair"])
    both = found[found["pair"].isin(measured & printed)]
    return both.sort_values(["pair", "measured"], kind="stable")


def _printed_ratios(speeds: pd.DataFrame, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    known = speeds[speeds["model"].isin(models)]
    for _, group in known.groupby(_PLACE, sort=False):
        ordered = sorted(group.to_dict("records"), key=lambda row: models.index(row["model"]))
        for a, b in itertools.combinations(ordered, 2):
            if a["model"] == b["model"]:
                continue
            yield {
                "pair": f"{b['model']} / {a['model']}",
                "where": f"{_where({**a, 'input_hw': ''})} ({a['tier']})",
                "size": a["input_hw"],
                "ratio": a["images_per_s"] / b["images_per_s"],
                "low": float("nan"),
                "high": float("nan"),
                "measured": False,
            }


def _measured_ratios(loaded: Results, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    found = ratios(loaded, [*models][::-1])
    for row in found.to_dict("records"):
        if row["mode"] == "eval" and row["phase"] == "forward" and row["batch"] == 1:
            yield {
                "pair": f"{row['numerator']} / {row['denominator']}",
                "where": f"{row['machine']}, {setting_of(row)}, {row['dtype']}",
                "size": f"{row['height']}x{row['width']}",
                "ratio": row["ratio"],
                "low": row["ratio_low"],
                "high": row["ratio_high"],
                "measured": True,
            }
