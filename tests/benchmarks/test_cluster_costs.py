"""What measuring on a cluster costs, and whether it gives the same times."""

import math
import time
from itertools import count
from statistics import fmean, median

import clusters
import pytest

from dabench.findings.selftest import NAME, _tested
from dabench.plan.cases import expand
from dabench.plan.places import Place
from dabench.plan.settings import Grid, Settings
from dabench.run.cluster import connected
from dabench.run.forecast import SweepCosts, forecast_sweep
from dabench.run.launcher import Launcher
from dabench.run.luggage import Luggage
from dabench.run.runner import launch_case
from dabench.run.session import NoProgress
from dabench.run.spreading import spread_grids
from dabench.timing.statistics import ratio_interval
from dabench.timing.verdicts import DELTA

pytestmark = pytest.mark.extras

DRIVER_S = 0.006
"""To keep a launch of 200 samples and begin the next (docs/scaling.md)."""


@pytest.fixture
def pools(monkeypatch):
    """Workers at home and on a cluster's node, both past their start."""
    pytest.importorskip("ray")
    with clusters.started(1) as started:
        monkeypatch.setenv("RAY_ADDRESS", started.address)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with connected(Place(), Luggage(None, {})) as cluster, Launcher() as home:
            (kind,) = cluster.found({}).kinds
            yield home, cluster.pool(kind)


def case(size, **how):
    grid = Grid(models=("dw-disc",), devices=("cpu",), sizes=((size, size),))
    (planned,) = expand(grid, Settings.of(**how))
    return planned


def test_a_launch_on_a_node_costs_little_more_than_at_home(compare, pools):
    """Of 200 trivial cases, from asking to the record: at most 50 ms each beyond the worker's."""
    planned = case(32, repeat=1, launches=1)

    def launch(pool):
        record = launch_case(planned, pool, 0)
        assert record.status == "ok", record.reason

    home, there = compare.times(*(lambda pool=pool: launch(pool) for pool in pools), rounds=200)
    compare.check(
        "ms that a node adds to a launch", 1e3 * (median(there) - median(home)), at_most=50
    )


def test_a_node_measures_what_home_measures(compare, pools):
    """The difference of medians is below what this machine's comparisons with itself can tell."""
    planned = case(128, repeat=50, launches=1)
    samples = ([], [])

    def launch(at):
        (phase,) = launch_case(planned, pools[at], 0).phases
        samples[at].append([each.wall_s for each in phase.samples.samples])

    compare.times(lambda: launch(0), lambda: launch(1), rounds=24, warmup=0)
    home, there = samples
    if not compare.measuring:
        return
    n = min(map(len, samples))
    found = ratio_interval(there[:n], home[:n], (range(n), range(n)))
    floor = _tested(planned.case.case_id, "forward", home, DELTA).floor
    print(f"\nnode over home: {found.estimate:.3f} ({found.low:.3f} to {found.high:.3f}), {NAME}")
    compare.check(
        "difference over the noise floor", abs(math.log(found.estimate)) / floor, at_most=1
    )


class Clocked(NoProgress):
    """An observer that knows when the first launch began and when the last one ended."""

    def __init__(self):
        self.begun = self.ended = 0.0

    def started(self, case):
        self.begun = self.begun or time.perf_counter()

    def finished(self, record):
        assert record.status == "ok", record.reason
        self.ended = time.perf_counter()


def test_a_sweep_takes_as_long_as_the_model_says(compare, monkeypatch, tmp_path):
    """On two nodes, against a forecast from what launches take at home, in turn with it."""
    pytest.importorskip("ray")
    grid = Grid(models=("dw-disc",), devices=("cpu",), sizes=((128, 128),), batches=(1, 2, 3, 4))
    settings = Settings.of(repeat=100, launches=3)
    plan = expand(grid, settings)
    numbers = count()

    def swept():
        observer = Clocked()
        spread_grids(
            [(grid, settings)], place=Place(), machines="any",
            folder=tmp_path / str(next(numbers)), observer=observer, command="",
        )  # fmt: skip
        took.append(observer.ended - observer.begun)

    def launched():
        for planned in plan:
            begin = time.perf_counter()
            assert launch_case(planned, home, 0).status == "ok"
            at_home.append(time.perf_counter() - begin)

    took, at_home = [], []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with clusters.started(2) as started, Launcher() as home:
        monkeypatch.setenv("RAY_ADDRESS", started.address)
        # A node's first launch also starts Ray's process there, which is no launch's cost.
        swept()
        compare.times(launched, swept, rounds=2, warmup=0)
    # Nodes of one host take turns: they are one machine to the model.
    costs = SweepCosts(machines=1, launch_s=fmean(at_home), driver_s=DRIVER_S)
    found = forecast_sweep(plan, costs).seconds
    ours = fmean(took[1:])
    print(f"\na sweep took {ours:.2f} s ({min(took):.2f} to {max(took):.2f}), forecast {found:.2f}")
    compare.check("a sweep or its forecast over the other", max(ours / found, found / ours),
                  at_most=1.1)  # fmt: skip
