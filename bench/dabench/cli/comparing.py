"""``dabench compare``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value, named_as
from dabench.base.units import format_seconds, threshold_of
from dabench.cli.options import (
    OPTIONS,
    Json,
    Out,
    Quiet,
    ResumeFrom,
    check_alone,
    grid_of,
    named,
    option,
    with_options,
)
from dabench.cli.output import print_json, print_line, print_table
from dabench.cli.timing import INTERRUPTED, progress, say_where
from dabench.plan.axes import AXES
from dabench.plan.cases import expand
from dabench.plan.grids import AXIS_KEYS
from dabench.plan.references import is_reference
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.findings.compare import Compared
    from dabench.run.session import Session

SLOWER, UNDECIDED = 1, 3
LAUNCHES = "8"
MAX_TIME = "2min"


@with_options(*OPTIONS)
def compare(
    base: Annotated[
        Path | None, typer.Argument(metavar="BASE", help="A run.", show_default=False)
    ] = None,
    new: Annotated[
        Path | None, typer.Argument(metavar="NEW", help="Another one.", show_default=False)
    ] = None,
    vs: Annotated[
        str | None,
        option("--vs", "What to compare --model with: a model, options in quotes, or both."),
    ] = None,
    delta: Annotated[
        str | None, option("--delta", "Differences up to this are the same. Default 2%.")
    ] = None,
    decide: Annotated[
        bool,
        typer.Option("--decide", help="Measure on until it is decided or --max-time (2min) is up."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where something is undecided.")
    ] = False,
    explain_verdict: Annotated[
        bool, typer.Option("--explain-verdict", help="Show the numbers that led to each verdict.")
    ] = False,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Say which of two is faster, how sure that is, and what would decide it.

    Two runs, the two sides of one that this command made, or two things measured
    here and now, alternating A B B A.

    Exit codes: 0 nothing is slower, 1 something is, 3 something is undecided
    (with --strict), 2 it cannot be compared.
    """
    given = named(locals())
    margin = None if delta is None else threshold_of("--delta", delta)
    interrupted = False
    if resume_from is not None:
        check_alone(given, {"strict", "explain_verdict"})
        _check_made_to_compare(resume_from)
        folder, interrupted = _go_on(resume_from, quiet=quiet, json=json)
        found = _within(folder, None)
    elif base is not None:
        _check_stored(given)
        folder = base
        found = _within(base, margin) if new is None else _stored(base, new, margin)
    else:
        folder, interrupted = _measure(given, out=out, quiet=quiet, json=json)
        found = _within(folder, None)
    _show(found, _floor(folder), explain=explain_verdict, json=json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if all(each.ratio is None for each in found):
        raise UsageError(f"nothing could be compared: {found[0].reason}")
    if any(each.verdict == "slower" for each in found):
        raise typer.Exit(SLOWER)
    if strict and any(each.verdict == "undecided" for each in found):
        raise typer.Exit(UNDECIDED)


def _check_stored(given: Mapping[str, Any]) -> None:
    allowed = {"base", "new", "delta", "strict", "explain_verdict", "quiet", "json"}
    if others := sorted(given.keys() - allowed):
        name = others[0].replace("_", "-")
        raise UsageError(f"--{name}: runs are compared as they are; leave it out")


def _check_made_to_compare(folder: Path) -> None:
    from dabench.findings.compare import asked_of

    asked_of(folder)


def _stored(base: Path, new: Path, delta: float | None) -> list[Compared]:
    from dabench.findings.compare import compare_runs
    from dabench.timing.verdicts import DELTA

    return compare_runs(base, new, DELTA if delta is None else delta)


def _within(folder: Path, delta: float | None) -> list[Compared]:
    from dabench.findings.compare import compare_within

    return compare_within(folder, delta)


def _go_on(folder: Path, *, quiet: bool, json: bool) -> tuple[Path, bool]:
    from dabench.run.session import resume

    with progress(quiet=quiet or json) as observer:
        session = resume(folder, observer=observer)
    return _kept(session, quiet=quiet, json=json)


def _measure(
    given: Mapping[str, Any], *, out: Path | None, quiet: bool, json: bool
) -> tuple[Path, bool]:
    """Measures both sides into a run; its folder, and whether Ctrl-C ended it."""
    from dabench.records.folder import new_run_folder
    from dabench.run.session import Compares, run_grids
    from dabench.timing.verdicts import DELTA, LOOKS

    if "model" not in given or "vs" not in given:
        raise UsageError("compare needs two runs, or --model and --vs")
    decide = "decide" in given
    if decide and "launches" in given:
        raise bad_value(
            "--launches", given["launches"], f"--decide looks after {', '.join(map(str, LOOKS))}"
        )
    if "order" in given:
        raise bad_value("--order", given["order"], "both sides alternate: A B B A")
    usual = {"order": "abba", "launches": str(LOOKS[0]) if decide else LAUNCHES}
    usual |= {"max_time": MAX_TIME} if decide else {}
    sides = _sides({**usual, **given}, str(given["vs"]))
    settings = sides[0][1]
    compares = Compares(
        delta=threshold_of("--delta", given["delta"]) if "delta" in given else DELTA,
        decide=decide,
        max_time_s=settings.max_time_s or 0.0,
    )
    name = f"compare-{'-'.join(sides[0][0].models)}"[:60]
    command = shlex.join(["dabench", *sys.argv[1:]])
    with new_run_folder(out, name) as folder, progress(quiet=quiet or json) as observer:
        session = run_grids(
            sides, folder=folder, observer=observer, command=command, compares=compares
        )
    return _kept(session, quiet=quiet, json=json)


def _kept(session: Session, *, quiet: bool, json: bool) -> tuple[Path, bool]:
    assert session.folder is not None
    interrupted = session.outcome.interrupted
    say_where(session.folder, "compare", interrupted=interrupted, quiet=quiet, json=json)
    return session.folder, session.outcome.interrupted


def _sides(given: Mapping[str, Any], vs: str) -> list[tuple[Grid, Settings]]:
    """The grids of both sides: the second is the first with what ``--vs`` says.

    Raises:
        UsageError: ``--vs`` says nothing that could be measured.
    """
    changes = _changes(vs)
    inherited = dict(given)
    if "model" in changes and not any(map(is_reference, changes["model"])):
        inherited.pop("model_arg", None)  # only networks from outside take arguments
    sides = [grid_of(given), grid_of({**inherited, **changes})]
    for key in (key for key in changes if key in AXES):
        if any(len(getattr(grid, AXES[key].field)) > 1 for grid, _ in sides):
            raise bad_value("--vs", vs, f"{AXES[key].option} may have one value on each side")
    if "model" in changes:
        with named_as("--vs", "--model"):
            expand(*sides[1])
    return sides


CHANGES = tuple(key for key in AXIS_KEYS if key not in ("phase", "protocol"))
"""Axes in which two sides may differ: phases and protocols measure different things."""


def _changes(vs: str) -> dict[str, list[str]]:
    """Axis -> values, from what was typed."""
    try:
        words = shlex.split(vs)
    except ValueError as error:
        raise bad_value("--vs", vs, f"its quotes do not match ({error})") from None
    changes: dict[str, list[str]] = {}
    if words and not words[0].startswith("--"):
        changes["model"] = [words.pop(0)]
    while words:
        flag, equals, value = words.pop(0).partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or key not in CHANGES:
            options = ", ".join(f"--{each.replace('_', '-')}" for each in CHANGES)
            raise bad_value("--vs", flag, f"it takes a model and these options: {options}")
        if not equals:
            if not words:
                raise bad_value("--vs", flag, "it needs a value")
            value = words.pop(0)
        changes.setdefault(key, []).append(value)
    if not changes:
        raise bad_value("--vs", vs, "it takes a model, or options in quotes")
    return changes


_HEADER = ("case", "phase", "base", "new", "new / base", "95% interval", "launches", "verdict")
_WORDS = ("case", "phase", "verdict", "undecided because", "what", "value")


def _floor(folder: Path) -> tuple[str, float] | None:
    """The noise floor of the machine of a run, should a selftest of it be at hand."""
    from dabench.findings.selftest import noise_floor
    from dabench.records.folder import read_run

    return noise_floor(Path("results"), read_run(folder)["environment"])


def _show(
    found: Sequence[Compared], floor: tuple[str, float] | None, *, explain: bool, json: bool
) -> None:
    from dabench.findings.compare import explained
    from dabench.timing.verdicts import SEQUENTIAL_RULE, VERDICT_RULE

    if json:
        rows = [
            {**each.to_dict(), **({"explained": dict(explained(each))} if explain else {})}
            for each in found
        ]
        known = None if floor is None else {"run": floor[0], "floor": floor[1]}
        print_json({"delta": found[0].delta, "noise_floor": known, "verdicts": rows})
        return
    why = any(each.reason for each in found)
    print_table(
        f"Differences of up to {found[0].delta:.1%} are the same",
        (*_HEADER, *["undecided because"] * why),
        ((*_cells(each), *[each.reason] * why) for each in found),
        words=_WORDS,
    )
    if floor is not None:
        print_line(f"Noise floor of this machine: {floor[1]:.1%} ({floor[0]}).")
    if explain:
        for each in found:
            print_table(
                f"{_name(each)} {each.phase}", ("what", "value"), explained(each),
                words=_WORDS,
            )  # fmt: skip
        print_line(f"Rule: {VERDICT_RULE}.")
        if any(each.sequential for each in found):
            print_line(f"Rule: {SEQUENTIAL_RULE}.")


def _cells(each: Compared) -> tuple[str, ...]:
    ratio = each.ratio
    return (
        _name(each),
        each.phase,
        format_seconds(each.base_s),
        format_seconds(each.new_s),
        "-" if ratio is None else f"{ratio.estimate:.3f}",
        "-" if ratio is None else f"{ratio.low:.3f} to {ratio.high:.3f}",
        str(each.launches),
        each.verdict,
    )


def _name(each: Compared) -> str:
    """A case's id, or where the sides differ both values of what they differ in."""
    if each.base.case_id == each.new.case_id:
        return each.new.case_id
    words = []
    for axis in AXES.values():
        # What is as usual is left out of a case's id.
        usual = str(axis.usual[0]) if axis.usual else axis.unsaid
        one, two = (axis.part(case) or usual for case in (each.base, each.new))
        if one != two:
            words.append(f"{one} -> {two}")
        elif axis.key in ("model", "batch", "mode"):
            words.append(str(two))
    return " ".join(words)
