"""The source's and the target's half of a step, side by side on processors."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Condition
from typing import Any, TypeVar

import torch
from torch import nn

from dabench.training.products import Task
from dabench.training.stopwatch import Stopwatch
from dabench_models.bisenet import BiSeNet

First = TypeVar("First")
Second = TypeVar("Second")

WAITING = 8
"""Pieces of work that two halves put off at most."""


class Halves:
    """Carries out two independent pieces of work, side by side or one after the other.

    Two passes on half of the cores each waste less than one after the other on
    all of them: small layers do not fill many cores, and every operation waits
    for its slowest thread. The result does not depend on which half is faster:
    torch adds a gradient to a parameter under a lock, each half adds one, and the
    sum of two is the same number in either order.

    Args:
        watch: Told where the time goes.
        threads: Processor threads to share; with one, and on devices that have
            a queue of their own, one half follows the other.
    """

    def __init__(self, watch: Stopwatch, threads: int) -> None:
        self._watch = watch
        self._threads = threads
        self._waiting: Waiting | None = None
        # A thread's first use of torch sets its number of threads to that of the process,
        # which must not come after its own: hence the initialiser.
        self._other = (
            ThreadPoolExecutor(1, "half-of-a-step", initializer=torch.get_num_threads)
            if threads > 1
            else None
        )

    def put_off(self, task: Task) -> None:
        """Leaves work of a half, that it does not wait for, to whichever half has time.

        Where one has a thread more than the other each does its own, or the result would
        depend on which was faster: sums differ with the number of threads.
        """
        if self._waiting is None or self._threads % 2:
            task()
        else:
            self._waiting.put(task)

    @property
    def at_once(self) -> bool:
        """Whether they run side by side."""
        return self._other is not None

    def run(
        self, first: Callable[[Stopwatch], First], second: Callable[[Stopwatch], Second]
    ) -> tuple[First, Second]:
        """What both return; each times its parts by the watch it is given."""
        if self._other is None:
            return first(self._watch), second(self._watch)
        before, share = torch.get_num_threads(), self._threads // 2
        waiting = Waiting()
        with self._watch.side_by_side() as (of_first, of_second):
            others = []
            try:
                self._waiting = waiting
                others.append(
                    self._other.submit(_on_threads, share, waiting.finished(second), of_second)
                )
                result = _on_threads(self._threads - share, waiting.finished(first), of_first)
            finally:
                # Wherever an error or Ctrl-C ended the first: the second neither waits for it
                # nor stays at work.
                waiting.close()
                wait(others)
                torch.set_num_threads(before)
                self._waiting = None
        return result, others[0].result()


class Waiting:
    """Work that two halves put off: the one that is done with its own takes it on.

    Few pieces wait at a time, since each holds memory; to a full list a half that
    would add does the oldest one itself.
    """

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._at_work = 2
        self._changed = Condition()

    def put(self, task: Task) -> None:
        """Leaves a task, or does an older one in return."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()
            oldest = self._tasks.popleft() if len(self._tasks) > WAITING else None
        if oldest is not None:
            oldest()

    def finished(self, half: Callable[[Stopwatch], First]) -> Callable[[Stopwatch], First]:
        """A half and then what is left, its own and the other's, to the end of both."""

        def whole(watch: Stopwatch) -> First:
            try:
                result = half(watch)
            finally:
                with self._changed:
                    self._at_work -= 1
                    self._changed.notify_all()
            while (task := self._next()) is not None:
                task()
            return result

        return whole

    def close(self) -> None:
        """Nobody need wait for more; what is left is still done by who left it."""
        with self._changed:
            self._at_work = 0
            self._changed.notify_all()

    def _next(self) -> Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._at_work <= 0)
            return self._tasks.popleft() if self._tasks else None


def _on_threads(threads: int, work: Callable[[Stopwatch], First], watch: Stopwatch) -> First:
    """Does the work with so many threads, a number that each thread has for itself."""
    torch.set_num_threads(threads)
    return work(watch)


class Double:
    """A segmenter's double: the same parameters, batch-norm statistics of its own.

    With it two batches can pass at once; `enter` then takes the double's batch
    into the running statistics as a second pass of the network itself would have.
    """

    def __init__(self, network: BiSeNet) -> None:
        shared: dict[int, Any] = {id(parameter): parameter for parameter in network.parameters()}
        self.network = copy.deepcopy(network, shared).train()
        norms = [
            [module for module in of.modules() if isinstance(module, nn.BatchNorm2d)]
            for of in (network, self.network)
        ]
        self._pairs = list(zip(*norms, strict=True))
        for _, double in self._pairs:
            # Its running statistics are then those of its last batch.
            double.momentum = 1.0
            double.reset_running_stats()

    @torch.no_grad()
    def enter(self) -> None:
        """Takes the statistics of the double's last pass into the network's."""
        for own, double in self._pairs:
            # Heads that the pass left out have seen nothing.
            if not double.num_batches_tracked:
                continue
            for statistic in ("running_mean", "running_var"):
                own.get_buffer(statistic).lerp_(double.get_buffer(statistic), own.momentum)
            own.get_buffer("num_batches_tracked").add_(1)
            double.get_buffer("num_batches_tracked").zero_()
