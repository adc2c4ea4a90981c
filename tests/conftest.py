"""What all tests share."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Ceilings are measured once for all tests, and no test reads what its user measured."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("DABENCH_CACHE")
    os.environ["DABENCH_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DABENCH_CACHE"]
    else:
        os.environ["DABENCH_CACHE"] = before
