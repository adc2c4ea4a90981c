"""Ceilings are measured once per machine and setting, and kept as runs."""

import threading

import pytest

from dabench.base.errors import DabenchError, UsageError
from dabench.plan.settings import Grid
from dabench.profiling.roofline import Setting
from dabench.records.ceilings import CEILINGS, read_ceilings
from dabench.records.folder import RunFolder, read_run
from dabench.run import ceilings
from dabench.run.ceilings import ceilings_of, measure_ceilings, resume_ceilings

HERE = {"cpu": "Test CPU", "usable_cores": 2, "variables": {}, "torch": "2.15"}
FP32, BF16 = Setting("cpu", "fp32", 1), Setting("cpu", "bf16", 1)


class Workers:
    """Answers requests for ceilings, each a little faster than the last."""

    def __init__(self, ok=True):
        self.asked = []
        self.ok = ok
        self.fails = ()

    def __enter__(self):
        return self

    def __exit__(self, *ending):
        pass

    def run(self, request, receive, *, timeout_s):
        self.asked.append((request["dtype"], request["threads"]))
        if not self.ok or request["dtype"] in self.fails:
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
    return tmp_path


def remembered(cache):
    (path,) = cache.glob(f"ceilings/*/{CEILINGS}")
    return path


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
    workers = Workers()
    ceilings_of([FP32], workers, HERE)
    remembered(cache).write_text(text)
    workers.asked.clear()
    ceilings_of([FP32], workers, HERE)
    ceilings_of([FP32], workers, HERE)
    assert len(workers.asked) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 99}'])
def test_a_damaged_run_is_begun_anew(cache, text):
    workers = Workers()
    ceilings_of([FP32], workers, HERE)
    remembered(cache).with_name("run.json").write_text(text)
    for _ in range(2):
        assert ceilings_of([FP32], workers, HERE)[FP32].flops_per_s == 1e9
    assert len(workers.asked) == 1


def test_what_an_older_dabench_remembered_is_measured_anew(cache):
    workers = Workers()
    ceilings_of([FP32], workers, HERE)
    path = remembered(cache)
    path.write_text(path.read_text().replace('"streams"', '"copies"'))
    ceilings_of([FP32], workers, HERE)
    assert len(workers.asked) == 2


def test_a_failure_says_why():
    with pytest.raises(DabenchError, match="cpu in fp32 could not be measured: no such thing"):
        ceilings_of([FP32], Workers(ok=False), HERE)


def test_what_is_known_needs_no_cache_that_can_be_written(cache, monkeypatch):
    workers = Workers()
    first = ceilings_of([FP32], workers, HERE)

    def refuse(*_, **__):
        raise UsageError("read-only")

    monkeypatch.setattr(ceilings.RunFolder, "create", refuse)
    assert ceilings_of([FP32], workers, HERE) == first
    # What is not known is measured, and then forgotten.
    assert ceilings_of([FP32, BF16], workers, HERE)[BF16].dtype == "bf16"
    assert workers.asked == [("fp32", 1), ("bf16", 1)]


def test_what_is_known_does_not_wait_for_a_lock(cache):
    workers = Workers()
    first = ceilings_of([FP32], workers, HERE)
    with RunFolder.open(remembered(cache).parent):
        assert ceilings_of([FP32], workers, HERE) == first


def test_a_lock_that_is_never_let_go_of_is_not_waited_for_forever(cache, monkeypatch):
    workers = Workers()
    ceilings_of([FP32], workers, HERE)
    monkeypatch.setattr(ceilings, "WAIT_S", 0.05)
    with RunFolder.open(remembered(cache).parent):
        assert BF16 in ceilings_of([BF16], workers, HERE)


def test_what_is_remembered_is_no_run_to_continue(cache, workers):
    measure_ceilings(GRID, again=False)
    with pytest.raises(UsageError, match="nothing is left"):
        resume_ceilings(remembered(cache).parent)


def test_a_run_that_measures_anew_does_so_when_it_goes_on(tmp_path, workers):
    measure_ceilings(GRID, again=False)
    workers.fails = ("bf16",)
    with pytest.raises(DabenchError):
        measure_ceilings(GRID, again=True, folder=tmp_path / "run")
    workers.fails, workers.asked = (), []
    resume_ceilings(tmp_path / "run")
    assert workers.asked == [("bf16", 1)]


def test_who_wants_the_same_waits_for_it(cache):
    """Two at once would slow each other down, and both would be too low."""
    both = threading.Barrier(2)
    asked = []

    class Slow(Workers):
        def run(self, request, receive, *, timeout_s):
            asked.append(request["dtype"])
            # Were the other let in, it would ask, too, before this one has answered.
            threading.Event().wait(0.05)
            return super().run(request, receive, timeout_s=timeout_s)

    def other():
        both.wait()
        found.append(ceilings_of([FP32], Slow(), HERE))

    found = []
    threads = [threading.Thread(target=other) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["fp32"]
    assert found[0] == found[1]


@pytest.fixture
def workers(monkeypatch):
    fake = Workers()
    monkeypatch.setattr(ceilings, "Launcher", lambda: fake)
    monkeypatch.setattr(ceilings, "describe_host", lambda: HERE)
    monkeypatch.setattr(
        ceilings, "probe", lambda launcher: {"devices": ["cpu"], "threads": 2, "gpus": []}
    )
    return fake


GRID = Grid(models=("-",), devices=("auto",), dtypes=("fp32", "bf16"), threads=(1,))


def test_a_run_of_ceilings_goes_on_where_it_stopped(tmp_path, workers):
    folder = tmp_path / "run"
    workers.fails = ("bf16",)
    with pytest.raises(DabenchError, match="cpu in bf16 could not be measured: no such thing"):
        measure_ceilings(GRID, again=False, folder=folder, command="dabench ceilings")
    assert read_run(folder)["kind"] == "ceilings"
    (kept,) = read_ceilings(folder)
    assert kept == FP32
    workers.fails = ()
    done = resume_ceilings(folder)
    assert [each.dtype for each in done.found] == ["fp32", "bf16"]
    assert workers.asked == [("fp32", 1), ("bf16", 1), ("bf16", 1)]
    assert list(read_ceilings(folder)) == [FP32, BF16]


def test_a_run_of_ceilings_of_another_machine_is_not_continued(tmp_path, workers, monkeypatch):
    folder = tmp_path / "run"
    measure_ceilings(GRID, again=False, folder=folder)
    monkeypatch.setattr(ceilings, "describe_host", lambda: {**HERE, "cpu": "Other"})
    with pytest.raises(UsageError, match='cpu was "Test CPU", here it is "Other"'):
        resume_ceilings(folder)


def test_a_run_of_ceilings_in_use_is_not_touched(tmp_path, workers):
    folder = tmp_path / "run"
    measure_ceilings(GRID, again=False, folder=folder)
    with (
        RunFolder.open(folder),
        pytest.raises(UsageError, match="is being written by another dabench"),
    ):
        resume_ceilings(folder)
