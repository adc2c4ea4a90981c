"""What ``dabench eval`` does and prints where it scores several ways to run a network."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import bad_value
from dabench.base.units import format_share, format_threads, parse_fraction
from dabench.cli.options import typed
from dabench.cli.output import error_line, print_json, print_line, print_table, resumable
from dabench.plan.axes import AXES
from dabench.plan.cases import expand
from dabench.plan.grids import make_grid
from dabench.records.scores import KEEP

if TYPE_CHECKING:
    from dabench.data.domain import Domain
    from dabench.findings.ways import Kept
    from dabench.plan.cases import Case
    from dabench.plan.settings import Grid, Settings
    from dabench.records.scores import ScoreRow
    from dabench.run.scoring import Scored

WAYS = (
    "runtime", "dtype", "memory_format", "fuse", "compile", "calibration", "keep_float", "threads",
    "batch",
)  # fmt: skip
"""Options of which any makes a table of ways."""

_COLUMNS: dict[str, Callable[[Case], str]] = {
    **{AXES[key].heading: AXES[key].cell for key in WAYS},
    # Of a case they are what was asked, not what a launch had.
    "threads": lambda case: str(case.threads or "torch's"),
}
_ALWAYS = (AXES["runtime"].heading, AXES["dtype"].heading, AXES["memory_format"].heading)

Keep = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENT",
        help="Of the plain network's mIoU, that each way is to keep. Default 99.9%.",
        show_default=False,
    ),
]


def parse_keep(text: str | None) -> float:
    """Reads ``--keep``.

    Raises:
        UsageError: No percentage from 0% to 100%.
    """
    if text is None:
        return KEEP
    try:
        share = parse_fraction(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise bad_value("--keep", text, "it takes a percentage of up to 100%, such as 99.9%")
    return share


Plan = tuple["Grid", "Settings"]


def ways_of(given: Mapping[str, Any], model: str, device: str) -> Plan:
    """The ways that options name, before anything is read or drawn for them.

    Raises:
        UsageError: A value that an option does not take.
    """
    chosen = {key: given[key] for key in (*WAYS, "timeout") if key in given}
    axes, settings = typed({**chosen, "device": [device], "mode": ["eval"]})
    # As it is: a path may hold commas.
    plan = make_grid({**axes, "model": (model,)}, settings)
    expand(*plan)
    return plan


def score_ways(
    plan: Plan,
    asked: str,
    domain: Domain,
    split: str,
    out: Path | None,
    shown: Shown,
    *,
    times: bool,
    roots: Mapping[str, Path | None],
) -> None:
    """Scores ways on a split of a domain, into a new folder."""
    from dabench.data.domain import check_labels
    from dabench.records.folder import new_run_folder
    from dabench.run.scoring import Data, score_into

    check_labels(domain, split)
    command = shlex.join(["dabench", *sys.argv[1:]])
    data = Data(asked, domain, split)
    with new_run_folder(out, f"eval-{domain.name}") as folder:
        with resumable("eval", folder):
            scored = score_into(
                folder, [plan], data, command=command, told=shown.told, times=times, roots=roots
            )
        shown.show(folder, scored)


def resume_ways(
    folder: Path,
    open_data: Callable[[str, tuple[str, ...]], Domain],
    shown: Shown,
    roots: Mapping[str, Path | None],
) -> None:
    """Continues an interrupted run.

    Args:
        folder: Of the run.
        open_data: Finds a domain by its name, for classes of these names.
        shown: What is printed.
        roots: Dataset -> where it is, as far as somebody said.
    """
    from dabench.records.folder import read_run
    from dabench.records.scores import KIND
    from dabench.run.scoring import Data, resume_scores

    document = read_run(folder, KIND)
    asked, split = document["data"]["asked"], document["data"]["split"]
    data = Data(asked, open_data(asked, tuple(document["classes"])), split)
    with resumable("eval", folder):
        scored = resume_scores(folder, data, told=shown.told, roots=roots)
    shown.show(folder, scored)


class Shown:
    """What is printed.

    Args:
        keep: The share of the plain network's mIoU that is to be kept.
        quiet: Whether ways are scored without a word.
        json: Whether one document is printed.
    """

    def __init__(self, keep: float, *, quiet: bool, json: bool) -> None:
        self._keep = keep
        self._quiet = quiet or json
        self._json = json

    def told(self, case: Case) -> None:
        """Says which way is being scored."""
        if not self._quiet:
            threads = [format_threads(case.threads)] * bool(case.threads)
            shown = [*_cells(case, _ALWAYS), f"batch {case.batch}", *threads]
            error_line(f"scoring {', '.join(shown)}")

    def show(self, folder: Path, scored: Scored) -> None:
        """Prints the rows, and what each way keeps.

        Raises:
            typer.Exit: No way has a score.
        """
        from dabench.findings.ways import KEEP_RULE, REAL_RULE, UNKNOWN, ways_kept
        from dabench.records.calibrations import FIELD, calibration_lines
        from dabench.records.folder import read_run

        document = read_run(folder)
        kept = ways_kept(folder, document, scored.rows, self._keep)
        if self._json:
            ways = [
                {
                    **planned.case.to_dict(),
                    **row.to_dict(),
                    "verdict": UNKNOWN if k is None else k.verdict,
                    "kept": None if k is None else asdict(k.share),
                }
                for planned, row, k in zip(scored.plan, scored.rows, kept, strict=True)
            ]
            about = {"data": document["data"], "calibration": document.get(FIELD, {})}
            print_json({**about, "keep": self._keep, "ways": ways})
        else:
            self._print(document, [planned.case for planned in scored.plan], scored.rows, kept)
            for line in calibration_lines(document):
                print_line(f"{line}.")
            print_line(f"To be kept: {format_share(self._keep)} {KEEP_RULE}.")
            if any(row.real for row in scored.rows):
                print_line(f"Real / random: {REAL_RULE}.")
            error_line(f"Records: {folder}")
        if not any(row.status == "ok" for row in scored.rows):
            raise typer.Exit(1)

    def _print(
        self,
        document: dict[str, Any],
        cases: Sequence[Case],
        rows: Sequence[ScoreRow],
        kept: Sequence[Kept | None],
    ) -> None:
        data, first = document["data"], cases[0]
        keeps = f"keeps {format_share(self._keep)}"
        drawn = " (SYNTHETIC)" if data["synthetic"] else ""
        varying = [
            name
            for name, cell in _COLUMNS.items()
            if name in _ALWAYS or len({cell(case) for case in cases}) > 1
        ]
        real = any(row.real for row in rows)
        print_table(
            f"{first.model} on {data['name']}{drawn}, {data['split']} split, {data['frames']} "
            f"frames, {document['evaluation']} mIoU; {first.height}x{first.width}, {first.device}",
            (
                *varying, "mIoU", "accuracy", keeps, "of plain", "95% over images",
                *["real / random"] * real,
            ),
            [
                (*_cells(case, varying), *_scores(row, k), *[_real(row)] * real)
                for case, row, k in zip(cases, rows, kept, strict=True)
            ],
            words=(*_ALWAYS, keeps),
        )  # fmt: skip
        for case, row in zip(cases, rows, strict=True):
            name = " ".join(_cells(case, varying))
            if row.status != "ok":
                print_line(f"{name}: {row.status}: {row.reason}")
            elif row.emulated:
                print_line(f"{name}: emulated on this machine")


def _cells(case: Case, columns: Iterable[str]) -> list[str]:
    return [_COLUMNS[name](case) for name in columns]


def _real(row: ScoreRow) -> str:
    from dabench.findings.ways import real_of

    if row.real is None:
        return "-"
    return f"{row.real.estimate:.3f} [{row.real.low:.3f}, {row.real.high:.3f}], {real_of(row)}"


def _scores(row: ScoreRow, kept: Kept | None) -> tuple[str, ...]:
    from dabench.findings.ways import PLAIN, UNKNOWN

    if row.miou is None or row.accuracy is None:
        return (row.status, "-", "-", "-", "-")
    scores = f"{row.miou:.2%}", f"{row.accuracy:.2%}"
    if kept is None or kept.verdict == PLAIN:
        return (*scores, UNKNOWN if kept is None else PLAIN, "-", "-")
    share = kept.share
    interval = f"{share.low:.2%} to {share.high:.2%}"
    return (*scores, kept.verdict, f"{share.estimate:.2%}", interval)
