"""Where each measurement stands among those it may be compared with, and what that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from dabench.base.units import format_seconds, format_threads, significant
from dabench.findings.proofs import UNPROVEN, path_of, proven
from dabench.findings.tables import SETTING, Results, TimesOf, by_setting
from dabench.plan.axes import columns_of, variant_in
from dabench.timing.verdicts import DELTA, Sides, judge

Key = tuple[str, str, str]
"""Run, case and phase."""

Row = Mapping[str, Any]
Rank = Literal["fastest", "same", "undecided", "slower"]

STANDINGS_RULE = (
    "the networks of one run and setting, each against the one with the shortest median, by the "
    "time until the work was done under the paper's protocol, too. They are judged as one family "
    f"(Holm), beyond a margin of {DELTA:.0%} or, of few launches, a wider one; a single launch "
    "decides nothing. The shortest is the fastest where all others are slower"
)

MOST_NAMED = 4
"""Networks that an answer names behind the fastest."""

_ANY_WAY = [
    "run_id", "machine", "family",
    *columns_of(
        "model", "dtype", "memory_format", "compile", "fuse", "runtime", "calibration",
        "keep_float", "allocator", "threads",
    ),
]  # fmt: skip
"""What must be equal for two networks to be compared, each run in its own best way."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One measurement among those of its setting.

    Attributes:
        rank: Against the fastest.
        reason: In words, with the ratio and its own 95% interval.
    """

    rank: Rank
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run says of one task.

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
        rows = _once(group, "model")
        if len(rows) < 2:
            continue
        best, *rest = sorted(rows, key=lambda row: _seconds(row, times))
        against = _against(best, rest, times)
        for row, each in zip(rest, against, strict=True):
            done = ", by when the work was done" if row["protocol"] == "paper" else ""
            found[key_of(row)] = Standing(each.rank, f"{each.ratio} times {best['model']}{done}")
        ranks = {each.rank for each in against}
        ties = [row["model"] for row, each in zip(rest, against, strict=True)
                if each.rank != "slower"]  # fmt: skip
        shortest = f"the shortest of {len(rows)}"
        if not ties:
            found[key_of(best)] = Standing("fastest", f"of {len(rows)}")
        elif "undecided" in ranks:
            reason = f"{shortest}, maybe not faster than {', '.join(ties)}"
            found[key_of(best)] = Standing("undecided", reason)
        else:
            found[key_of(best)] = Standing("same", f"{shortest}; as fast: {', '.join(ties)}")
    return found


def answers(loaded: Results) -> list[Answer]:
    """For each run and task the fastest network, each in its best way; most networks first.

    Of a single network the fastest of its ways.
    """
    times = loaded.times
    known = proven()
    found = []
    for group in _settings(loaded, _ANY_WAY):
        ordered = sorted(group, key=lambda row: _seconds(row, times))
        alone = len({row["model"] for row in ordered}) == 1
        best, *rest = ordered if alone else _once(ordered, "model")
        if not rest:
            continue
        text = " ".join(_sentences(best, rest, times))
        if not all(path_of(row["device"], row["runtime"]) in known for row in (best, *rest)):
            text += f" (**{UNPROVEN}**)"
        keys = tuple(key_of(row) for row in (best, *rest))
        networks = len({row["model"] for row in ordered})
        found.append((networks, Answer(best["machine"], _task(best), text, keys)))
    return [answer for _, answer in sorted(found, key=lambda each: -each[0])]


def key_of(row: Row) -> Key:
    """What names a measurement."""
    return row["run_id"], row["case_id"], row["phase"]


def _settings(loaded: Results, names: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Groups of measurements that may be compared."""
    rows = loaded.measurements
    # A stream's latency is of its rate; of several processes 'dabench compare' keeps samples apart.
    alike = (rows["status"] == "ok") & (rows["concurrency"] == 1) & (rows["protocol"] != "stream")
    yield from by_setting(rows[alike], names)


def _once(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The first of each."""
    first: dict[Any, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row[name], row)
    return list(first.values())


def _seconds(row: Row, times: TimesOf) -> float:
    """The median that ratios are made of: until the work was done, whatever a clock said."""
    return median(map(median, times[key_of(row)].for_ratios))


def _sides(row: Row, best: Row, times: TimesOf) -> Sides:
    ours, theirs = times[key_of(row)], times[key_of(best)]
    return Sides(theirs.for_ratios, ours.for_ratios, (theirs.rounds, ours.rounds))


@dataclass(frozen=True, slots=True)
class _Against:
    """One of a family against the fastest of it: its rank, and the ratio in words."""

    rank: Rank
    ratio: str


def _against(best: Row, rest: Sequence[Row], times: TimesOf) -> list[_Against]:
    """Of each but the fastest, judged as one family."""
    family = {number: _sides(row, best, times) for number, row in enumerate(rest)}
    # One launch says nothing of the next.
    several = {n: each for n, each in family.items() if each.launches > 1}
    judged = judge(several, size=len(family))
    names: dict[str, Rank] = {"slower": "slower", "same": "same"}
    found = []
    for number, sides in family.items():
        if number in judged:
            ratio = judged[number].ratio
            ends = f"{significant(ratio.low)} to {significant(ratio.high)}"
            words = f"{significant(ratio.estimate)} ({ends})"
            found.append(_Against(names.get(judged[number].verdict, "undecided"), words))
        else:
            estimate = median(map(median, sides.new)) / median(map(median, sides.base))
            found.append(_Against("undecided", f"{significant(estimate)} (one launch)"))
    return found


def _task(row: Row) -> str:
    loads = {
        "steady": "",
        "throughput": ", throughput",
        "paper": f", the paper's protocol (passes until the work was done: {row['passes']})",
    }
    device = "" if row["device"] == "cpu" else f", {row['device']}"
    where = ", input on the host" if row["input"] == "host" else ""
    return (
        f"{row['family']}s, {row['mode']} {row['phase']}, batch {row['batch']}, "
        f"{row['height']}x{row['width']}{device}{where}{loads[row['protocol']]} (`{row['run_id']}`)"
    )


def way_in_words(row: Row) -> str:
    """How it was run: way, precision, layout, and threads on a CPU."""
    threads = f", {format_threads(row['threads'])}" if row["device"] == "cpu" else ""
    way = variant_in(row, input="device")
    return f"{way}, {row['dtype']}, {row['memory_format']}{threads}"


def _sentences(best: Row, rest: Sequence[Row], times: TimesOf) -> Iterator[str]:
    shown = f"`{best['model']}` ({format_seconds(_seconds(best, times))}; {way_in_words(best)})"
    against = list(zip(rest, _against(best, rest, times), strict=True))
    open_ = [(row, each) for row, each in against if each.rank != "slower"]
    if open_:
        others = ", ".join(
            f"`{row['model']}` ({format_seconds(_seconds(row, times))}; {way_in_words(row)}; "
            f"{each.ratio} times as long)"
            for row, each in open_[:MOST_NAMED]
        )
        more = len(open_) - MOST_NAMED
        yield f"Nobody can tell {shown} from {others}{f' and {more} more' if more > 0 else ''}."
    else:
        yield f"{shown} is the **fastest**."
    slower = [(row, each) for row, each in against if each.rank == "slower"]
    for row, each in slower[:MOST_NAMED]:
        yield f"`{row['model']}` takes {each.ratio} times as long ({way_in_words(row)})."
    if len(slower) > MOST_NAMED:
        yield f"{len(slower) - MOST_NAMED} others take longer still."
