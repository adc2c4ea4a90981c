"""What the page shows, from the records of runs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dabench.base.units import format_launches, format_share
from dabench.device.machine import version_of
from dabench.findings.choices import Choice, choice_of
from dabench.findings.proofs import unproven_of
from dabench.findings.standings import STANDINGS_RULE, answers, standings, way_in_words
from dabench.findings.tables import Results, load
from dabench.findings.trainings import TrainingResults, load_training
from dabench.page.changes import change_sections
from dabench.page.charts import live_charts
from dabench.page.document import PageDocument
from dabench.page.known import Known
from dabench.page.measured import failed_launches, measured_columns, name_of, sampled
from dabench.page.tradeoffs import dots
from dabench.records.choices import TIMES
from dabench.records.folder import has_run, kind_of, read_run
from dabench.report.training import once_each, verdicts
from dabench.report.write import ONE_BY_ONE, OTHER_PARTS, Part, timing_sections

_INSIDE = {"choice": TIMES, "profile": "trials"}
"""Kind of run -> the folder in it that holds its timings."""

MOST_PRINTED = 3
"""Settings that a machine's headline names before the rest is folded away."""


@dataclass(frozen=True, slots=True)
class Page:
    """What one page holds, as JSON documents.

    Attributes:
        title: Of the page.
        shown: What is shown at once.
        samples: What is read when somebody opens a case: by measurement.
    """

    title: str
    shown: dict[str, Any]
    samples: dict[str, Any]


def gather(runs: Sequence[Path], title: str, known: Known | None = None) -> Page:
    """Reads runs for a page.

    Args:
        runs: Their folders, of whatever kinds.
        title: Of the page.
        known: What was made before, to which is added what is made now.

    Raises:
        UsageError: A folder without a run.
        ResultsError: Damaged records.
    """
    kinds = {run: kind_of(run) for run in dict.fromkeys(path.resolve() for path in runs)}
    timings = _timings(kinds)
    known = known or Known()
    known.begin([*kinds, *timings.values()])
    loaded = _load(timings) if timings else None
    inside = {path: name for name, path in timings.items()}
    choices = {
        inside[run / TIMES]: choice_of(run)
        for run, kind in kinds.items()
        if kind == "choice" and run / TIMES in inside
    }
    trained = [run for run, kind in kinds.items() if kind in ("train", "suite")]
    trainings = load_training(trained) if trained else None
    held = sampled(loaded) if loaded is not None else None
    places = standings(loaded) if loaded is not None else {}
    names = _named(kinds, timings)
    shown = {
        "made": _made(len(kinds)),
        "rules": {"standing": STANDINGS_RULE},
        "runs": [_provenance(run, name) for run, name in names.items()],
        "answers": _answers(loaded, choices, trainings),
        "measured": {} if loaded is None else measured_columns(loaded, places),
        "failed": [] if loaded is None else failed_launches(loaded),
        "tradeoff": dots(
            choices, loaded, timings, [r for r, kind in kinds.items() if kind == "eval"]
        ),
        "charts": live_charts(),
        "sections": _sections(kinds, names, loaded, timings, title, known),
        "step": 1 if held is None else held.step,
    }
    return Page(title, shown, {} if held is None else held.launches)


def _made(runs: int) -> str:
    """Of how many runs, when, and by what."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    version = version_of("dabench") or ""
    return f"{runs} run{'s' if runs != 1 else ''}; made {when} UTC by dabench {version}".strip()


def _timings(kinds: Mapping[Path, str]) -> dict[str, Path]:
    """Name -> folder of all timings, those within runs of other kinds included."""
    found: dict[str, Path] = {}
    for run, kind in kinds.items():
        inside = run / _INSIDE[kind] if kind in _INSIDE else run
        if kind == "timing" or (kind in _INSIDE and has_run(inside)):
            name = run.name + (f"/{inside.name}" if inside != run else "")
            found[_free(name, found)] = inside
    return found


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that no other run on the page has."""
    known = set(taken)
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in known else next(each for each in numbered if each not in known)


def _load(timings: Mapping[str, Path]) -> Results:
    """Reads timings, each run under the name that the page has for it."""
    loaded = load(list(timings.values()))
    names = dict(zip((run["run_id"] for run in loaded.runs), timings, strict=True))
    frames = (loaded.measurements, loaded.samples, loaded.launches, loaded.counts)
    renamed = [
        frame.assign(run_id=frame["run_id"].map(names)) if not frame.empty else frame
        for frame in frames
    ]
    runs = [{**run, "run_id": names[run["run_id"]]} for run in loaded.runs]
    return Results(runs, *renamed)


def _named(kinds: Mapping[Path, str], timings: Mapping[str, Path]) -> dict[Path, str]:
    """Folder -> name of every run, timings within others included."""
    found = {path: name for name, path in timings.items()}
    for run in kinds:
        if run not in found:
            found[run] = _free(run.name, found.values())
    return found


_KEPT = (
    "cpu", "cpu_flags", "physical_cores", "logical_cores", "usable_cores", "memory_bytes", "gpus",
    "driver", "cuda", "cudnn", "os", "python", "dabench", "commit", "torch", "threads",
    "cpu_capability", "governor", "load_1min", "variables", "packages",
)  # fmt: skip


