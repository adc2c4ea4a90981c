"""How long a sweep on a cluster, or a training of several processes, would take: a simulation.

A discrete-event model of what the code does: the driver deals launches to machines as
`dabench.run.lanes` does, which it is driven by, and keeps what they return one after the other;
machines are lost, and are not equally fast. Its numbers are measured ones (docs/scaling.md); it
knows nothing that they do not say, such as a network that is shared.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dabench.plan.cases import PlannedCase, remaining
from dabench.run.lanes import Lanes


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepCosts:
    """What a sweep costs, in seconds.

    Attributes:
        machines: That take launches; nodes of one host are one.
        launch_s: Of a launch on a node, as long as the machine is a usual one.
        driver_s: Of the driver, to keep a launch and begin the next: one at a time.
        first_s: What a machine's first launch takes beside that.
        start_s: Until the first launch can begin, counting operations included.
        end_s: After the last one.
        launch_spread: Deviation of the logarithm of a launch's time.
        machine_spread: Likewise of a machine's speed.
        lost_every_s: Mean time until a machine is lost, for good; None: never.
        noticed_s: Until the driver knows.
    """

    machines: int
    launch_s: float
    driver_s: float = 0.0
    first_s: float = 0.0
    start_s: float = 0.0
    end_s: float = 0.0
    launch_spread: float = 0.0
    machine_spread: float = 0.0
    lost_every_s: float | None = None
    noticed_s: float = 0.0


class Forecast(NamedTuple):
    """What a simulation came to.

    Attributes:
        seconds: From the request to the end.
        launches: That were made, lost ones not counted.
        lost: Launches that were begun again.
        machines_left: At the end.
        busy: Share of the time of all machines, between the first launch and the last, that
            launches took.
        driver: Share of that time in which the driver worked.
    """

    seconds: float
    launches: int
    lost: int
    machines_left: int
    busy: float
    driver: float


class _Sweep:
    """The state of a simulated sweep."""

    def __init__(self, plan: Sequence[PlannedCase], costs: SweepCosts, seed: int) -> None:
        self._costs, self._random = costs, np.random.default_rng(seed)
        count = costs.machines
        self._lanes = Lanes(remaining(plan, {}), count)
        self._speeds = np.exp(self._random.normal(0.0, costs.machine_spread, count))
        every = costs.lost_every_s
        self._lost_at = (
            np.full(count, np.inf)
            if every is None
            else costs.start_s + self._random.exponential(every, count)
        )
        self._new = set(range(count))
        self._there = set(range(count))
        self._running: dict[int, PlannedCase] = {}
        # Begun again before anything else, on whichever machine is free.
        self._again: list[PlannedCase] = []
        self._events: list[tuple[float, int, bool]] = []
        self.made = self.lost = 0
        self.worked = 0.0

    def run(self) -> Forecast:
        """Simulates it."""
        costs, driver = self._costs, self._costs.start_s
        kept = 0.0
        while True:
            while (begun := self._next()) is not None:
                machine, planned = begun
                self._begin(machine, planned, driver)
            if not self._events:
                break
            at, machine, well = heapq.heappop(self._events)
            driver = max(driver, at) + costs.driver_s
            kept += costs.driver_s
            planned = self._running.pop(machine)
            if well:
                self.made += 1
            else:
                self.lost += 1
                self._there.discard(machine)
                self._again.append(planned)
        span = driver - costs.start_s
        return Forecast(
            driver + costs.end_s,
            self.made,
            self.lost,
            len(self._there),
            self.worked / (span * costs.machines) if span else 0.0,
            kept / span if span else 0.0,
        )

    def _next(self) -> tuple[int, PlannedCase] | None:
        free = sorted(self._there - self._running.keys())
        if not free:
            return None
        running = {each.case.case_id for each in self._running.values()}
        for place, planned in enumerate(self._again):
            if planned.case.case_id not in running:
                del self._again[place]
                return free[0], planned
        found = self._lanes.next_of(free, running)
        return None if found is None else (found[0], found[2])

    def _begin(self, machine: int, planned: PlannedCase, now: float) -> None:
        costs = self._costs
        taken = costs.launch_s * float(self._speeds[machine])
        taken *= float(np.exp(self._random.normal(0.0, costs.launch_spread)))
        if machine in self._new:
            self._new.remove(machine)
            taken += costs.first_s
        self._running[machine] = planned
        lost_at = max(float(self._lost_at[machine]), now)
        if lost_at < now + taken:
            heapq.heappush(self._events, (lost_at + costs.noticed_s, machine, False))
        else:
            self.worked += taken
            heapq.heappush(self._events, (now + taken, machine, True))


def forecast_sweep(plan: Sequence[PlannedCase], costs: SweepCosts, seed: int = 0) -> Forecast:
    """Simulates a sweep on machines of one kind.

    Args:
        plan: The cases.
        costs: What was measured.
        seed: Of what is drawn.

    Returns:
        What it came to; fewer launches than are due where all machines were lost.
    """
    return _Sweep(plan, costs, seed).run()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCosts:
    """What a training of several processes costs.

    Attributes:
        processes: Each on its share of every batch.
        steps: Of the whole training.
        step_s: Of a process on its share, as long as nothing slows it down.
        step_spread: Deviation of the logarithm of a step's time: all wait for the slowest.
        gradient_bytes: Of both networks.
        bytes_per_s: Between two processes.
        latency_s: Of a message.
        epoch_steps: Steps between checkpoints.
        checkpoint_s: To evaluate and write one.
        lost_every_s: Mean time until a process is lost; None: never.
        restart_s: Until all are started again.
    """

    processes: int
    steps: int
    step_s: float
    step_spread: float = 0.0
    gradient_bytes: float = 0.0
    bytes_per_s: float = float("inf")
    latency_s: float = 0.0
    epoch_steps: int = 1
    checkpoint_s: float = 0.0
    lost_every_s: float | None = None
    restart_s: float = 0.0

    @property
    def exchange_s(self) -> float:
        """Of averaging gradients round a ring: everything passes each link nearly twice."""
        others = self.processes - 1
        moved = 2 * others / self.processes * self.gradient_bytes
        return moved / self.bytes_per_s + 2 * others * self.latency_s


class TrainingForecast(NamedTuple):
    """What a simulation came to.

    Attributes:
        seconds: In all.
        exchange: Share of them that averaging gradients takes.
        waiting: Share that processes wait for the slowest.
        lost: How often all began again from the last checkpoint.
    """

    seconds: float
    exchange: float
    waiting: float
    lost: int


def forecast_training(costs: TrainingCosts, seed: int = 0) -> TrainingForecast:
    """Simulates a training; an epoch in which a process is lost is done again from its begin."""
    random = np.random.default_rng(seed)
    now = exchange = waiting = 0.0
    done = lost = 0
    every = None if costs.lost_every_s is None else costs.lost_every_s / costs.processes
    next_loss = float("inf") if every is None else float(random.exponential(every))
    while done < costs.steps:
        steps = min(costs.epoch_steps, costs.steps - done)
        drawn = np.exp(random.normal(0.0, costs.step_spread, (steps, costs.processes)))
        slowest = costs.step_s * float(drawn.max(axis=1).sum())
        taken = slowest + steps * costs.exchange_s + costs.checkpoint_s
        if now + taken > next_loss and every is not None:
            lost += 1
            now = next_loss + costs.restart_s
            next_loss = now + float(random.exponential(every))
            continue
        now += taken
        done += steps
        exchange += steps * costs.exchange_s
        waiting += slowest - costs.step_s * float(drawn.mean(axis=1).sum())
    return TrainingForecast(now, exchange / now, waiting / now, lost)
