"""pytest plugin: the fixture ``dabench``, which times networks and callables and guards them.

What it measures appears in pytest-benchmark's table, comparison and JSON; the records
lie in ``.dabench``. Imports nothing of weight until a test uses the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dabench.guard.state import ENDING, FAIL_SLOWER, SAID, SAVE, TAPE, TESTS, Tape

if TYPE_CHECKING:
    from dabench.guard.fixture import Guard


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, each beginning with ``--dabench-``."""
    group = parser.getgroup("dabench", "timing of networks (dabench)")
    group.addoption(
        "--dabench-fail-slower",
        metavar="PERCENT",
        help="Fail what is slower than its baseline by more than this, such as 5%%.",
    )
    group.addoption(
        "--dabench-save-baseline",
        action="store_true",
        help="Make what is measured now the baseline of this machine.",
    )
    group.addoption(
        "--dabench-storage",
        metavar="FOLDER",
        help="Where records and baselines lie. Default: .dabench below the root folder.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Checks the threshold, and that something will be measured, before anything is."""
    threshold = config.getoption(FAIL_SLOWER)
    if threshold is not None or config.getoption(SAVE):
        _check_measures(config)
    if threshold is not None:
        from dabench.base.errors import UsageError
        from dabench.base.units import threshold_of

        try:
            threshold_of("--dabench-fail-slower", threshold)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None


def _check_measures(config: pytest.Config) -> None:
    """Checks that nothing switches measuring off where a guard was asked for.

    Raises:
        pytest.UsageError: Something does: the guard would pass whatever comes.
    """
    name = "--dabench-fail-slower" if config.getoption(FAIL_SLOWER) else "--dabench-save-baseline"
    # A worker of xdist has no processes of its own.
    shares = config.getoption("numprocesses", None) or hasattr(config, "workerinput")
    for off, how in (
        (shares, "under -n; add -n0"),
        (config.getoption("benchmark_disable", False), "under --benchmark-disable"),
        (config.getoption("benchmark_skip", False), "under --benchmark-skip"),
    ):
        if off and not config.getoption("benchmark_enable", False):
            raise pytest.UsageError(f"{name}: nothing is measured {how}")


@pytest.hookimpl(trylast=True)  # behind those that leave tests out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives the tests that use the fixture a timer that plays back."""
    ours = [item for item in items if "dabench" in getattr(item, "fixturenames", ())]
    config.stash[TESTS] = len(ours)
    for item in ours:
        own = item.get_closest_marker("benchmark")
        tape = item.stash[TAPE] = Tape()
        options: dict[str, Any] = {**(own.kwargs if own else {}), "timer": tape}
        item.add_marker(pytest.mark.benchmark(**options), append=False)


@pytest.fixture
def dabench(request: pytest.FixtureRequest, benchmark: Any) -> Guard:
    """Times a network or a callable: ``dabench("dw-disc", batch=8)`` or ``dabench(function)``."""
    from dabench.guard.fixture import Guard

    return Guard(request.node, benchmark)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says what was compared, and where the records are."""
    if said := config.stash.get(SAID, []):
        terminalreporter.section("dabench")
        for line in said:
            terminalreporter.line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the session's folder where nothing was kept in it."""
    if (ending := config.stash.get(ENDING, None)) is not None:
        ending.close()
