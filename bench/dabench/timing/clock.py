"""The host clock, injected wherever time is read so that tests can bring their own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds from an arbitrary origin, never going back."""

host_clock: Clock = time.perf_counter
