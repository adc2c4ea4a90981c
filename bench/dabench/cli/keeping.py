"""``dabench ls``, ``show``, ``tag``, ``note``, ``prune`` and ``merge``: runs that are kept."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value
from dabench.base.units import format_bytes, parse_duration
from dabench.cli.loads import Deadline, Percentiles, asked, loads_document, print_loads
from dabench.cli.options import Json, option
from dabench.cli.output import error_line, print_json, print_line, print_table

if TYPE_CHECKING:
    from dabench.records.catalog import Entry

ROOT = Path("results")
Roots = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER...", help="Where runs lie. Default: results.", show_default=False
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


def ls(
    roots: Roots = None,
    tag: Annotated[str | None, option("--tag", "Only runs with this tag.")] = None,
    kind: Annotated[str | None, option("--kind", "Only runs of this kind.")] = None,
    json: Json = False,
) -> None:
    """List runs: when, of what kind, on which machine, with what tags."""
    from dabench.base.errors import check_choice
    from dabench.records.catalog import catalogue
    from dabench.records.folder import KINDS

    if kind is not None:
        check_choice("--kind", kind, KINDS)
    entries, unreadable = catalogue(roots or [ROOT])
    chosen = [
        each
        for each in entries
        if (tag is None or tag in each.labels.tags) and kind in (None, each.document["kind"])
    ]
    if json:
        print_json(
            {"runs": [_summary(each) for each in chosen], "unreadable": dict(_said(unreadable))}
        )
        return
    print_table(
        "",
        ("run", "kind", "begun (UTC)", "machine", "size", "tags", "notes"),
        (
            (
                str(each.path),
                each.document["kind"],
                each.created[:16].replace("T", " "),
                each.document["environment"].get("cpu") or "-",
                format_bytes(each.size_bytes),
                ", ".join(each.labels.tags),
                "; ".join(note.text for note in each.labels.notes),
            )
            for each in chosen
        ),
        words=("run", "kind", "begun (UTC)", "machine", "tags", "notes"),
    )
    for path, reason in _said(unreadable):
        error_line(f"{path} cannot be read: {reason}")


def _said(unreadable: Sequence[tuple[Path, str]]) -> list[tuple[str, str]]:
    return [(str(path), reason) for path, reason in unreadable]


def _summary(entry: Entry) -> dict[str, Any]:
    notes = [{"at": note.at, "text": note.text} for note in entry.labels.notes]
    return {
        "run": str(entry.path),
        "kind": entry.document["kind"],
        "created": entry.created,
        "machine": entry.machine,
        "cpu": entry.document["environment"].get("cpu"),
        "gpus": entry.document["environment"].get("gpus"),
        "bytes": entry.size_bytes,
        "tags": list(entry.labels.tags),
        "notes": notes,
        "command": entry.document["command"],
    }


def show(
    run: Run,
    percentiles: Percentiles = None,
    deadline: Deadline = None,
    json: Json = False,
) -> None:
    """Show one run: its machine, what was asked, and of timings what was measured."""
    from dabench.cli.measurements import print_measurements
    from dabench.records.catalog import read_entry
    from dabench.records.folder import read_json
    from dabench.records.merging import PROVENANCE
    from dabench.records.summary import summarised

    names, deadline_s = asked(percentiles, deadline)
    entry = read_entry(run)
    if entry.document["kind"] != "timing" and (percentiles or deadline):
        option = "--percentiles" if percentiles else "--deadline"
        raise UsageError(f"{option}: {run} is a run of kind {entry.document['kind']}, not timing")
    tails = run if entry.document["kind"] == "timing" else None
    rows = summarised(run, entry.document) if entry.document["kind"] == "timing" else []
    provenance = read_json(run / PROVENANCE) or []
    if json:
        print_json(
            {
                **_summary(entry),
                "environment": entry.document["environment"],
                "provenance": provenance,
                "measurements": [row.to_dict() for row in rows],
                **loads_document(tails, rows, names, deadline_s),
            }
        )
        return
    environment = entry.document["environment"]
    facts = {
        "run": str(run),
        "kind": entry.document["kind"],
        "begun": f"{entry.created[:16].replace('T', ' ')} UTC",
        "command": entry.document["command"],
        "machine": f"{environment.get('cpu')}, {environment.get('logical_cores')} cores",
        "GPUs": ", ".join(environment.get("gpus") or []),
        "identity": entry.machine,
        "torch": environment.get("torch", ""),
        "dabench": environment.get("commit") or environment.get("dabench") or "",
        "size": format_bytes(entry.size_bytes),
        "tags": ", ".join(entry.labels.tags),
        "merged from": ", ".join(each["bundle"] for each in provenance),
    }
    said = [(name, str(value)) for name, value in facts.items() if value]
    said += [(f"note of {note.at[:10]}", note.text) for note in entry.labels.notes]
    print_table("", ("what", "value"), said, words=("what", "value"))
    if rows:
        print_measurements(rows)
        print_loads(tails, rows, names, deadline_s)
    else:
        print_line(f"For tables and pictures of it: {shlex.join(['dabench', 'report', str(run)])}")


def tag(
    run: Run,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Such as release or v1-2.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take them off.")] = False,
) -> None:
    """Tag a run: 'dabench prune' keeps it, 'dabench ls --tag' finds it."""
    from dabench.records.catalog import label

    labels = label(run, remove=tags) if remove else label(run, add=tags)
    print_line(f"{run}: {', '.join(labels.tags) or 'no tags'}")


def note(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What there is to say of it.")],
) -> None:
    """Add a note to a run."""
    from dabench.records.catalog import label

    if not text.strip():
        raise bad_value("TEXT", text, "it takes something to say")
    label(run, note=text)


def prune(
    roots: Roots = None,
    older_than: Annotated[
        str | None, option("--older-than", "Only runs begun before that, such as 30d.")
    ] = None,
    keep: Annotated[str | None, option("--keep", "The latest N stay whatever their age.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete old runs; asks before it does, and keeps what is tagged."""
    from dabench.records.catalog import catalogue, prunable, remove_run, run_folders

    if older_than is None and keep is None:
        raise UsageError("prune needs --older-than or --keep")
    latest = _whole(keep)
    entries, unreadable = catalogue(roots or [ROOT])
    for path, reason in unreadable:
        error_line(f"{path} is kept: it cannot be read: {reason}")
    chosen, tagged = prunable(entries, before=_before(older_than), keep=latest)
    for entry in tagged:
        print_line(f"kept, since it is tagged: {entry.path}")
    if not chosen:
        print_line("Nothing to delete.")
        return
    for entry in chosen:
        within = sum(1 for _ in run_folders(entry.path, nested=True)) - 1
        more = f", with {within} runs within" if within else ""
        print_line(f"{entry.path} ({entry.document['kind']}, {entry.created[:10]}{more})")
    size = format_bytes(sum(entry.size_bytes for entry in chosen))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("prune asks before it deletes; without a terminal say --yes")
        typer.confirm(f"Delete these {len(chosen)} runs ({size})?", abort=True)
    for entry in chosen:
        try:
            remove_run(entry.path)
        except UsageError as error:
            error_line(f"kept: {error}")


_DIGITS = 9


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isdecimal() and text.isascii() and len(text) <= _DIGITS):
        raise bad_value("--keep", text, "it takes a whole number of at least 0")
    return int(text)


def _before(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        raise bad_value("--older-than", text, "it takes an age such as 12h or 30d") from None


def merge(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Folders or archives of runs.")
    ],
    into: Annotated[Path, typer.Option("--into", help="Folder that they are copied to.")] = ROOT,
) -> None:
    """Bring in runs of other machines; refuses what contradicts a run that is there.

    Each keeps a record of the bundle it came from.
    """
    from dabench.records.merging import merge as merged_into

    merged = merged_into(bundles, into)
    for name in merged.new:
        print_line(f"{into / name}")
    print_line(f"{len(merged.new)} new, {len(merged.known)} known already")
