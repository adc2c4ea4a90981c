"""Percentiles, deadlines and knees as commands of timings print them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dabench.base.errors import bad_value, check_choice
from dabench.base.units import format_interval, format_seconds, parse_duration, significant
from dabench.cli.options import Several, option
from dabench.cli.output import print_line, print_table
from dabench.plan.references import split_names

if TYPE_CHECKING:
    from dabench.findings.loads import Tail
    from dabench.records.measurements import Measurement

NAMES = ("p50", "p90", "p95", "p99", "p99.9")

Percentiles = Annotated[
    Several, option("--percentiles", "Of the times, with intervals; refused of too few.", NAMES)
]
Deadline = Annotated[str | None, option("--deadline", "Share of passes within it, such as 33ms.")]


def asked(
    percentiles: Sequence[str] | None, deadline: str | None
) -> tuple[list[str], float | None]:
    """What of tails was asked for.

    Raises:
        UsageError: A percentile or a deadline that is none.
    """
    names = [part for text in percentiles or () for part in split_names(text)]
    for name in names:
        check_choice("--percentiles", name, NAMES)
    if deadline is None:
        return names, None
    try:
        seconds = parse_duration(deadline)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise bad_value("--deadline", deadline, "it takes a time above 0, such as 33ms")
    return names, seconds


def loads_document(
    folder: Path | None,
    rows: Sequence[Measurement],
    names: Sequence[str],
    deadline_s: float | None,
) -> dict[str, Any]:
    """What JSON says beside the measurements."""
    from dataclasses import asdict

    from dabench.findings.loads import knees

    tails = _tails(folder, names, deadline_s)
    found = [asdict(each) for each in knees(rows)]
    return {
        **({"tails": [each.to_dict() for each in tails]} if tails else {}),
        **({"knees": found} if found else {}),
    }


def print_loads(
    folder: Path | None,
    rows: Sequence[Measurement],
    names: Sequence[str],
    deadline_s: float | None,
) -> None:
    """Prints tails and knees, where there are any."""
    from dabench.findings.loads import KNEE_RULE, knees
    from dabench.timing.tails import TAIL_RULE

    found = knees(rows)
    for each in found:
        beyond = "nothing beyond it was measured"
        if each.beyond is not None and each.gain is not None and each.slowdown is not None:
            beyond = (
                f"{each.beyond} at once give {each.gain:.2f} x that and take "
                f"{each.slowdown:.2f} x as long"
            )
        knee = "knee at" if each.decided else "knee undecided, at least"
        print_line(
            f"{each.case} {each.phase}: {knee} {each.at_once} at once, "
            f"{significant(each.images_per_s)} images/s; {beyond}"
        )
    if found:
        print_line(f"{KNEE_RULE}.")
    tails = _tails(folder, names, deadline_s)
    if tails:
        _print_tails(tails, deadline_s)
        print_line(f"{TAIL_RULE}.")


def _tails(folder: Path | None, names: Sequence[str], deadline_s: float | None) -> list[Tail]:
    if folder is None or not (names or deadline_s):
        return []
    from dabench.findings.loads import tails_of

    return tails_of(folder, names, deadline_s)


def _print_tails(tails: Sequence[Tail], deadline_s: float | None) -> None:
    rows, refused = [], []
    for tail in tails:
        if tail.refusal:
            refused.append(f"{tail.case_id} {tail.phase}: no tail: {tail.refusal}")
        for each in tail.percentiles:
            if each.seconds is None:
                refused.append(f"{tail.case_id} {tail.phase}: {each.refusal}; name --repeat")
                continue
            low, high = each.seconds.low, each.seconds.high
            seconds = format_seconds(each.seconds.estimate)
            over = f"{each.passes}/{each.launches}"
            rows.append(
                (tail.case_id, tail.phase, each.name, seconds, format_interval(low, high), over)
            )
        if tail.within is not None:
            one = tail.within
            rows.append(
                (
                    tail.case_id,
                    tail.phase,
                    f"within {format_seconds(deadline_s)}",
                    f"{one.estimate:.2%}",
                    f"{one.low:.2%} to {one.high:.2%}",
                    "",
                )
            )
    if rows:
        header = ("case", "phase", "what", "value", "95% interval", "passes/launches")
        print_table("Tails", header, rows, words=("case", "phase", "what"))
    for line in refused:
        print_line(line)
