"""Ceilings are measured once per machine and setting."""

import pytest

from dabench.base.errors import DabenchError
from dabench.run.ceilings import FILE, Setting, ceilings_of

HERE = {"cpu": "Test CPU", "usable_cores": 2, "variables": {}, "torch": "2.15"}
FP32, BF16 = Setting("cpu", "fp32", 1), Setting("cpu", "bf16", 1)


class Workers:
    """Answers requests for ceilings, each a little faster than the last."""

    def __init__(self, ok=True):
        self.asked = []
        self.ok = ok

    def run(self, request, receive, *, timeout_s):
        self.asked.append((request["dtype"], request["threads"]))
        if not self.ok:
            return {"kind": "failed", "status": "error", "reason": "no such thing"}
        found = {
            "device_name": "Test CPU",
            "kernels": {"matmul": 1e9 * len(self.asked)},
            "streams": [[1024, 1e9, "copy"]],
            "launch_s": 1e-6,
            "floors": {},
        }
        receive({"kind": "ceilings", "ceilings": found})
        return {"kind": "done"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DABENCH_CACHE", str(tmp_path))
    return tmp_path / FILE


def test_what_is_known_is_not_measured_again():
    workers = Workers()
    first = ceilings_of([FP32, FP32], workers, HERE)
    again = ceilings_of([FP32, BF16], workers, HERE)
    assert workers.asked == [("fp32", 1), ("bf16", 1)]
    assert again[FP32] == first[FP32]


def test_another_torch_or_machine_is_measured_and_both_are_kept():
    workers = Workers()
    others = ({"torch": "2.16"}, {"cpu": "Other"}, {"gpus": ["Other"]})
    for machine in (HERE, *({**HERE, **other} for other in others), HERE):
        ceilings_of([FP32], workers, machine)
    assert len(workers.asked) == 4


def test_again_replaces():
    workers = Workers()
    old = ceilings_of([FP32], workers, HERE)
    new = ceilings_of([FP32], workers, HERE, again=True)
    assert new[FP32].flops_per_s == 2 * old[FP32].flops_per_s
    assert ceilings_of([FP32], workers, HERE) == new


@pytest.mark.parametrize("text", ["", "[{}]", "null", '[{"ceilings": {"device": 1}}]'])
def test_a_damaged_file_is_measured_over(cache, text):
    cache.write_text(text)
    workers = Workers()
    ceilings_of([FP32], workers, HERE)
    ceilings_of([FP32], workers, HERE)
    assert len(workers.asked) == 1


def test_what_an_older_dabench_remembered_is_measured_anew(cache):
    workers = Workers()
    ceilings_of([FP32], workers, HERE)
    cache.write_text(cache.read_text().replace('"streams"', '"copies"'))
    ceilings_of([FP32], workers, HERE)
    assert len(workers.asked) == 2


def test_a_failure_says_why():
    with pytest.raises(DabenchError, match="cpu in fp32 could not be measured: no such thing"):
        ceilings_of([FP32], Workers(ok=False), HERE)
