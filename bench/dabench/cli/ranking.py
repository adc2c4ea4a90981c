"""``dabench rank``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dabench.base.units import format_seconds, threshold_of
from dabench.cli.options import Json, option
from dabench.cli.output import print_json, print_line, print_table


def rank(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs of time, sweep or compare.")
    ],
    delta: Annotated[
        str | None, option("--delta", "Differences up to this are the same. Default 2%.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Beside the paper's figures, as printed.")
    ] = False,
    json: Json = False,
) -> None:
    """Order models on each machine, and say where the order holds and where it flips.

    Times of different machines are never compared, their orders are.
    """
    from dabench.findings import ranks
    from dabench.findings.tables import parts_of
    from dabench.timing.verdicts import DELTA

    margin = DELTA if delta is None else threshold_of("--delta", delta)
    folders = [path for folder in runs for path in parts_of(folder) or [folder]]
    rankings, pairs = ranks.rank(folders, margin, printed=published)
    if json:
        print_json(
            {
                "delta": margin,
                "rankings": [asdict(each) for each in rankings],
                "pairs": [asdict(each) for each in pairs],
            }
        )
        return
    print_table(
        f"'<': faster, by more than {margin:.1%}; '~': undecided, or the same",
        ("machine", "setting", "phase", "order", "medians"),
        (
            (
                each.place.machine,
                each.place.setting,
                each.place.phase,
                each.order,
                ", ".join(format_seconds(seconds) for _, seconds, _ in each.models),
            )
            for each in rankings
        ),
        words=("machine", "setting", "phase", "order", "medians"),
    )
    for each in (pair for pair in pairs if pair.places > 1):
        says = {
            f"{each.first} is faster on": each.first_on,
            f"{each.second} is faster on": each.second_on,
            "undecided on": each.undecided_on,
        }
        where = "; ".join(f"{what} {', '.join(names)}" for what, names in says.items() if names)
        print_line(
            f"{each.order}: {each.first}, {each.second}, {each.mode} {each.phase} {each.way}: "
            f"{where}"
        )
