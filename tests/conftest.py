"""What all tests share."""

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# Imports and the list of tests leave nothing to collect, and stay: whoever collects garbage, as
# timing does before it starts, would look through two million objects each time.
gc.disable()


def pytest_collection_finish():
    """All tests are there."""
    gc.freeze()
    gc.enable()


# A slow machine is no fault of what is tested.
settings.register_profile("dabench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dabench")
HOME = {name: os.environ.get(name) for name in ("HOME", "USERPROFILE", "TOX_ENV_DIR", "PY_COLORS")}
# Where processes share the tests, each has a core: two threads would take turns with the others',
# and such as spin while they wait take the core that the other half of the tests runs on.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# torch's compiler tries its vector instructions for each new cache, four seconds a network.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Ceilings are measured once for all tests, and no test reads what its user measured."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    folder = root / "cache"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("DABENCH_CACHE")
    os.environ["DABENCH_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DABENCH_CACHE"]
    else:
        os.environ["DABENCH_CACHE"] = before


@pytest.fixture
def slim():
    """The registry's networks an eighth as wide where any would do; who needs others closes it."""
    import slim

    with slim.slim() as patches:
        yield patches


@pytest.fixture
def undrawn(monkeypatch):
    """Charts of reports are empty files where nobody looks at them: each takes half a second."""
    monkeypatch.setattr("dabench.report.text.save", lambda chart, path: path.touch())


@pytest.fixture(autouse=True)
def variables():
    """What a test or a library it imports sets in the environment is gone with it."""
    before = dict(os.environ)
    yield
    for name in {*before, *os.environ} - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]


@pytest.fixture
def at_home(pytester, monkeypatch):
    """A session within a test has its user's home: else the server that forks workers is another,
    in this test and in the next one that needs any."""
    for name, value in HOME.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def threads():
    """Training and timing set the threads of their process; the next test has its own again."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(before)


# What one process runs in its order: commands that need what those before them wrote, both
# runtimes of one run, what a cluster, a browser or other processes are started for, and what
# imports the exporters, which takes seconds.
TOGETHER = (
    ("tests/e2e/test_cluster_runs.py",),
    ("tests/e2e/test_page.py",),
    ("tests/e2e/test_readme.py",),
    ("tests/e2e/test_variants_run.py::test_exported_networks_agree",),
    ("tests/unit/test_networks.py::test_no_weights_are_fetched",),
    ("tests/unit/test_world.py",),
    tuple(f"tests/unit/test_{name}.py" for name in ("deployment", "frames", "int8", "scoring")),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests go to whichever process is free."""
    from xdist.scheduler import LoadScopeScheduling

    class OneByOne(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((each[0] for each in TOGETHER if nodeid.startswith(each)), nodeid)

    return OneByOne(config, log)
