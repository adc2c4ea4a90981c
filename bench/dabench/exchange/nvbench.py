"""``nvbench``: its ``--json``, with the samples in files beside it as of ``--jsonbin``.

Numbers of summaries and axes are texts there, samples are 32-bit. Launches, which
nvbench does not know, lie in a summary of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from dabench.base.errors import ResultsError, UsageError
from dabench.base.files import json_text, write_atomically
from dabench.exchange.document import read_json
from dabench.exchange.foreign import foreign_run
from dabench.exchange.runs import WholeRun
from dabench.plan.axes import AXES
from dabench.plan.cases import Case, PlannedCase
from dabench.plan.settings import Settings
from dabench.records.measurements import LaunchRecord, PhaseRecord
from dabench.timing.engine import PhaseSamples
from dabench.timing.samples import Sample

SAMPLES = "nv/json/bin:nv/cold/sample_times"
LAUNCHES = "dabench/launches"
VERSION = {"major": 1, "minor": 0, "patch": 0, "string": "1.0.0"}


class Nvbench:
    """A file that nvbench's comparing scripts read."""

    suffix = ".json"

    def write(self, runs: Sequence[WholeRun], out: Path) -> list[str]:
        """Writes a benchmark per model and a state per case and phase."""
        devices = [{"id": 0, "name": _device_name(runs[0])}]
        binary = out.with_name(f"{out.name}-bin")
        states: dict[str, list[dict[str, Any]]] = {}
        number = 0
        for run in runs:
            for case, phase, launches in run.timed():
                file = binary / f"{number}.bin"
                file.parent.mkdir(parents=True, exist_ok=True)
                pooled = [seconds for launch in launches for seconds in launch]
                file.write_bytes(np.asarray(pooled, dtype="<f4").tobytes())
                sidecar = f"{binary.name}/{file.name}"
                state = _state(run, case, phase, launches, sidecar)
                states.setdefault(case.model, []).append(state)
                number += 1
        document = {
            "meta": {"argv": ["dabench", "export"],
                     "version": {"json": VERSION, "nvbench": {**VERSION, "string": "0.0.0"}}},
            "devices": devices,
            "benchmarks": [
                {"name": model, "index": index, "devices": [0], "axes": _axes(of_model),
                 "states": of_model}
                for index, (model, of_model) in enumerate(states.items())
            ],
        }  # fmt: skip
        write_atomically(out, json_text(document))
        return [
            "whose clock it was: nvbench calls every time that of a GPU",
            "samples beyond 32 bits, warm-up passes, and times by the device's own clock",
            "the machine, but for the name of its device",
            "settings, memory, energy, rounds, what disturbed a launch and why it ended",
            "of streams the pass by itself and the queue",
            "all that a run says of itself, but for when it was begun",
            "operation counts, tags and notes",
            "cases that failed, and why",
        ]

    def read(self, path: Path) -> list[WholeRun]:
        """Reads what `write` or nvbench wrote with ``--jsonbin``.

        Raises:
            UsageError: Without samples.
            ResultsError: Not of this format.
        """
        document = read_json(path)
        try:
            names = {device["id"]: str(device["name"]) for device in document["devices"]}
            states = [
                (benchmark["name"], state)
                for benchmark in document["benchmarks"]
                for state in benchmark["states"] or ()
                if not state.get("is_skipped")
            ]
            if states and all(_summary(state, LAUNCHES) for _, state in states):
                return _own(path, states, names)
            return [_foreign(path, states, names)]
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ResultsError(f"{path}: not of nvbench: {error!r}") from error


def _device_name(run: WholeRun) -> str:
    environment = run.document["environment"]
    return str((environment.get("gpus") or [None])[0] or environment.get("cpu"))


def _axis_values(case: Case, phase: str) -> list[dict[str, str]]:
    values = {
        axis.key: axis.part(case) or str(axis.usual[0] if axis.usual else axis.unsaid)
        for axis in AXES.values()
        if axis.key not in ("model", "phase")
    }
    return [
        {"name": name, "type": "string", "value": value}
        for name, value in {**values, "phase": phase}.items()
    ]


def _axes(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, None]] = {}
    for state in states:
        for value in state["axis_values"]:
            found.setdefault(value["name"], {})[value["value"]] = None
    return [
        {"name": name, "type": "string", "flags": "",
         "values": [{"input_string": v, "description": "", "value": v} for v in values]}
        for name, values in found.items()
    ]  # fmt: skip


