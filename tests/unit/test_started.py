"""A process among others that one process started."""

import subprocess
import sys
import time

import psutil
import pytest

CHILD = """
import time
from dabench.base.started import end_with_launcher
end_with_launcher(interval_s=0.01)
print("ready", flush=True)
time.sleep(600)
"""
LAUNCHER = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="parents are told otherwise there")
def test_it_ends_with_a_launcher_that_was_killed():
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True
    ) as launcher:
        child = psutil.Process(int(launcher.stdout.readline()))
        assert child.status() != psutil.STATUS_ZOMBIE
        launcher.kill()
        launcher.wait()
        deadline = time.monotonic() + 60
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
