"""Successive halving: who is left, who is not, and that it finds what a whole sweep finds."""

from pathlib import Path
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dabench.findings.tables import launch_times, load
from dabench.timing.halving import CLOSE, RUNGS, race

RECORDED = Path(__file__).parents[2] / "results" / "20261125-runtimes"
LAST = RUNGS[-1]


def test_the_slower_half_is_left_alone_after_each_rung():
    steady = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    found = race({name: [seconds] for name, seconds in steady.items()})
    assert (found.left, found.out, found.launches) == (("a", "b"), {"c": 1, "d": 1, "e": 1}, 2)
    found = race({name: [seconds] * (2 if name in "ab" else 1) for name, seconds in steady.items()})
    assert (found.left, found.launches) == (("a",), 4)
    assert found.out["b"] == 2
    found = race(
        {name: [seconds] * (LAST if name == "a" else 2) for name, seconds in steady.items()}
    )
    assert (found.left, found.launches) == (("a",), None)


def test_what_is_close_to_the_fastest_stays():
    seconds = {"a": 1.0, "b": 1.0 + CLOSE - 0.001, "c": 1.0 + CLOSE + 0.001}
    found = race({name: [each] * LAST for name, each in seconds.items()})
    assert found.left == ("a", "b")
    assert found.out == {"c": 1}


def test_what_cannot_meet_a_limit_is_left_alone():
    assert race({"a": [1.49], "b": [1.51]}, 1.0).out == {"b": 1}
    # Two launches that agree say so without that margin; two that do not say nothing.
    assert race({"a": [1.2, 1.201]}, 1.0).out == {"a": 2}
    assert race({"a": [1.2, 0.9]}, 1.0).left == ("a",)
    hopeless = race({"a": [9.0], "b": [8.0]}, 1.0)
    assert (hopeless.left, hopeless.launches) == ((), None)


def test_what_would_have_won_is_called_back():
    # Its one launch was slow by bad luck of the others': they turn out slower than it was.
    times = {"a": [1.0] + [2.0] * 7, "b": [1.5], "c": [9.0]}
    found = race(times)
    assert (found.left, found.out, found.launches) == (("b", "a"), {"c": 1}, LAST)
    found = race({**times, "b": [1.5] * LAST})
    assert (found.left, found.launches) == (("b", "a"), None)


def test_it_waits_for_the_launches_of_all_that_are_left():
    found = race({"a": [1.0, 1.0], "b": [1.01]})
    assert (found.left, found.launches) == (("a", "b"), 2)
    assert race({"a": [], "b": [1.0]}).launches == 1


seconds = st.floats(0.5, 2.0)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(seconds, min_size=LAST, max_size=LAST)))
def test_later_launches_change_nothing_that_was_said(times):
    """A run that was cut off goes on as it would have gone on."""
    whole = race(times)
    for launches in range(1, LAST):
        so_far = race({name: each[:launches] for name, each in times.items()})
        assert {**so_far.out, **whole.out} == {**whole.out, **so_far.out}
        # What was left alone is so in the end, or was called back.
        back = set(so_far.out) & set(whole.left)
        assert set(whole.left) <= set(so_far.left) | back


def recorded(dtype):
    """Ways to run STDC1-BiSeNet, with the seconds of their launches on one machine."""
    loaded = load([RECORDED])
    times = launch_times(loaded)
    rows = loaded.measurements
    rows = rows[(rows["status"] == "ok") & (rows["mode"] == "eval") & (rows["dtype"] == dtype)]
    return {
        row.case_id: [median(each) for each in times[row.run_id, row.case_id, row.phase].seconds]
        for row in rows.itertuples()
    }


@pytest.mark.parametrize("without_the_best", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_it_finds_what_a_whole_sweep_finds_in_a_third_of_its_time(dtype, without_the_best):
    """100 races, each on launches of one half of the recorded ones, held against the other half.

    Without the fastest way the next ones are close on that machine, and no two sweeps agree: a race
    is then to be right as often as a sweep of all the same launches.
    """
    ways = recorded(dtype)
    if without_the_best:
        del ways[min(ways, key=lambda name: median(ways[name]))]
    assert len(ways) >= 7
    random = np.random.default_rng(0)
    right, swept_right, spent, whole = 0, 0, 0.0, 0.0
    for _ in range(100):
        ours, held_out = {}, {}
        for name, known in ways.items():
            one, other = np.split(random.permutation(known), 2)
            ours[name], held_out[name] = (random.choice(half, LAST) for half in (one, other))
        found = race(ours)
        taken, swept, best = (
            min(names, key=lambda name: median(times[name]))
            for names, times in ((found.left, ours), (ours, ours), (held_out, held_out))
        )
        right += taken == best
        swept_right += swept == best
        spent += sum(each[: found.out.get(name, LAST)].sum() for name, each in ours.items())
        whole += sum(each.sum() for each in ours.values())
    if without_the_best:
        assert right >= swept_right - 5
    else:
        assert right >= 95
        assert spent / whole <= 1 / 3


def test_launches_that_scatter_cost_a_percent_or_two():
    """Eight ways of known times, launches that scatter by 5%."""
    random = np.random.default_rng(1)
    right = 0
    for _ in range(200):
        true = np.exp(random.uniform(0, 1.5, 8))
        drawn = true[:, None] * np.exp(random.normal(0, 0.05, (8, LAST)))
        times = dict(enumerate(drawn))
        found = race({str(name): each for name, each in times.items()})
        taken = min(found.left, key=lambda name: median(times[int(name)]))
        right += true[int(taken)] <= 1.02 * true.min()
    assert right >= 190
