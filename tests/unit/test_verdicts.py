"""Verdicts: what an interval says, families, looking again, and error rates with known truth."""

import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dabench.timing.statistics import Interval
from dabench.timing.verdicts import (
    LEVEL,
    LOOKS,
    MODES,
    Sides,
    fewest_launches,
    judge,
    judge_sequentially,
    look_level,
    next_look,
    verdict,
)

SCATTER = 0.03


def log_normal(random, n):
    return random.normal(0, SCATTER, n)


def heavy_tails(random, n):
    return SCATTER / math.sqrt(3) * random.standard_t(3, n)


def two_modes(random, n, share=0.3):
    """Processes that come out 10% slower now and then, as by another layout of memory."""
    return np.log1p(0.1 * (random.random(n) < share)) + random.normal(0, 0.002, n)


def drifting(random, n):
    return random.normal(0, 0.01, n) + np.linspace(0, 0.2, n)


WORLDS = [log_normal, heavy_tails, two_modes, drifting]


def sides(random, world, launches, slowdown=0.0):
    """Two sides measured A B B A in one world, which for both changes alike."""
    both = world(random, 2 * launches)
    order = np.arange(2 * launches).reshape(-1, 2)
    order[1::2] = order[1::2, ::-1]
    base, new = (np.exp(both[order[:, k]]) for k in (0, 1))
    rounds = list(range(launches))
    return Sides([[t] for t in base], [[t * (1 + slowdown)] for t in new], (rounds, rounds))


def verdicts(world, judged, times, **options):
    random = np.random.default_rng(7)
    return [judged({"it": sides(random, world, **options)})["it"].verdict for _ in range(times)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("judged", "launches"), [(judge, 8), (judge_sequentially, LOOKS[-1])])
def test_the_same_thing_twice_is_seldom_called_different(world, judged, launches):
    found = verdicts(world, judged, 120, launches=launches)
    assert sum(each in ("faster", "slower") for each in found) <= LEVEL * len(found)


@pytest.mark.parametrize("judged", [judge, judge_sequentially])
def test_without_a_margin_the_error_rate_is_the_level(judged):
    """The margin hides how often an interval is wrong; without one it must hold too."""
    random = np.random.default_rng(3)
    found = [
        judged({"it": sides(random, log_normal, LOOKS[-1])}, 0.0)["it"].verdict for _ in range(400)
    ]
    assert sum(each != "undecided" for each in found) <= 1.2 * LEVEL * len(found)
    signs = [each for each in found if each != "undecided"]
    assert {"faster", "slower"} <= set(signs)


@pytest.mark.parametrize("world", [log_normal, heavy_tails])
def test_five_percent_are_found(world):
    found = verdicts(world, judge_sequentially, 100, launches=LOOKS[-1], slowdown=0.05)
    assert found.count("slower") >= 0.9 * len(found)


def test_a_family_is_wrong_as_seldom_as_one_case():
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(60):
        family = {n: sides(random, log_normal, 8) for n in range(20)}
        wrong += any(each.verdict in ("faster", "slower") for each in judge(family, 0.0).values())
    assert wrong <= 6  # without correction 40 of 60


@pytest.mark.parametrize("world", [*WORLDS, lambda random, n: two_modes(random, n, share=0.5)])
@pytest.mark.parametrize(("judged", "launches"), [(judge, 3), (judge, 6), (judge_sequentially, 16)])
def test_a_family_is_seldom_deceived_by_modes_or_tails(world, judged, launches):
    random = np.random.default_rng(11)
    wrong = 0
    for _ in range(25):
        family = {n: sides(random, world, launches) for n in range(10)}
        wrong += any(each.verdict in ("faster", "slower") for each in judged(family).values())
    assert wrong <= 1


def test_of_few_launches_only_large_differences_are_believed():
    few = {n: Sides([[1.0], [1.001], [1.002]], [[t], [t + 0.001], [t]]) for n, t in
           enumerate((1.1, 1.5, 1.0, 0.5))}  # fmt: skip
    assert fewest_launches(1) == 3 < fewest_launches(len(few))
    assert [each.verdict for each in judge(few).values()] == [
        "undecided", "slower", "undecided", "faster",
    ]  # fmt: skip
    assert judge({"it": few[0]})["it"].verdict == "slower"
    assert judge({"it": few[0]}, size=4)["it"].margin == MODES


