"""The audit's section: what cannot be true, and what cannot carry its ranking."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from dabench.base.errors import UsageError
from dabench.base.files import write_atomically
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
from dabench.findings.tables import Results, published, ratios
from dabench.report.text import Markdown, Writer

_COUNTED = [
    "model", "channels", "height", "width", "mode", "executed_macs", "min_bytes", "params",
]  # fmt: skip


def audited(loaded: Results | None, *, with_published: bool) -> tuple[list[Finding], list[str]]:
    """Findings, and the machines whose chip has no known peak.

    Args:
        loaded: Measured runs, or None for the published tables alone.
        with_published: Whether the published tables are audited too.
    """
    rows = [published_rows(published())] if with_published else []
    operations = [published_operations().assign(source="")]
    if loaded is not None:
        rows.append(measured_rows(loaded.measurements))
        if not loaded.counts.empty:
            counted = loaded.counts[_COUNTED]
            operations.append(counted.assign(source="measured: " + loaded.counts["run_id"]))
    filled = [each for each in rows if not each.empty]
    if not filled:
        return [], []
    table = pd.concat(filled, ignore_index=True)
    findings = audit(table, pd.concat(operations, ignore_index=True))
    if loaded is not None:
        models = list(dict.fromkeys(loaded.measurements["model"]))
        findings += rankings(ratios(loaded, models))
    return findings, list(unchecked(table))


def section(out: Writer, loaded: Results | None, *, with_published: bool) -> list[Finding]:
    """Writes the findings, or that there are none."""
    findings, unknown = audited(loaded, with_published=with_published)
    out.heading("Audit")
    if findings:
        frame = pd.DataFrame([asdict(finding) for finding in findings])
        out.table(frame, f"Times that cannot be taken as they stand. {AUDIT_RULE}.")
    else:
        out.paragraph(f"Nothing was found. {AUDIT_RULE}.")
    if unknown:
        out.paragraph(
            "Not held against a peak, since no datasheet figure is listed: "
            + ", ".join(dict.fromkeys(unknown))
            + "."
        )
    return findings


def write_audit(loaded: Results | None, folder: Path) -> Path:
    """Writes ``audit.md`` of the published tables and perhaps of measured runs.

    Raises:
        UsageError: The folder cannot be written.
    """
    out = Markdown()
    out.heading("dabench audit", level=1)
    section(out, loaded, with_published=True)
    path = folder / "audit.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, out.text())
    except OSError as error:
        raise UsageError(f"--out: cannot write {str(folder)!r}: {error.strerror}") from error
    return path
