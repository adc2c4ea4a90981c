"""Benchmarks of what the project promises, as ratios to something measured beside it.

``make bench`` measures and checks the figures; the ordinary tests only run the
quick ones' code once, and assert nothing about time. No bound is in seconds and
none depends on the kind of processor: what a machine has not is skipped, with
the reason.
"""

import time
from statistics import median

import pytest


class Comparison:
    """Alternates callables, A B B A, and compares their times."""

    def __init__(self, benchmark):
        self.benchmark = benchmark
        self.measuring = benchmark.enabled

    def medians(self, *functions, rounds=7, warmup=1):
        """Median seconds of each function; also run once under pytest-benchmark."""
        return [median(taken) for taken in self.times(*functions, rounds=rounds, warmup=warmup)]

    def times(self, *functions, rounds, warmup=1):
        """Seconds of each function in each round; also run once under pytest-benchmark."""
        times = [[] for _ in functions]
        for index in range(rounds + warmup if self.measuring else 1):
            # In turn from either end: what changes within a round favours none.
            order = list(zip(times, functions, strict=True))[:: -1 if index % 2 else 1]
            for taken, function in order:
                begin = time.perf_counter()
                function()
                if index >= warmup or not self.measuring:
                    taken.append(time.perf_counter() - begin)
        self.benchmark.pedantic(functions[0], rounds=1, iterations=1)
        return times

    def check(self, name, value, *, at_least=None, at_most=None):
        """Records a figure, and holds it to its bound where time is measured."""
        self.benchmark.extra_info[name] = value
        print(f"\n{name}: {value:.3g} (bound: {at_least or at_most})")
        if self.measuring:
            assert at_least is None or value >= at_least, f"{name} {value:.3g} < {at_least}"
            assert at_most is None or value <= at_most, f"{name} {value:.3g} > {at_most}"


@pytest.fixture
def compare(benchmark):
    return Comparison(benchmark)


@pytest.fixture(scope="session")
def native():
    """Precisions this processor computes in."""
    from dabench.device.registry import open_device

    return open_device("cpu").native_dtypes()


def pytest_collection_modifyitems(config, items):
    if config.getoption("benchmark_enable", default=False):
        return
    for item in items:
        if "tests/benchmarks" in str(item.path).replace("\\", "/") and "quick" not in item.keywords:
            item.add_marker(pytest.mark.skip(reason="make bench measures it"))
