"""``pytest-benchmark``: the JSON of ``--benchmark-json``.

What it has no place for lies under a key of its own, which it passes over: what
dabench wrote it reads back whole. Files of others become runs of callables, a
launch each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import json_text, write_atomically
from dabench.exchange.document import KEY, document_of, read_json, runs_of
from dabench.exchange.foreign import foreign_run
from dabench.exchange.runs import WholeRun


class PytestBenchmark:
    """A file that ``pytest --benchmark-compare`` reads."""

    suffix = ".json"

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes an entry per case and phase; pytest-benchmark takes launches for one."""
        environment = runs[0].document["environment"]
        document = {
            "machine_info": {
                "processor": environment.get("cpu"),
                "python_version": environment.get("python"),
                "cpu": {"brand_raw": environment.get("cpu"),
                        "count": environment.get("logical_cores")},
            },
            "commit_info": {"id": environment.get("commit") or "unversioned"},
            "benchmarks": [entry for run in runs for entry in _entries(run)],
            "datetime": runs[0].document["created"],
            "version": metadata.version("pytest-benchmark"),
            KEY: document_of(runs),
        }  # fmt: skip
        write_atomically(out, json_text(document))
        return ["for pytest-benchmark itself, which sample is of which launch"]

    def read(self, path: Path) -> list[WholeRun]:
        """Reads what `write` or pytest-benchmark wrote.

        Raises:
            UsageError: Without samples.
            ResultsError: Not of this format.
        """
        document = read_json(path)
        if KEY in document:
            return runs_of(path, document)
        try:
            return [_foreign(path, document)]
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{path}: not of pytest-benchmark: {error!r}") from error


def _entries(run: WholeRun) -> Iterator[dict[str, Any]]:
    from pytest_benchmark.stats import Stats

    for case, phase, launches in run.timed():
        stats = Stats()
        stats.data = [seconds for launch in launches for seconds in launch]
        name = f"{case.case_id} {phase}"
        yield {
            "group": None,
            "name": name,
            "fullname": f"{run.run_id}::{name}",
            "params": None,
            "param": None,
            "extra_info": {"launches": len(launches)},
            "options": {},
            "stats": {**stats.as_dict(), "data": stats.data, "iterations": 1},
        }


def _foreign(path: Path, document: Mapping[str, Any]) -> WholeRun:
    machine = document["machine_info"]
    cpu = machine.get("cpu") or {}
    samples: dict[str, list[float]] = {}
    for entry in document["benchmarks"]:
        data = entry["stats"].get("data")
        if not data:
            raise UsageError(
                f"{path}: {entry['fullname']} has no samples; pytest-benchmark keeps them with "
                "--benchmark-json or --benchmark-save-data"
            )
        samples[str(entry["fullname"])] = [float(seconds) for seconds in data]
    environment = {
        "cpu": cpu.get("brand_raw") or machine.get("processor") or machine.get("machine"),
        "logical_cores": cpu.get("count"),
        "python": machine.get("python_version"),
        "commit": (document.get("commit_info") or {}).get("id"),
    }
    return foreign_run(
        path, "pytest-benchmark", samples, device="cpu", environment=environment,
        created=document.get("datetime"),
    )  # fmt: skip
