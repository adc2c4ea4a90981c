"""A small run with fixed numbers, for golden files and tables."""

from functools import cache
from pathlib import Path
from typing import Any

from fakes import make_launch

from dabench.counting.counts import count_model
from dabench.plan.cases import Case, PlannedCase, expand
from dabench.plan.settings import Grid, Settings
from dabench.records.folder import RunFolder
from dabench.records.measurements import summarise
from dabench.records.timings import TimingRecord

ENVIRONMENT = {
    "cpu": "Test CPU", "cpu_flags": ["avx2"], "physical_cores": 2, "logical_cores": 4,
    "usable_cores": 4, "memory_bytes": 8 << 30, "load_1min": 0.1, "governor": None,
    "os": "Linux 6", "python": "3.11.7", "dabench": "0.1.0", "commit": "abc", "variables": {},
    "torch": "2.15.0", "threads": 2, "cpu_capability": "AVX2", "cuda": None, "cudnn": None,
    "driver": None, "gpus": [], "devices": ["cpu"],
}  # fmt: skip

SECONDS = {"disc": 2.0, "dw-disc": 1.0, "diag-disc": 1.5, "stdc1-bisenet": 0.25}

TIME_SHARES = {"dw-disc": {"leaky_relu_": 0.125}}


def small_case(model, **axes) -> Case:
    """A forward pass of a segmenter, as plain as can be but for what is named."""
    usual = {
        "family": "segmenter", "device": "cpu", "batch": 1, "channels": 3, "height": 64,
        "width": 64, "mode": "eval", "dtype": "fp32", "memory_format": "nchw", "threads": 0,
        "protocol": "steady", "phases": ("forward",),
    }  # fmt: skip
    return Case(model=model, **{**usual, **axes})


def write_record(folder: Path, **details) -> TimingRecord:
    """A run of timings in a new folder, made at a fixed time."""
    details = {"command": "dabench sweep test", "environment": ENVIRONMENT, "plan": [], **details}
    details = {"created": "2026-01-02T03:04:05+00:00", **details}
    run = RunFolder.create(folder, "timing", **details)
    return TimingRecord(run)


def write_medians(folder, launches, **details):
    """A run of {case: [median of each launch, ...]}, all three samples of a launch alike."""
    plan = [PlannedCase(case=case, settings=Settings.of()).to_dict() for case in launches]
    changes = details.pop("changes", {})
    writer = write_record(folder, plan=plan, **details)
    number = 0
    for index in range(max(map(len, launches.values()))):
        for case, medians in launches.items():
            if index < len(medians):
                times = medians[index] if isinstance(medians[index], list) else [medians[index]] * 3
                writer.launch(
                    make_launch(case, times, launch=number, round=index, **changes.get(case, {}))
                )
                number += 1
    return folder


@cache
def counted(model: str, mode: str) -> dict[str, Any]:
    """A count as it is kept; whoever reads it changes nothing."""
    return count_model(model, mode=mode).to_dict()


def write_run(root: Path, name: str = "20260102-030405-test", cpu: str = "Test CPU") -> Path:
    """Writes a run: the paper's CPU table, a steady pair, a segmenter that cannot train."""
    settings = Settings.of(repeat=3, launches=3)
    models = ("disc", "dw-disc", "diag-disc")
    both = {"devices": ("cpu",), "modes": ("train", "eval")}
    plan = [
        *expand(Grid(models=models, batches=(8,), protocols=("paper",), **both), settings),
        *expand(Grid(models=models, batches=(8,), phases=("forward",), **both), settings),
        *expand(Grid(models=("stdc1-bisenet",), phases=("forward",), **both), settings),
    ]
    environment = {**ENVIRONMENT, "cpu": cpu}
    writer = write_record(
        root / name,
        environment=environment,
        plan=[planned.to_dict() for planned in plan],
        rules={"warmup": "three passes agree", "flags": "none", "interval": "Student's t"},
        left_out=["bf16 is only emulated on cpu here and left out; --dtype bf16 measures it"],
    )
    rows, number = [], 0
    device = {"device_name": cpu, "threads": 2, "precision": "as is", "loss": None}
    for planned in plan:
        case = planned.case
        if planned.impossible:
            from dabench.records.measurements import failed

            rows += failed(case, "unsupported", planned.impossible)
            continue
        base = SECONDS[case.model] * (1.1 if case.mode == "train" else 1.0)
        launches = []
        for index in range(3):
            times = [base * (1 + 0.01 * index + 0.001 * i) for i in range(3)]
            times = times[:1] if case.protocol == "paper" else times
            launches.append(make_launch(case, times, launch=number, round=index, device=device))
            writer.launch(launches[-1])
            number += 1
        rows += summarise(case, launches, {"forward": (10**9, 2 * 10**9)}, None)
    writer.measurements(rows, number)
    graphs = [(m, mode) for m in models for mode in ("train", "eval")]
    counts = [counted(m, mode) for m, mode in graphs]
    writer.counts([{**c, "time_shares": TIME_SHARES.get(c["model"])} for c in counts])
    return root / name
