"""Two runs compared, and the two sides of one: verdicts, and why there is none."""

import json
import math

import pytest
from fakes import FakeClock, make_case
from records import ENVIRONMENT, write_record
from records import write_medians as write

import dabench
from dabench.base.errors import ResultsError, UsageError
from dabench.findings.compare import CODES, compare_runs, compare_within, explained
from dabench.plan.cases import expand
from dabench.plan.settings import Grid, Settings
from dabench.records.comparisons import Comparison
from dabench.run.deciding import Decider
from dabench.run.runner import Runner
from dabench.run.session import Compares, NoProgress, NoRecords
from dabench.timing.verdicts import LOOKS

STEADY = (1.0, 1.004, 0.996, 1.002, 0.998, 1.001)
ONE, TWO = make_case(), make_case(batch=8)


def times(factor, pattern=STEADY):
    return [factor * each for each in pattern]


def test_cases_that_both_runs_have_are_judged_together(tmp_path):
    base = write(tmp_path / "a", {ONE: times(1.0), TWO: times(8.0), make_case(batch=4): times(4)})
    new = write(tmp_path / "b", {TWO: times(8.8), ONE: times(1.0)})
    one, two = compare_runs(base, new)
    assert (one.new, one.verdict, two.new, two.verdict) == (ONE, "same", TWO, "slower")
    assert (two.base_s, two.new_s) == pytest.approx((8.0, 8.8), rel=0.01)
    assert two.ratio.low < 1.1 < two.ratio.high
    assert two.judgement.level < 0.05
    assert compare_runs(new, base)[0].verdict == "faster"
    assert one.code == one.reason == ""
    assert [each.verdict for each in dabench.compare(base, str(new))] == ["same", "slower"]
    assert dabench.compare(base, new, delta=0.2)[1].verdict == "same"


def test_an_open_case_says_what_would_decide_it(tmp_path):
    base = write(tmp_path / "a", {ONE: [1.0, 1.05, 0.95]})
    new = write(tmp_path / "b", {ONE: [1.06, 1.02, 1.1]})
    (found,) = compare_runs(base, new)
    assert (found.verdict, found.code) == ("undecided", "open")
    assert found.needed_launches > 0
    assert found.needed_s == pytest.approx(found.needed_launches * 3.0)  # 1.5 s a launch
    assert f"about {found.needed_launches} more launches of each" in found.reason


LONGER = [*STEADY, *STEADY]
DISTURBED = {
    "few-launches": ({ONE: [1.0]}, {}),
    "throttled": ({ONE: times(2)}, {"changes": {ONE: {"throttled": True}}}),
    "busy": ({ONE: times(2)}, {"changes": {ONE: {"other_cores": 0.5}}}),
    "drift": ({ONE: [[1.0] * 10 + [1.3] * 5] * 6}, {}),
    "trend": ({ONE: [1.0 + 0.02 * k for k in range(12)]}, {}),
    "software": ({ONE: times(2)}, {"environment": {**ENVIRONMENT, "torch": "2.9.0"}}),
}


@pytest.mark.parametrize("code", DISTURBED)
def test_what_was_disturbed_stays_undecided(tmp_path, code):
    launches, details = DISTURBED[code]
    base = write(tmp_path / "a", {ONE: times(1.0, LONGER)})
    new = write(tmp_path / "b", launches, **details)
    (found,) = compare_runs(base, new)
    assert (found.verdict, found.code) == ("undecided", code)
    assert found.reason.startswith(CODES[code])


def test_a_few_disturbed_launches_are_left_to_the_interval(tmp_path):
    base = write(tmp_path / "a", {ONE: times(1.0)})
    new = write(tmp_path / "b", {ONE: times(1.5)})
    # One of six, by hand: the helper's changes are for all launches of a case.
    launches = new / "launches.csv"
    text = launches.read_text()
    assert '""other_cores"": 0.0' in text
    launches.write_text(text.replace('""other_cores"": 0.0', '""other_cores"": 0.9', 1))
    assert compare_runs(base, new)[0].verdict == "slower"


