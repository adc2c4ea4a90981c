"""What ``run.json`` says of the images that int8 was calibrated on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dabench.plan.axes import INT8
from dabench.records.folder import RUN, bad_row

FIELD = "calibration"
"""Network -> number of images -> `dabench.data.calibration.Calibration.to_dict`."""


def calibration_lines(document: Mapping[str, Any]) -> list[str]:
    """What a run's int8 was calibrated on and lacks, in words; none where nothing is in int8."""
    plan = [each["case"] for each in document.get("plan", ())]
    quantised = [case for case in plan if case["dtype"] == INT8]
    lines: dict[str, None] = {}
    for counts in document.get(FIELD, {}).values():
        for count, each in counts.items():
            drawn = " (SYNTHETIC)" * each["synthetic"]
            seed = f"chosen by seed {each['seed']}"
            lines[f"int8: calibrated on {count} images of {each['data']}{drawn}, {seed}"] = None
    native = document["environment"].get("native", {}).get("cpu", ())
    if quantised and INT8 not in native:
        lines["int8: no dot products on this machine; weights have seven bits"] = None
    return list(lines)


def read_digests(folder: Path, document: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """By network and number of images, the digest of what was calibrated on.

    Raises:
        ResultsError: Not what dabench writes.
    """
    with bad_row(folder / RUN, 1):
        return {
            (str(model), str(count)): str(each["digest"])
            for model, counts in document.get(FIELD, {}).items()
            for count, each in counts.items()
        }
