"""``dabench audit``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dabench.base.errors import UsageError, bad_value
from dabench.cli.options import Json
from dabench.cli.output import error_line, print_json, print_line, print_table

if TYPE_CHECKING:
    from dabench.findings.audit import Finding
    from dabench.findings.claims import Printed
    from dabench.findings.logs import TrainingLog


def audit(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN|LOGDIR|CSV...]",
            help="Runs, TensorBoard folders, CSV files of scalars. Default: what was published.",
        ),
    ] = None,
    scalars: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=METRIC",
            help="What a scalar of a training log is, such as lossG=adversarial_loss.",
        ),
    ] = None,
    adversarial_weight: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            metavar="LAMBDA",
            help="By which logged adversarial losses are multiplied.",
            show_default="guessed, and said",
        ),
    ] = None,
    claims: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="RUN=MIOU", help="A training's printed mIoU, in percent."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write audit.md into this folder.")] = None,
    json: Json = False,
) -> None:
    """Find what cannot be true: times below what a chip could do, claims that logs do not carry.

    Times are held against the chip and each other. Trainings are judged by their logs: adversaries
    that are none, unequal budgets, claims within the wobble of one run, time per epoch that is no
    training. What was published is audited with runs of timings, and without arguments.
    """
    from dabench.findings.claims import audit_trainings, summary
    from dabench.findings.logs import check_names
    from dabench.findings.tables import load
    from dabench.report.audit import audited, courses_table, published_trainings, write_audit

    timings, others = _sorted_out(runs or [])
    names, said = _pairs("--map", scalars or []), _claims(claims or [])
    check_names(names)
    if not others:
        _check_unused({"--map": names, "--lambda": adversarial_weight, "--claim": said})
    logs = _read(others, names, adversarial_weight)
    printed = _claimed(said, logs)
    times = None
    if timings or not others:
        loaded = load(timings) if timings else None
        times = audited(loaded, with_published=True, with_speeds=True)
    if not others:
        logs, printed = published_trainings()
    of_trainings = [summary(log) for log in logs], audit_trainings(logs, printed)
    findings, unknown = times or ([], [])
    findings = [*findings, *of_trainings[1]]
    if json:
        document = {"findings": [asdict(f) for f in findings], "no_peak_known": unknown}
        print_json({**document, "trainings": of_trainings[0]})
    else:
        if logs:
            table = courses_table(of_trainings[0])
            rows = table.itertuples(index=False)
            print_table("", [str(name) for name in table], rows, words=("run", "flags"))
        _print(findings)
        if unknown:
            print_line(f"{len(findings)} findings; no peak is listed for: {', '.join(unknown)}.")
        else:
            print_line(f"{len(findings)} findings.")
    if out is not None:
        print_line(str(write_audit(times, of_trainings, out)), stderr=True)


def _sorted_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Runs of timings, and everything that may hold trainings.

    Raises:
        UsageError: A run of another kind, or nothing there.
    """
    from dabench.findings.tables import parts_of
    from dabench.records.folder import has_run, kind_of
    from dabench.records.trainings import KIND, SUITE

    timings, others = [], []
    for path in (part for each in paths for part in parts_of(each) or [each]):
        if not path.exists():
            raise UsageError(f"{path} holds no run, and is no log of a training")
        if not has_run(path) or kind_of(path) in (KIND, SUITE):
            others.append(path)
        elif kind_of(path) == "timing":
            timings.append(path)
        else:
            raise UsageError(
                f"{path} holds no timings; audit takes runs of time or sweep, and trainings"
            )
    return timings, others


def _check_unused(options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise UsageError(f"{option}: there is no log of a training; name one")


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` options by their names, which may hold ``=`` themselves."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, found, value = text.rpartition("=")
        if not (found and name and value):
            raise bad_value(option, text, "it takes NAME=VALUE")
        if pairs.setdefault(name, value) != value:
            raise bad_value(option, text, f"{name}={pairs[name]} was given, too")
    return pairs


def _claims(texts: Sequence[str]) -> dict[str, str]:
    """Claims by run, checked to be percentages."""
    claims = _pairs("--claim", texts)
    for name, text in claims.items():
        if not re.fullmatch(r"\d{1,2}(\.\d+)?", text) or not float(text) >= 1:
            raise bad_value("--claim", f"{name}={text}", "it takes RUN=MIOU in percent, as 33.8")
    return claims


def _read(
    paths: Sequence[Path], names: dict[str, str], adversarial_weight: float | None
) -> list[TrainingLog]:
    """The logs, with what the user said of them; scalars left out are said."""
    from dabench.findings.logs import read_all

    if adversarial_weight is not None and not _LAMBDAS[0] <= adversarial_weight <= _LAMBDAS[1]:
        allowed = f"it takes a number from {_LAMBDAS[0]:g} to {_LAMBDAS[1]:g}"
        raise bad_value("--lambda", adversarial_weight, allowed)
    logs = read_all(paths, names)
    for source in dict.fromkeys(log.source for log in logs):
        unknown = dict.fromkeys(n for log in logs if log.source == source for n in log.unknown)
        if unknown:
            listed = ", ".join(unknown)
            error_line(f"{source}: not read: {listed}; --map NAME=METRIC says what it is")
    return [
        log if adversarial_weight is None or log.adversarial_weight is not None
        else replace(log, adversarial_weight=adversarial_weight)
        for log in logs
    ]  # fmt: skip


_LAMBDAS = (1e-9, 1e3)


def _claimed(claims: Mapping[str, str], logs: Sequence[TrainingLog]) -> Printed:
    """Claims by the run they are of.

    Raises:
        UsageError: There is no such run.
    """
    for name, text in claims.items():
        if name not in [log.name for log in logs]:
            known = ", ".join(log.name for log in logs)
            raise bad_value("--claim", f"{name}={text}", f"trainings: {known}")
    return {name: {"the claim": text} for name, text in claims.items()}


def _print(findings: Sequence[Finding]) -> None:
    for each in findings:
        where = ", ".join(part for part in (each.source, each.machine, each.what) if part)
        print_line(f"{where}: {each.finding}")
        print_line(f"    {each.evidence}")