def _state(
    run: WholeRun, case: Case, phase: str, launches: Sequence[Sequence[float]], sidecar: str
) -> dict[str, Any]:
    values = _axis_values(case, phase)
    pooled = sorted(seconds for launch in launches for seconds in launch)
    n = len(pooled)

    def ranked(share: float) -> float:
        """Nearest rank, halves upwards, as nvbench has it."""
        return pooled[int(share * (n - 1) + 0.5)]

    mean = fmean(pooled)
    seconds = {"mean": mean, "min": pooled[0], "max": pooled[-1], "median": ranked(0.5),
               "q1": ranked(0.25), "q3": ranked(0.75)}  # fmt: skip
    summaries = [
        _number("nv/cold/sample_size", "Samples", "sample_size", n),
        *(_number(f"nv/cold/time/gpu/{k}", f"GPU Time {k}", "duration", v)
          for k, v in seconds.items()),
    ]  # fmt: skip
    if n > 1:
        noise = stdev(pooled)
        summaries += [
            _number("nv/cold/time/gpu/stdev/absolute", "Noise", "duration", noise),
            _number("nv/cold/time/gpu/stdev/relative", "Noise", "percentage", noise / mean),
        ]
    known = {"run": run.run_id, "created": run.document["created"], "case": case.to_dict(),
             "phase": phase, "sizes": [len(launch) for launch in launches]}  # fmt: skip
    summaries += [
        {"tag": SAMPLES, "name": "Samples Times File", "hint": "file/sample_times",
         "hide": "Not needed in table.",
         "data": [{"name": "filename", "type": "string", "value": sidecar},
                  {"name": "size", "type": "int64", "value": str(n)}]},
        {"tag": LAUNCHES, "name": "Launches", "hide": "Hidden by default.",
         "data": [{"name": "value", "type": "string", "value": json.dumps(known)}]},
    ]  # fmt: skip
    shown = " ".join(f"{value['name']}={value['value']}" for value in values)
    return {"name": f"Device=0 {shown}", "device": 0, "type_config_index": 0,
            "axis_values": values, "summaries": summaries, "is_skipped": False}  # fmt: skip


def _number(tag: str, name: str, hint: str, value: float) -> dict[str, Any]:
    kind = "int64" if isinstance(value, int) else "float64"
    data = [{"name": "value", "type": kind, "value": repr(value)}]
    return {"tag": tag, "name": name, "hint": hint, "data": data}


def _summary(state: Mapping[str, Any], tag: str) -> dict[str, str] | None:
    """The values of a summary by their names."""
    for each in state["summaries"] or ():
        if each["tag"] == tag:
            return {value["name"]: value["value"] for value in each["data"]}
    return None


def _samples(path: Path, state: Mapping[str, Any]) -> list[float]:
    """The samples of a state, from the file beside.

    Raises:
        UsageError: There is none.
        ValueError: It does not hold what it should.
    """
    said = _summary(state, SAMPLES)
    if said is None or "filename" not in said:
        raise UsageError(f"{path}: {state['name']} has no samples; nvbench keeps them: --jsonbin")
    # Beside the file; older nvbench named it from where it ran. Nothing else is read.
    near = path.resolve().parent.parent
    places = [near.joinpath(folder, said["filename"]) for folder in (path.resolve().parent, near)]
    known = (place for place in places if place.resolve().is_relative_to(near))
    file = next((place for place in known if place.is_file()), None)
    if file is None:
        raise UsageError(f"{path}: its samples {said['filename']} are not there")
    samples: list[float] = np.frombuffer(file.read_bytes(), dtype="<f4").astype(float).tolist()
    if len(samples) != int(said["size"]):
        raise ValueError(f"{file} holds {len(samples)} samples, not {said['size']}")
    return samples


def _foreign(
    path: Path, states: Sequence[tuple[str, Mapping[str, Any]]], names: Mapping[int, str]
) -> WholeRun:
    samples, device = {}, None
    for benchmark, state in states:
        device = names[state["device"]]
        samples[f"{benchmark} {state['name']}"] = _samples(path, state)
    return foreign_run(
        path, "nvbench", samples, device="cuda", environment={"gpus": list(names.values())},
        created=None, device_name=device,
    )  # fmt: skip


def _own(
    path: Path, states: Sequence[tuple[str, Mapping[str, Any]]], names: Mapping[int, str]
) -> list[WholeRun]:
    """Runs that dabench wrote, launch by launch."""
    device = next(iter(names.values()), None)
    created: dict[str, str] = {}
    plans: dict[str, dict[str, PlannedCase]] = {}
    launches: dict[str, dict[tuple[str, int], LaunchRecord]] = {}
    for _, state in states:
        said = _summary(state, LAUNCHES)
        assert said is not None
        known = json.loads(said["value"])
        name, case, sizes = known["run"], Case.of(known["case"]), known["sizes"]
        created[name] = known["created"]
        settings = Settings.of(launches=len(sizes), repeat=max(sizes))
        plans.setdefault(name, {})[case.case_id] = PlannedCase(case=case, settings=settings)
        samples = iter(_samples(path, state))
        of_run = launches.setdefault(name, {})
        for index, size in enumerate(sizes):
            timed = PhaseSamples(samples=[Sample(next(samples), None) for _ in range(size)])
            phase = PhaseRecord(
                phase=known["phase"], samples=timed, passes=1, peak_bytes=None, other_cores=0.0,
                throttled=None,
            )  # fmt: skip
            before = of_run.get((case.case_id, index))
            of_run[case.case_id, index] = LaunchRecord(
                launch=before.launch if before else len(of_run),
                case_id=case.case_id,
                status="ok",
                device={"device_name": device},
                phases=(*(before.phases if before else ()), phase),
            )
    return [
        WholeRun(
            {
                "run_id": name,
                "created": created[name],
                "command": "nvbench (imported)",
                "environment": {"cpu": device},
            },
            list(plans[name].values()),
            list(launches[name].values()),
        )
        for name in created
    ]
