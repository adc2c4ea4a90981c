"""Several processes at once: they begin and end together, and none waits for one that is gone."""

import os
import signal
import time

import pytest
from fakes import make_case

from dabench.base.errors import DabenchError, DiedError
from dabench.run.launcher import Launcher
from dabench.run.team import team_of

RULE = {"warmup": 1, "repeat": 3, "target_ci": None, "max_time_s": None}


class Steps:
    """A pass that says when it ran."""

    def __init__(self):
        self.runs = 0

    def prepare(self):
        pass

    def run(self):
        self.runs += 1
        time.sleep(0.001)

    def release(self):
        pass


class Device:
    def synchronize(self):
        pass


def member(request, team):
    """What the other process of a team does, as its request says."""
    if request.get("dies") == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if request.get("fails"):
        raise ValueError("no room")
    time.sleep(request.get("late", 0.0))
    ready = time.monotonic()
    team.begin()
    begun = time.monotonic()
    if request.get("dies") == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(request.get("takes", 0.0))
    work = Steps()
    team.end(work, Device())
    return [{"ready": ready, "begun": begun, "more": work.runs}]


def lead(*requests):
    """The first process of a team, which has its samples at once."""
    with team_of(requests, member) as team:
        team.begin()
        begun = time.monotonic()
        work = Steps()
        team.end(work, Device())
        return begun, work.runs, [messages[0] for messages in team.gather()]


def test_all_begin_together_and_the_first_to_end_goes_on():
    begun, more, (slow, quick) = lead({"takes": 0.1, "late": 0.2}, {"takes": 0.0})
    last_ready = max(slow["ready"], quick["ready"])
    assert min(begun, slow["begun"], quick["begun"]) >= last_ready
    assert more > slow["more"]
    assert quick["more"] > slow["more"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_is_killed_ends_the_team_at_once(when):
    begin = time.monotonic()
    with pytest.raises(DiedError, match="was ended by SIGKILL"):
        lead({"dies": when}, {})
    assert time.monotonic() - begin < 60


def test_one_that_fails_says_why():
    with pytest.raises(DabenchError, match="at once failed: ValueError: no room"):
        lead({}, {"fails": True})


def test_what_the_leader_raises_is_its_own():
    with pytest.raises(KeyError), team_of([{}], member):
        raise KeyError


def test_a_launch_of_several_processes_keeps_them_apart():
    case = make_case(batch=1, concurrency=2, threads=1)
    messages = []
    request = {"kind": "time", "case": case.to_dict(), "seed": 0, "rule": RULE}
    with Launcher() as launcher:
        last = launcher.run(request, messages.append, timeout_s=120)
    assert last == {"kind": "done"}
    (phase,) = [message for message in messages if message["kind"] == "phase"]
    assert phase["members"] == [3, 3]
    assert len(phase["samples"]) == 6
    assert phase["joules"] is None
    # Of both; the system tells it in ticks.
    assert phase["cpu_s"] >= phase["system_s"] >= 0
