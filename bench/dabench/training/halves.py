"""The source's and the target's half of a step, side by side on processors."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Condition
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dabench.training.norms import norms_of
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
    sum of two is the same number in either order. None may add more than one.

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

    With it two batches can pass at once; `enter` then takes the double's batches
    into the running statistics as passes of the network itself would have.
    """

    def __init__(self, network: BiSeNet) -> None:
        self.network = sharing(network, network.parameters()).train()
        self._pairs = list(zip(norms_of(network), norms_of(self.network), strict=True))
        self._passes: list[tuple[_BatchNorm, Tensor, Tensor]] = []
        for _, double in self._pairs:
            # Its running statistics are then those of its last batch.
            double.momentum = 1.0
            double.reset_running_stats()

    @torch.no_grad()
    def passed(self) -> None:
        """Remembers the statistics of a pass of the double."""
        for own, double in self._pairs:
            # Heads that the pass left out have seen nothing.
            if double.num_batches_tracked:
                mean, var = (
                    double.get_buffer(f"running_{name}").clone() for name in ("mean", "var")
                )
                self._passes.append((own, mean, var))
                double.get_buffer("num_batches_tracked").zero_()

    @torch.no_grad()
    def enter(self) -> None:
        """Takes the statistics of the double's passes into the network's, in their order."""
        for own, mean, var in self._passes:
            assert own.momentum is not None
            own.get_buffer("running_mean").lerp_(mean, own.momentum)
            own.get_buffer("running_var").lerp_(var, own.momentum)
            own.get_buffer("num_batches_tracked").add_(1)
        self._passes.clear()


def sharing(network: BiSeNet, parameters: Iterable[nn.Parameter]) -> BiSeNet:
    """A copy of a network that has some of its parameters, the same objects."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in parameters}
    return copy.deepcopy(network, shared)


def with_own_norms(network: BiSeNet) -> BiSeNet:
    """A network of the same weights but for batch norms, of which it has a copy of its own.

    Chang et al., "Domain-specific batch normalization for unsupervised domain adaptation",
    CVPR 2019: statistics, scale and shift of each domain are apart.
    """
    own = {id(each) for norm in norms_of(network) for each in norm.parameters()}
    return sharing(network, (each for each in network.parameters() if id(each) not in own))