def test_a_side_that_failed_says_why(tmp_path):
    base = write(tmp_path / "a", {ONE: times(1.0)})
    changes = {ONE: {"status": "oom", "reason": "too large", "phases": ()}}
    new = write(tmp_path / "b", {ONE: [1.0]}, changes=changes)
    (found,) = compare_runs(base, new)
    assert (found.code, found.reason) == ("failed", "dw-disc: oom: too large")
    assert found.ratio is None
    assert found.to_dict()["ratio"] is None


def test_what_cannot_be_compared_is_one_line(tmp_path):
    base = write(tmp_path / "a", {ONE: times(1.0)})
    other = write(tmp_path / "b", {ONE: times(1.0)}, environment={**ENVIRONMENT, "cpu": "Other"})
    with pytest.raises(UsageError, match='two machines: cpu "Test CPU" and "Other"'):
        compare_runs(base, other)
    nothing = write(tmp_path / "c", {TWO: times(1.0)})
    with pytest.raises(UsageError, match="no case and phase in common"):
        compare_runs(base, nothing)
    with pytest.raises(UsageError, match="are one run"):
        compare_runs(base, tmp_path / "x" / ".." / "a")
    with pytest.raises(UsageError, match="holds no run"):
        compare_runs(base, tmp_path / "none")
    with pytest.raises(UsageError, match="not made by 'dabench compare'"):
        compare_within(base)


def comparison(*, decide=False, delta=0.02):
    pairs = ((ONE.case_id, TWO.case_id),)
    return Comparison(pairs=pairs, delta=delta, decide=decide, max_time_s=60.0)


def test_the_sides_of_one_run_alternated(tmp_path):
    """What both sides share, such as a clock that slows down, is no difference."""
    slowing = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4]
    asked = comparison()
    run = write(
        tmp_path / "a",
        {ONE: slowing, TWO: [1.1 * t for t in slowing]},
        compare=asked.to_dict(),
    )
    (found,) = compare_within(run)
    assert (found.verdict, found.judgement.evidence.rule) == ("slower", "paired")
    assert (found.base, found.new) == (ONE, TWO)
    assert compare_within(run, delta=0.2)[0].verdict == "same"
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "compare": {"pairs": 3}}))
    with pytest.raises(ResultsError, match=r"run\.json line 1"):
        compare_within(run)


def test_a_sequential_verdict_rests_on_the_look_at_which_it_fell(tmp_path):
    asked = comparison(decide=True)
    pattern = times(1.0, STEADY[:5])
    run = write(
        tmp_path / "a", {ONE: pattern, TWO: [2 * t for t in pattern]}, compare=asked.to_dict()
    )
    (found,) = compare_within(run)
    assert (found.verdict, found.launches, found.judgement.launches) == ("slower", 5, LOOKS[0])
    assert found.new_s / found.base_s == pytest.approx(found.ratio.estimate)
    rows = dict(explained(found))
    assert rows["launches judged"] == "4"
    assert rows["margin"] == "0.980 to 1.020"
    assert rows["verdict"] == "slower"
    assert "median 1" in rows["base launches"]


def test_what_only_one_run_knows_of_its_machine_is_no_difference(tmp_path):
    older = {key: value for key, value in ENVIRONMENT.items() if key != "governor"}
    base = write(tmp_path / "a", {ONE: times(1.0)}, environment=older)
    assert compare_runs(base, write(tmp_path / "b", {ONE: times(2.0)}))[0].verdict == "slower"


def test_a_case_that_is_compared_and_not_planned_is_damage(tmp_path):
    pairs = ((ONE.case_id, "nothing"),)
    asked = Comparison(pairs=pairs, delta=0.02, decide=False, max_time_s=1.0)
    run = write(tmp_path / "a", {ONE: times(1.0)}, compare=asked.to_dict())
    with pytest.raises(ResultsError, match=r"run\.json line 1.*is compared and not planned"):
        compare_within(run)


