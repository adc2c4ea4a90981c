"""Memory that is freed stays with the process, where the C library can be told so."""

import platform

import numpy as np
import pytest

from dabench.memory import freed_pages_kept, resident_bytes

BLOCK = 48 << 20


def growth_after_freeing():
    before = resident_bytes()
    block = np.ones(BLOCK, np.uint8)
    del block
    return resident_bytes() - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_pages_stay_for_the_next_allocation():
    assert growth_after_freeing() < BLOCK / 4
    with freed_pages_kept():
        assert growth_after_freeing() > BLOCK / 2
        assert growth_after_freeing() < BLOCK / 4  # the next one takes the same pages
    growth_after_freeing()
    assert growth_after_freeing() < BLOCK / 4  # and afterwards they go back
