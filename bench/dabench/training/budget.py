"""How long a run trains: so many steps, or so many seconds of them."""

from __future__ import annotations

import math
import sys

from dabench.base.errors import DabenchError, bad_value
from dabench.timing.clock import Clock, host_clock
from dabench.training.config import TrainConfig


class BudgetError(DabenchError):
    """A method cannot do with the seconds it is given."""


class Budget:
    """Counts what a run has spent of its steps or seconds.

    Seconds are those of steps, with waiting for data and without evaluation. The step in
    which they end is the last.

    Args:
        config: Of the run.
        steps_per_epoch: Steps in one pass over the training frames.
        clock: The host's.
    """

    def __init__(
        self, config: TrainConfig, steps_per_epoch: int, clock: Clock = host_clock
    ) -> None:
        self._seconds, self._method = config.seconds, config.method
        self._by_epoch = config.recipe == "paper"
        self._steps_per_epoch = steps_per_epoch
        self._clock = clock
        self.steps = sys.maxsize
        if self._seconds is None:
            self.steps = config.steps or (config.epochs or 1) * steps_per_epoch
        self._spent = self._of_epochs = 0.0
        self._begun: float | None = None

    def resume(self, seconds: float) -> None:
        """Continues after so many seconds of steps."""
        self._spent = self._of_epochs = seconds

    def begin_epoch(self) -> None:
        """Steps follow."""
        self._of_epochs = self._spent
        self._begun = self._clock()

    def end_epoch(self) -> float:
        """No more steps for now; the seconds since `begin_epoch`."""
        self._spent = self._now()
        self._begun = None
        return self._spent - self._of_epochs

    def _now(self) -> float:
        return self._spent if self._begun is None else self._of_epochs + self._clock() - self._begun

    def is_spent(self, step: int) -> bool:
        """Whether the step of this number, from 0, is too many.

        Raises:
            BudgetError: The first step took longer than all of them may.
        """
        if self._seconds is None or step == 0:
            return step >= self.steps
        now = self._now()
        if step == 1 and now >= self._seconds:
            takes = f"the first step of {self._method} took {now:.2g} s here"
            raise BudgetError(str(bad_value("--seconds", f"{self._seconds:g}", takes)))
        return now >= self._seconds

    def progress(self, step: int) -> float:
        """The share that is spent before a step, which decides the learning rate.

        The paper's follows the epoch: it is the share at the epoch's beginning.
        """
        if self._seconds is None:
            if self._by_epoch:
                epoch = step // self._steps_per_epoch
                return epoch / math.ceil(self.steps / self._steps_per_epoch)
            return step / self.steps
        return min((self._of_epochs if self._by_epoch else self._now()) / self._seconds, 1.0)

    def steps_in_all(self, done: int) -> int:
        """How many there will be: as asked for, or as the speed so far lets expect."""
        if self._seconds is None:
            return self.steps
        return max(done, round(done * self._seconds / max(self._now(), 1e-9)))
