"""The audit's sections: what cannot be true, and what does not carry what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.errors import UsageError
from dabench.base.files import write_atomically
from dabench.base.units import format_seconds
from dabench.findings.audit import (
    AUDIT_RULE,
    Finding,
    audit,
    measured_rows,
    published_operations,
    published_rows,
    rankings,
    unchecked,
)
from dabench.findings.claims import CLAIMS_RULE, WINDOW, Printed
from dabench.findings.logs import TrainingLog, published_logs
from dabench.findings.speeds import (
    SPEED_FINDINGS,
    SPEEDS_RULE,
    printed_speeds,
    speed_findings,
)
from dabench.findings.tables import Results, published, ratios
from dabench.findings.trainings import published_miou
from dabench.report.text import Markdown, Writer

_COUNTED = [
    "model", "channels", "height", "width", "mode", "executed_macs", "min_bytes", "params",
]  # fmt: skip


def audited(
    loaded: Results | None, *, with_published: bool, with_speeds: bool = False
) -> tuple[list[Finding], list[str]]:
    """Findings, and the machines whose chip has no known peak.

    Args:
        loaded: Measured runs, or None for the published tables alone.
        with_published: Whether the published tables are audited too.
        with_speeds: Whether the printed speeds of segmenters are, too.
    """
    said = speed_findings(printed_speeds(), published_operations()) if with_speeds else []
    rows = [published_rows(published())] if with_published else []
    operations = [published_operations().assign(source="")]
    if loaded is not None:
        rows.append(measured_rows(loaded.measurements))
        if not loaded.counts.empty:
            counted = loaded.counts[_COUNTED]
            operations.append(counted.assign(source="measured: " + loaded.counts["run_id"]))
    filled = [each for each in rows if not each.empty]
    if not filled:
        return said, []
    table = pd.concat(filled, ignore_index=True)
    findings = audit(table, pd.concat(operations, ignore_index=True))
    if loaded is not None:
        models = list(dict.fromkeys(loaded.measurements["model"]))
        findings += rankings(ratios(loaded, models))
    return [*findings, *said], list(unchecked(table))


def published_trainings() -> tuple[list[TrainingLog], Printed]:
    """The paper's own trainings, and what it prints of each."""
    logs = published_logs()
    return logs, {log.name: published_miou(log.group, log.label) for log in logs}


def section(out: Writer, loaded: Results | None, *, with_published: bool) -> list[Finding]:
    """Writes the findings of times, or that there are none."""
    findings, unknown = audited(loaded, with_published=with_published)
    _times(out, findings, unknown)
    return findings


def _times(out: Writer, findings: Sequence[Finding], unknown: Sequence[str]) -> None:
    out.heading("Audit")
    if findings:
        speeds = any(each.finding in SPEED_FINDINGS for each in findings)
        rule = f"{AUDIT_RULE}; {SPEEDS_RULE}" if speeds else AUDIT_RULE
        out.table(_table(findings), f"Times that cannot be taken as they stand. {rule}.")
    else:
        out.paragraph(f"Nothing was found. {AUDIT_RULE}.")
    if unknown:
        out.paragraph(
            "Not held against a peak, since no datasheet figure is listed: "
            + ", ".join(dict.fromkeys(unknown))
            + "."
        )


def _table(findings: Sequence[Finding]) -> pd.DataFrame:
    return pd.DataFrame([asdict(finding) for finding in findings])


def trainings(
    out: Writer, courses: Sequence[Mapping[str, Any]], findings: Sequence[Finding]
) -> None:
    """Writes what logs of trainings say, and which claims they do not carry."""
    out.heading("Audit of trainings")
    out.table(courses_table(courses), COURSES_CAPTION)
    if findings:
        out.table(_table(findings).drop(columns="machine"), f"{CLAIMS_RULE}.")
    else:
        out.paragraph(f"Nothing was found. {CLAIMS_RULE}.")


COURSES_CAPTION = (
    f"Trainings by their logs. Span: of the mIoU of the last {WINDOW} epochs, in points. "
    "Adversarial loss: mean of the first and of the last epoch, before lambda; a discriminator "
    "that cannot tell gives 0.69. Epoch: from one to the next, and what of it trains, at most; "
    "medians. Waiting: the share of training in which a step waits for data"
)


def courses_table(courses: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Summaries of logs (`dabench.findings.claims.summary`) as a table of text."""
    return pd.DataFrame(
        {
            "run": ": ".join(dict.fromkeys((course["run"], course["label"]))),
            "epochs": str(course["epochs"]),
            "steps": "-" if course["steps"] is None else f"{course['steps']:,}",
            "last mIoU %": _number(course["miou"], 100),
            "best": _number(course["best_miou"], 100),
            "span": _number(course["span"], 100),
            "adversarial loss": _course(course["adversarial_first"], course["adversarial_last"]),
            "disc. loss": _number(course["disc_loss_last"], digits=2),
            "epoch": format_seconds(course["epoch_s"]),
            "of it training": format_seconds(course["training_s"]),
            "a step": format_seconds(course["step_s"]),
            "waiting": "-" if course["waiting"] is None else f"{course['waiting']:.0%}",
            "flags": ", ".join(course["flags"]),
        }
        for course in courses
    )


def _number(value: float | None, scale: float = 1, digits: int = 1) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


def _course(first: float | None, last: float | None) -> str:
    return "-" if first is None else f"{first:.2f} to {last:.2f}"


def write_audit(
    times: tuple[Sequence[Finding], Sequence[str]] | None,
    of_trainings: tuple[Sequence[Mapping[str, Any]], Sequence[Finding]],
    folder: Path,
) -> Path:
    """Writes ``audit.md``.

    Args:
        times: Of `audited`; None where no times were audited.
        of_trainings: Summaries of logs, and what was found in them.
        folder: Made if missing.

    Raises:
        UsageError: The folder cannot be written.
    """
    out = Markdown()
    out.heading("dabench audit", level=1)
    if times is not None:
        _times(out, *times)
    if of_trainings[0]:
        trainings(out, *of_trainings)
    path = folder / "audit.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, out.text())
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
    return path
