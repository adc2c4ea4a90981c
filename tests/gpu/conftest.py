"""What ran here proves a path; `make test-gpu` writes it down."""

import os
from collections import Counter

RAN = Counter()
LEFT_OUT = []
RUNTIMES = ("cuda-graph", "onnxruntime", "tensorrt")


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        # The runtime is the test's parameter; without one it is the device itself.
        kind = next((name for name in RUNTIMES if f"[{name}]" in report.nodeid), "")
        RAN[kind] += 1


def pytest_deselected(items):
    LEFT_OUT.extend(items)


def pytest_sessionfinish(session, exitstatus):
    # A part of the tests proves nothing.
    whole = session.config.args == ["tests/gpu"] and not LEFT_OUT
    if exitstatus or not whole or not RAN or "DABENCH_PROVE" not in os.environ:
        return
    import csv
    from datetime import UTC, datetime
    from pathlib import Path

    import torch

    from dabench.device.machine import git_commit, version_of
    from dabench.findings.proofs import COLUMNS, FILE

    path = Path(__file__).parents[2] / "results" / "reference" / FILE
    date = datetime.now(UTC).date().isoformat()
    facts = (torch.cuda.get_device_name(), torch.__version__, version_of("dabench"), git_commit())
    with path.open("a", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for kind, count in RAN.items():
            row = (f"cuda {kind}".strip(), *facts, date, count)
            assert len(row) == len(COLUMNS)
            rows.writerow(row)
