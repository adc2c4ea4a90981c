"""Paths nobody has run on their hardware say so, and those that were run do not."""

import pandas as pd
import pytest

from dabench.findings import proofs


@pytest.mark.parametrize(
    ("device", "runtime", "path"),
    [
        ("cpu", "eager", "cpu"),
        ("cpu", "openvino", "cpu"),
        ("cuda:1", "eager", "cuda"),
        ("cuda", "tensorrt", "cuda tensorrt"),
        ("mps", "eager", "mps"),
    ],
)
def test_a_path_is_a_device_or_a_runtime_on_it(device, runtime, path):
    assert proofs.path_of(device, runtime) == path


def test_rows_of_unproven_paths_say_so(monkeypatch):
    rows = pd.DataFrame(
        {"device": ["cpu", "cuda", "cuda"], "runtime": ["eager", "eager", "tensorrt"],
         "flags": ["drift +9%", "", "emulated"]}
    )  # fmt: skip
    assert set(proofs.proven()) >= {"cpu"}
    monkeypatch.setattr(proofs, "proven", lambda: frozenset({"cpu", "cuda"}))
    assert proofs.flags(rows).tolist() == [
        "drift +9%", "", f"emulated; {proofs.UNPROVEN}",
    ]  # fmt: skip
