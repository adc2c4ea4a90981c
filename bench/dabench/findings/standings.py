"""Where each measurement stands among those it may be compared with, and what that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from dabench.base.units import format_seconds, significant
from dabench.findings.tables import SETTING, Results, TimesOf, by_setting, compared
from dabench.plan.axes import columns_of, variant_in
from dabench.records.measurements import WITHIN_ONE_LAUNCH

Key = tuple[str, str, str]
"""Run, case and phase."""

Rank = Literal["fastest", "same", "undecided", "slower"]

STANDINGS_RULE = (
    "the networks of one run and setting, each against the one with the shortest median, of the "
    "time until the work was done under the paper's protocol, too: 'slower' and 'same' are "
    "verdicts of the ratio's 95% interval, anything else is undecided"
)

MOST_NAMED = 4
"""Networks that an answer names behind the fastest."""

_ANY_WAY = [
    "run_id", "machine", "family",
    *columns_of(
        "model", "dtype", "memory_format", "compile", "fuse", "runtime", "calibration",
        "keep_float", "threads",
    ),
]  # fmt: skip
"""What must be equal for two networks to be compared, each run in its own best way."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One measurement among those of its setting.

    Attributes:
        rank: Against the fastest.
        reason: In words, with the ratio and its interval.
    """

    rank: Rank
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one machine says of one task.

    Attributes:
        machine: Its name.
        task: What was run, in words.
        text: The fastest network in its best way, and how the others compare.
        keys: The measurements that it rests on, the fastest first.
    """

    machine: str
    task: str
    text: str
    keys: tuple[Key, ...]


def standings(loaded: Results) -> dict[Key, Standing]:
    """Of every measurement that stands beside another network's in its run and setting."""
    times = loaded.times
    found: dict[Key, Standing] = {}
    for group in _settings(loaded, SETTING):
        best, *rest = sorted(group, key=lambda row: _seconds(row, times))
        judged = {key_of(row): _against(row, best, times) for row in rest}
        ties = [row["model"] for row in rest if judged[key_of(row)].rank != "slower"]
        alike = f", but maybe not faster than {', '.join(ties)}" if ties else ""
        found[key_of(best)] = Standing("fastest", f"of {len(group)}{alike}")
        found |= judged
    return found


def answers(loaded: Results) -> list[Answer]:
    """For each machine and task the fastest network, each in its best way; most networks first."""
    times = loaded.times
    found = []
    for group in _settings(loaded, _ANY_WAY):
        by_model: dict[str, dict[str, Any]] = {}
        for row in sorted(group, key=lambda row: _seconds(row, times)):
            by_model.setdefault(row["model"], row)
        best, *rest = by_model.values()
        found.append(
            Answer(
                best["machine"],
                _task(best),
                " ".join(_sentences(best, rest, times)),
                tuple(key_of(row) for row in (best, *rest)),
            )
        )
    return sorted(found, key=lambda answer: -len(answer.keys))


def key_of(row: Mapping[str, Any]) -> Key:
    """What names a measurement."""
    return row["run_id"], row["case_id"], row["phase"]


def _settings(loaded: Results, names: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Groups that may be compared, of two networks or more."""
    rows = loaded.measurements
    # A stream's latency is of its rate; of several processes 'dabench compare' keeps samples apart.
    alike = (rows["status"] == "ok") & (rows["concurrency"] == 1) & (rows["protocol"] != "stream")
    for group in by_setting(rows[alike], names):
        if len({row["model"] for row in group}) > 1:
            yield group


def _seconds(row: Mapping[str, Any], times: TimesOf) -> float:
    """The median that ratios are made of: until the work was done, whatever a clock said."""
    return median(map(median, times[key_of(row)].for_ratios))


def _against(row: Mapping[str, Any], best: Mapping[str, Any], times: TimesOf) -> Standing:
    found = compared(row, best, times)
    ranks: dict[str, Rank] = {"slower": "slower", "same": "same"}
    rank = ranks.get(found["verdict"], "undecided")
    return Standing(rank, f"{_ratio(found)} times {best['model']}")


def _ratio(found: Mapping[str, Any]) -> str:
    low, high = significant(found["ratio_low"]), significant(found["ratio_high"])
    scope = f", {WITHIN_ONE_LAUNCH}" if found["launches"] < 2 else ""
    return f"{significant(found['ratio'])} ({low} to {high}{scope})"


def _task(row: Mapping[str, Any]) -> str:
    loads = {"steady": "", "paper": ", the paper's protocol", "throughput": ", throughput"}
    device = "" if row["device"] == "cpu" else f", {row['device']}"
    where = ", input on the host" if row["input"] == "host" else ""
    return (
        f"{row['family']}s, {row['mode']} {row['phase']}, batch {row['batch']}, "
        f"{row['height']}x{row['width']}{device}{where}{loads[row['protocol']]}"
    )


def _way(row: Mapping[str, Any]) -> str:
    return f"{variant_in(row, input='device')}, {row['dtype']}, {row['memory_format']}"


def _sentences(
    best: Mapping[str, Any], rest: Sequence[Mapping[str, Any]], times: TimesOf
) -> Iterator[str]:
    shown = f"`{best['model']}` ({format_seconds(_seconds(best, times))}; {_way(best)})"
    against = [(row, compared(row, best, times)) for row in rest]
    open_ = [(row, found) for row, found in against if found["verdict"] != "slower"]
    if open_:
        others = ", ".join(
            f"`{row['model']}` ({format_seconds(_seconds(row, times))}; {_way(row)}; "
            f"{_ratio(found)} times as long)"
            for row, found in open_
        )
        yield f"Nobody can tell {shown} from {others}."
    else:
        yield f"{shown} is the **fastest**."
    slower = [(row, found) for row, found in against if found["verdict"] == "slower"]
    for row, found in slower[:MOST_NAMED]:
        yield f"`{row['model']}` takes {_ratio(found)} times as long ({_way(row)})."
    if len(slower) > MOST_NAMED:
        yield f"{len(slower) - MOST_NAMED} others take longer still."
