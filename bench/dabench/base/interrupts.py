"""Ctrl-C between steps that belong together, not within them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the block has ended.

    Outside the main thread there is nothing to hold back: Python raises
    KeyboardInterrupt in the main one alone.
    """
    # None: a handler that was not installed from Python, which could not be put back.
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)
