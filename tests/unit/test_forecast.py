"""Simulated sweeps and trainings, against what can be said without one."""

import math

import pytest

from dabench.plan.cases import expand
from dabench.plan.settings import Grid, Settings
from dabench.run.forecast import SweepCosts, TrainingCosts, forecast_sweep, forecast_training


def plan(cases, launches):
    batches = tuple(range(1, cases + 1))
    grid = Grid(models=("disc",), devices=("cpu",), batches=batches)
    return expand(grid, Settings.of(repeat=1, launches=launches))


def test_equal_machines_share_the_work_equally():
    found = forecast_sweep(plan(8, 6), SweepCosts(machines=3, launch_s=2.0, start_s=10, end_s=1))
    assert found.seconds == pytest.approx(10 + 8 * 6 / 3 * 2.0 + 1)
    assert (found.launches, found.lost, found.machines_left) == (48, 0, 3)
    assert found.busy == pytest.approx(1)


def test_what_a_machine_takes_once_it_takes_once():
    costs = SweepCosts(machines=1, launch_s=2.0, first_s=5.0, driver_s=0.5)
    found = forecast_sweep(plan(2, 2), costs)
    assert found.seconds == pytest.approx(4 * 2.0 + 5.0 + 4 * 0.5)
    assert found.driver == pytest.approx(2.0 / 15.0)


def test_many_machines_wait_for_the_driver():
    costs = SweepCosts(machines=50, launch_s=1.0, driver_s=0.1)
    found = forecast_sweep(plan(100, 5), costs)
    # It cannot keep more than ten a second.
    assert found.seconds == pytest.approx(500 * 0.1, rel=0.05)
    assert found.driver > 0.95
    assert found.busy < 0.25


def test_lost_machines_leave_their_launches_to_the_others():
    costs = SweepCosts(machines=4, launch_s=1.0, lost_every_s=60.0, noticed_s=5.0)
    found = forecast_sweep(plan(10, 8), costs, seed=1)
    assert found.launches == 80
    assert found.lost == 4 - found.machines_left > 0
    without = forecast_sweep(plan(10, 8), SweepCosts(machines=4, launch_s=1.0))
    assert found.seconds > without.seconds


def test_where_all_are_lost_launches_are_left():
    costs = SweepCosts(machines=2, launch_s=1.0, lost_every_s=3.0)
    found = forecast_sweep(plan(20, 5), costs)
    assert found.launches < 100
    assert found.machines_left == 0


def test_slow_machines_are_helped_where_they_are_fewer_than_launches_of_a_case():
    few = SweepCosts(machines=4, launch_s=1.0, machine_spread=0.3)
    found = forecast_sweep(plan(40, 8), few)
    assert found.busy > 0.98
    # Where each launch of a case has a machine of its own, nobody takes over a second one.
    many = SweepCosts(machines=8, launch_s=1.0, machine_spread=0.3)
    assert forecast_sweep(plan(40, 8), many).busy < 0.9


def test_a_training_without_trouble_is_its_steps():
    costs = TrainingCosts(processes=1, steps=100, step_s=0.5, epoch_steps=25, checkpoint_s=2.0)
    found = forecast_training(costs)
    assert found.seconds == pytest.approx(100 * 0.5 + 4 * 2.0)
    assert (found.exchange, found.waiting, found.lost) == (0, 0, 0)


def test_gradients_pass_each_link_nearly_twice():
    costs = TrainingCosts(
        processes=4, steps=10, step_s=1.0, gradient_bytes=1e9, bytes_per_s=1e9, latency_s=0.01
    )
    assert costs.exchange_s == pytest.approx(2 * 3 / 4 + 6 * 0.01)
    assert forecast_training(costs).exchange == pytest.approx(1.56 / 2.56)


def test_all_wait_for_the_slowest():
    costs = TrainingCosts(processes=8, steps=4000, step_s=1.0, step_spread=0.1, epoch_steps=1000)
    found = forecast_training(costs)
    # The largest of eight normal numbers is 1.42 deviations up.
    assert found.seconds / 4000 == pytest.approx(math.exp(1.424 * 0.1), rel=0.01)
    assert found.waiting == pytest.approx(1 - math.exp(0.005) / math.exp(0.1424), abs=0.01)


def test_a_lost_process_costs_the_epoch_and_the_restart():
    costs = TrainingCosts(
        processes=2, steps=1000, step_s=1.0, epoch_steps=100, lost_every_s=2000.0, restart_s=30.0
    )
    found = forecast_training(costs)
    assert found.lost > 0
    assert 1000 + 30 * found.lost < found.seconds < 1000 + 130 * found.lost + 1