def _provenance(run: Path, name: str) -> dict[str, Any]:
    """Where a run's numbers come from."""
    document = read_run(run)
    environment = document["environment"]
    facts = {key: environment[key] for key in _KEPT if environment.get(key) not in (None, [], {})}
    return {
        "run_id": name,
        "kind": document["kind"],
        "created": document["created"],
        "command": document["command"],
        "environment": facts,
        "rules": document.get("rules", {}),
        "left_out": document.get("left_out", []),
    }


def _answers(
    loaded: Results | None,
    choices: Mapping[str, Choice],
    trainings: TrainingResults | None,
) -> list[dict[str, Any]]:
    """By machine, in words, with the measurements that each sentence rests on."""
    found: dict[str, list[dict[str, Any]]] = {}
    # What is known of accuracy, too, says more.
    order = sorted(
        choices, key=lambda name: all(c.accuracy is None for c in choices[name].candidates)
    )
    for run_id in order:
        choice = choices[run_id]
        keys = [] if choice.chosen is None else [
            name_of(run_id, choice.chosen.case.case_id, "forward")
        ]  # fmt: skip
        task = f"which to deploy (`{run_id}`)"
        found.setdefault(choice.machine, []).append(
            {"task": task, "text": " ".join(choice.says) + _unproven(choice), "keys": keys}
        )
    if loaded is not None:
        for each in answers(loaded):
            line = {"task": each.task, "text": each.text, "keys": [name_of(*k) for k in each.keys]}
            found.setdefault(each.machine, []).append(line)
        for machine, line in _deadlines(loaded):
            found.setdefault(machine, []).append(line)
    if trainings is not None:
        for machine, line in _methods(trainings):
            found.setdefault(machine, []).append(line)
    return [
        {"machine": machine, "first": MOST_PRINTED, "lines": lines}
        for machine, lines in found.items()
    ]


def _unproven(choice: Choice) -> str:
    case = None if choice.chosen is None else choice.chosen.case
    return "" if case is None else unproven_of(case.device, case.runtime)


def _deadlines(loaded: Results) -> Iterator[tuple[str, dict[str, Any]]]:
    """What holds a stream's rate."""
    rows = loaded.measurements
    streams = rows[(rows["status"] == "ok") & (rows["protocol"] == "stream")]
    for found in streams.to_dict("records"):
        row = {str(name): value for name, value in found.items()}
        share = row["on_time"]
        holds = "**keeps up**" if share == 1 else f"has {format_share(share)} of them done in time"
        several = f", {row['concurrency']} at once" if row["concurrency"] > 1 else ""
        unproven = unproven_of(row["device"], row["runtime"])
        yield (
            row["machine"],
            {
                "task": f"{row['rate']:g} frames a second, {row['height']}x{row['width']} "
                f"(`{row['run_id']}`)",
                "text": f"`{row['model']}` ({way_in_words(row)}{several}) {holds}, in "
                f"{format_launches(row['launches'])}{unproven}.",
                "keys": [name_of(row["run_id"], row["case_id"], row["phase"])],
            },
        )


def _methods(loaded: TrainingResults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whether methods help, on each pair of domains."""
    seen: Counter[str] = Counter()
    for (data, _), runs in loaded.runs.groupby(["data", "protocol"], sort=False):
        seen[str(data)] += 1
        good = once_each(runs)
        if good.empty:
            continue
        lines, _ = verdicts(good)
        marked = "**SYNTHETIC**: " if bool(runs["synthetic"].iloc[0]) else ""
        task = f"{data} ({', '.join(f'`{suite}`' for suite in dict.fromkeys(good['suite']))})"
        # Sections of one pair of domains stand in the order of their protocols.
        section = {"title": f"Accuracy: {data}", "number": seen[str(data)]}
        for line in lines:
            found = {"task": task, "text": marked + line, "keys": [], "section": section}
            yield str(good["machine"].iloc[0]), found


def _sections(
    kinds: Mapping[Path, str],
    names: Mapping[Path, str],
    loaded: Results | None,
    timings: Mapping[str, Path],
    name: str,
    known: Known,
) -> list[dict[str, Any]]:
    """What reports say of the runs, but for the measurements, which the page has by itself."""
    every = []
    for part, of_kinds in OTHER_PARTS.items():
        chosen = [run for run, kind in kinds.items() if kind in of_kinds]
        for runs in [[run] for run in chosen] if part in ONE_BY_ONE else [chosen] * bool(chosen):
            shown = [names[run] for run in runs]

            def make(out: PageDocument, part: Part = part, runs: list[Path] = runs) -> None:
                part(out, runs, Path(), name)

            every += known.sections(part.__name__, runs, shown, make)
    if loaded is not None:
        measured = loaded

        def make_timings(out: PageDocument) -> None:
            change_sections(out, measured, timings, name)
            out.runs = list(timings)
            timing_sections(out, measured, Path(), name, rows=False)

        every += known.sections("timings", list(timings.values()), list(timings), make_timings)
    return every