def test_behind_an_open_case_nothing_is_decided_and_the_numbers_say_so():
    random = np.random.default_rng(0)
    for _ in range(200):
        family = {n: sides(random, log_normal, 8, 0.05) for n in range(3)}
        for each in judge(family).values():
            crosses = each.tested.low <= 1.02 <= each.tested.high
            assert (each.verdict == "undecided") == crosses or each.verdict == "same"


def test_the_clearest_case_has_the_smallest_share_of_the_level():
    random = np.random.default_rng(1)
    family = {n: sides(random, log_normal, 8, slowdown) for n, slowdown in enumerate((0, 0.5, 0.2))}
    judged = judge(family)
    assert [judged[n].verdict for n in range(3)] == ["undecided", "slower", "slower"]
    assert [judged[n].level for n in range(3)] == pytest.approx([LEVEL, LEVEL / 3, LEVEL / 2])
    assert judged[1].tested.low < judged[1].ratio.low


def test_what_was_decided_stays_so_whatever_comes():
    random = np.random.default_rng(2)
    for _ in range(20):
        whole = {n: sides(random, log_normal, LOOKS[-1], 0.05) for n in "ab"}
        before = {}
        for look in LOOKS:
            found = judge_sequentially({n: each.first(look) for n, each in whole.items()})
            for name, judged in before.items():
                assert judged.verdict == "undecided" or found[name] == judged
            before = found


def test_the_looks_use_up_the_level():
    assert sum(map(look_level, range(len(LOOKS)))) == pytest.approx(LEVEL)
    assert [next_look(n) for n in (0, 4, 5, 63, 64)] == [4, 6, 6, 64, None]


# Three launches or more: of two, what is believed is not the same in both directions.
times = st.lists(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3), min_size=3, max_size=6)
OPPOSITE = {"faster": "slower", "slower": "faster"}


@given(times, times)
def test_exchanging_the_sides_turns_the_verdict_round(one, two):
    there = judge({"it": Sides(one, two)}, 0.0)["it"]
    back = judge({"it": Sides(two, one)}, 0.0)["it"]
    assert back.verdict == OPPOSITE.get(there.verdict, there.verdict)
    assert there.ratio.low <= there.ratio.estimate <= there.ratio.high
    assert there.tested.low <= there.ratio.low
    assert (there.needed == 0) == (there.verdict != "undecided")


def test_the_launches_that_are_said_to_be_needed_are_about_enough():
    pattern = [0.97, 1.0, 1.03]
    few = Sides([[t] for t in pattern * 2], [[1.05 * t] for t in pattern * 2])
    needed = judge({"it": few})["it"].needed
    assert needed > 0

    def decided(launches):
        many = [(pattern * launches)[k] for k in range(launches)]
        found = judge({"it": Sides([[t] for t in many], [[1.05 * t] for t in many])})
        return found["it"].verdict == "slower"

    total = 6 + needed
    assert decided(3 * math.ceil(1.3 * total / 3))
    assert not decided(3 * math.floor(0.7 * total / 3))


def test_no_number_of_launches_tells_what_is_on_the_margin():
    on_it = Sides([[1.0], [1.1]], [[1.02], [1.122]])
    assert judge({"it": on_it})["it"].needed is None
    assert median([1.02, 1.122]) == pytest.approx(1.02 * median([1.0, 1.1]))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((1.03, 1.02001, 1.04), "slower"), ((0.97, 0.96, 0.97999), "faster"),
     ((1.0, 0.99, 1.0), "same"), ((1.0, 0.979, 1.01), "undecided"),
     ((1.05, 1.02, 1.1), "undecided")],
)  # fmt: skip
def test_the_whole_interval_must_lie_outside_of_the_margin(interval, expected):
    assert verdict(Interval(*interval)) == expected
