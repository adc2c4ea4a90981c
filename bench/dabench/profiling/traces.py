"""A trace of single passes for a viewer (Chrome, Perfetto), and the memory over their time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

from torch.profiler import profile

from dabench.network.workload import Workload

TRACE, MEMORY = "trace.json", "memory.csv"
MEMORY_COLUMNS = ("seconds", "device", "allocated_bytes")


def write_trace(load: Workload, phases: Sequence[str], folder: str) -> None:
    """Writes ``trace.json`` and ``memory.csv`` of one warm pass per phase.

    Args:
        load: Already warm.
        phases: In this order.
        folder: Must exist.
    """
    # Kineto writes to stderr that it finds no GPU, even where it is not used.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # Some versions of torch warn that without acc_events a second cycle would lose the first.
    with profile(record_shapes=True, profile_memory=True, acc_events=True) as profiler:
        for phase in phases:
            work = load.work(phase)
            work.prepare()
            work.run()
            work.release()
    trace = Path(folder) / TRACE
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    allocations = [event for event in events if event.get("name") == "[memory]"]
    begin = min((event["ts"] for event in allocations), default=0.0)
    with (trace.parent / MEMORY).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(MEMORY_COLUMNS)
        for event in sorted(allocations, key=lambda event: float(event["ts"])):
            facts = event["args"]
            device = "cpu" if facts["Device Type"] == 0 else f"device {facts['Device Id']}"
            rows.writerow([(event["ts"] - begin) / 1e6, device, facts["Total Allocated"]])