def test_times_are_of_one_pass(tmp_path):
    """Ten passes in one sample against one in one: as under the paper's protocol."""
    base = write(tmp_path / "a", {ONE: times(10.0)}, changes={ONE: {"passes": 10}})
    (found,) = compare_runs(base, write(tmp_path / "b", {ONE: times(1.0)}))
    assert (found.verdict, found.base_s) == ("same", pytest.approx(1.0, rel=0.01))


def test_a_stopped_sequence_says_how_far_it_came(tmp_path):
    asked = comparison(decide=True)
    run = write(tmp_path / "a", {ONE: times(1.0)[:3], TWO: times(2.0)[:3]}, compare=asked.to_dict())
    (found,) = compare_within(run)
    assert (found.code, found.reason[-15:]) == ("few-launches", "3 of at least 4")


def test_far_apart_launches_have_an_endless_interval(tmp_path):
    base = write(tmp_path / "a", {make_case(batch=n): [1.0, 1.0] for n in range(1, 40)})
    new = write(tmp_path / "b", {make_case(batch=n): [1.0, 30.0] for n in range(1, 40)})
    found = compare_runs(base, new)
    assert {each.verdict for each in found} == {"undecided"}
    assert found[0].judgement.tested.high == math.inf


def test_the_numbers_are_shown_with_the_reason_against_them(tmp_path):
    base = write(tmp_path / "a", {ONE: times(1.0)})
    new = write(tmp_path / "b", {ONE: times(2.0)}, changes={ONE: {"other_cores": 2.0}})
    rows = dict(explained(compare_runs(base, new)[0]))
    assert rows["from the interval"] == "slower"
    assert "other programs" in rows["undecided: busy"]
    assert rows["verdict"] == "undecided"


class Pool:
    """Launches that take a second and times by model."""

    def __init__(self, clock, seconds, busy=0):
        self.clock = clock
        self.busy = busy
        self.seconds = seconds
        self.launched = []

    def run(self, request, receive, *, timeout_s):
        if request["kind"] == "count":
            return {"kind": "failed", "status": "error", "reason": "not here"}
        name = request["case"]["model"]
        self.launched.append(name)
        self.clock.now += 1.0
        wobble = STEADY[(self.launched.count(name) + 2 * (name == "disc")) % len(STEADY)]
        samples = [[self.seconds[name] * wobble, None]] * 5
        receive({"kind": "device", "device": {"device_name": "c", "threads": 1}})
        receive(
            {"kind": "phase", "phase": "forward", "warmup": [], "samples": samples, "steady": True,
             "stop": "converged", "passes": 1, "peak_bytes": 1, "throttled": None,
             "other_cores": float(len(self.launched) <= self.busy), "joules": None,
             "spent_s": 0.1}
        )  # fmt: skip
        return {"kind": "done"}


def decided(seconds, *, max_time_s=1000.0, decide=True, busy=0):
    clock = FakeClock()
    pool = Pool(clock, seconds, busy)
    settings = Settings.of(order="abba", launches=LOOKS[0], max_time_s=1000.0)
    plan = expand(Grid(models=("disc", "dw-disc"), devices=("cpu",)), settings)
    compares = Compares(delta=0.02, decide=decide, max_time_s=max_time_s)
    asked, plan = compares.paired(plan[:1], plan[1:])
    decider = Decider(asked, plan, clock=clock)
    Runner(plan, pool, NoRecords(), NoProgress(), wants_more=decider, clock=clock).run()
    return pool.launched


def test_a_clear_difference_needs_the_first_look_only():
    launched = decided({"disc": 1.0, "dw-disc": 2.0})
    assert launched == ["disc", "dw-disc", "dw-disc", "disc"] * 2


def test_an_open_one_goes_on_from_look_to_look():
    launched = decided({"disc": 1.0, "dw-disc": 1.0198})
    assert launched.count("disc") == launched.count("dw-disc") == LOOKS[-1]
    assert launched[:8] == ["disc", "dw-disc", "dw-disc", "disc"] * 2


