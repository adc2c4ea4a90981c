"""Launches dealt to machines: whole rounds to one, and equally many to each."""

from collections import Counter

import pytest

from dabench.plan.cases import expand, remaining
from dabench.plan.settings import Grid, Settings
from dabench.run.lanes import Lanes


def dealt(machines, cases, launches, speeds=None):
    """Runs launches of equal length, or as long as a machine's speed says.

    Returns (machine, round, case), in the order in which they begin.
    """
    batches = tuple(range(1, cases + 1))
    settings = Settings.of(repeat=1, launches=launches)
    plan = expand(Grid(models=("disc",), devices=("cpu",), batches=batches), settings)
    lanes = Lanes(remaining(plan, {}), machines)
    until, running, found, now = {}, {}, [], 0.0
    while lanes.left or running:
        free = [machine for machine in range(machines) if machine not in running]
        taken = lanes.next_of(free, set(running.values()))
        if taken is not None:
            machine, number, planned = taken
            assert planned.case.case_id not in running.values()
            found.append((machine, number, planned.case.batch))
            running[machine] = planned.case.case_id
            until[machine] = now + (speeds[machine] if speeds else 1.0)
            continue
        first = min(running, key=lambda machine: until[machine])
        now = until[first]
        del running[first]
    return found


@pytest.mark.parametrize(("machines", "cases", "launches"), [(2, 2, 6), (3, 3, 6), (2, 7, 4)])
def test_a_round_is_one_machines(machines, cases, launches):
    found = dealt(machines, cases, launches)
    assert len(found) == cases * launches
    where = {}
    for machine, number, _ in found:
        where.setdefault(number, set()).add(machine)
    assert all(len(each) == 1 for number, each in where.items() if number is not None)
    paired = [each for each in found if each[1] is not None]
    assert len(paired) >= len(found) / 2
    # Each case has as many launches on each machine.
    per_case = Counter((machine, case) for machine, _, case in found)
    assert max(per_case.values()) - min(per_case.values()) <= 1


def test_more_machines_than_rounds_share_them():
    found = dealt(6, 12, 3)
    assert {machine for machine, _, _ in found} == set(range(6))
    assert {number for _, number, _ in found} == {None}
    assert max(Counter(machine for machine, _, _ in found).values()) == 6
    # Three launches of a case are on three machines.
    cases = Counter((machine, case) for machine, _, case in found)
    assert set(cases.values()) == {1}


@pytest.mark.parametrize("machines", [4, 5])
def test_no_case_is_twice_on_a_machine_that_has_others_beside(machines):
    found = dealt(machines, 12, 3)
    cases = Counter((machine, case) for machine, _, case in found)
    assert set(cases.values()) == {1}
    assert {machine for machine, _, _ in found} == set(range(machines))


def test_a_slow_machine_is_helped():
    found = dealt(2, 10, 4, speeds=[5.0, 1.0])
    slow = [number for machine, number, _ in found if machine == 0]
    assert len(slow) < 10
    # What another machine took over belongs to no round.
    assert sum(number is None for _, number, _ in found) == 20 - len(slow)


def test_one_case_alone_goes_round():
    found = dealt(2, 1, 4)
    assert [case for _, _, case in found] == [1] * 4
    assert Counter(machine for machine, _, _ in found) == {0: 2, 1: 2}
