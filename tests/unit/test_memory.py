"""Memory that is freed stays with the process, where the C library can be told so."""

import json
import platform
import subprocess
import sys

import pytest
from fakes import make_case

from dabench.base.errors import UnsupportedError
from dabench.device import memory
from dabench.run import worker

# In a process of its own: this one's heap has been through much.
CODE = """
import json
import numpy as np
from dabench.device.memory import freed_pages_kept, resident_bytes

def growth():
    before = resident_bytes()
    block = np.ones(48 << 20, np.uint8)
    del block
    return (resident_bytes() - before) / (48 << 20)

seen = [growth()]
with freed_pages_kept():
    seen += [growth(), growth()]
growth()
seen.append(growth())
print(json.dumps(seen))
"""


HUGE = """
import ctypes
from dabench.device import memory

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
library.sbrk.restype, library.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
stay = [memory.freed_pages_stay()]
memory.keep_freed_pages()
stay.append(memory.freed_pages_stay())
# More than an int holds; not touched, it costs nothing.
library.free(library.malloc(3 << 30))
kept = library.sbrk(0)
memory.give_freed_pages_back()
print(*stay, kept - library.sbrk(0) >= 3 << 30)
"""
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


@GLIBC
def test_blocks_of_any_size_stay_until_they_are_given_back():
    command = [sys.executable, "-c", HUGE]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "True", "True"]


@GLIBC
def test_freed_pages_stay_for_the_next_allocation():
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, kept, again, after = json.loads(shown.stdout)
    assert before < 0.25  # given back at once
    assert kept > 0.5
    assert again < 0.25  # the next one takes the same pages
    assert after < 0.25


def test_a_profile_keeps_memory_or_says_that_it_cannot(monkeypatch):
    kept = []
    monkeypatch.setattr(memory, "keep_freed_pages", lambda: kept.append(True))
    monkeypatch.setattr(memory, "freed_pages_stay", lambda: False)
    case = make_case(allocator="keep", threads=1)
    request = {"kind": "layers", "case": case.to_dict(), "seed": 0, "limit_s": 0.0}
    with pytest.raises(UnsupportedError, match="only by glibc's"):
        worker._layers(request, print)
    assert kept == [True]