def test_no_round_is_begun_that_would_end_too_late():
    launched = decided({"disc": 1.0, "dw-disc": 1.0198}, max_time_s=21.0)
    assert len(launched) == 20


def test_a_disturbed_verdict_is_measured_on_until_it_is_not():
    launched = decided({"disc": 1.0, "dw-disc": 2.0}, busy=6)
    assert len(launched) == 24  # 3 of 12 launches of each are a quarter


def test_what_is_decided_live_is_what_the_records_say(tmp_path):
    plan = expand(
        Grid(models=("disc", "dw-disc"), devices=("cpu",)),
        Settings.of(order="abba", launches=LOOKS[0], max_time_s=1000.0),
    )
    clock = FakeClock()
    asked, plan = Compares(delta=0.02, decide=True, max_time_s=1e6).paired(plan[:1], plan[1:])
    writer = write_record(
        tmp_path / "a", plan=[each.to_dict() for each in plan], compare=asked.to_dict()
    )
    pool = Pool(clock, {"disc": 1.0, "dw-disc": 1.0225})
    decider = Decider(asked, plan, clock=clock)
    Runner(plan, pool, writer, NoProgress(), wants_more=decider, clock=clock).run()
    (found,) = compare_within(tmp_path / "a")
    assert LOOKS[0] < len(pool.launched) / 2 < LOOKS[-1]
    assert (found.verdict, found.launches) == ("slower", len(pool.launched) / 2)
    assert found.judgement.launches == found.launches


def test_pairs_are_run_one_beside_the_other_and_share_the_time():
    def plan(*models):
        return expand(Grid(models=models, devices=("cpu",)), Settings.of(max_time_s=9.0))

    compares = Compares(delta=0.02, decide=True, max_time_s=40.0)
    asked, found = compares.paired(plan("disc", "stdc1"), plan("dw-disc", "stdc2"))
    assert [each.case.model for each in found] == ["disc", "dw-disc", "stdc1", "stdc2"]
    assert {each.settings.max_time_s for each in found} == {10.0}
    assert len(asked.pairs) == 2


def test_without_decide_there_are_the_launches_asked_for():
    assert len(decided({"disc": 1.0, "dw-disc": 1.0198}, decide=False)) == 2 * LOOKS[0]


def test_a_case_is_not_compared_with_itself():
    plan = expand(Grid(models=("disc",), devices=("cpu",)), Settings.of())
    compares = Compares(delta=0.02, decide=False, max_time_s=1.0)
    with pytest.raises(UsageError, match="on both sides; 'dabench selftest'"):
        compares.paired(plan, plan)
    with pytest.raises(UsageError, match="1 cases cannot be compared with 0"):
        compares.paired(plan, [])


@pytest.mark.parametrize(
    ("factor", "cores", "verdict"),
    [
        (1.9, 0.5, "undecided"),
        (2.5, 0.5, "slower"),
        (3.9, 3.0, "undecided"),
        (9.0, 9.0, "undecided"),
    ],
)
def test_a_difference_that_other_programs_cannot_make_stands(tmp_path, factor, cores, verdict):
    """Of the four cores of the machine; what takes all of them may make any difference."""
    base = write(tmp_path / "a", {ONE: times(1.0)})
    busy = {"changes": {ONE: {"other_cores": cores}}}
    (found,) = compare_runs(base, write(tmp_path / "b", {ONE: times(factor)}, **busy))
    assert (found.verdict, found.code) == (verdict, "busy" if verdict == "undecided" else "")


@pytest.mark.parametrize(
    ("factor", "verdict", "code"), [(1.1, "undecided", "drift"), (2.0, "slower", "")]
)
def test_a_difference_that_drift_cannot_make_stands(tmp_path, factor, verdict, code):
    drifting = [[level] * 10 + [1.3 * level] * 5 for level in times(factor)]
    base = write(tmp_path / "a", {ONE: times(1.0)})
    (found,) = compare_runs(base, write(tmp_path / "b", {ONE: drifting}))
    assert (found.verdict, found.code) == (verdict, code)
