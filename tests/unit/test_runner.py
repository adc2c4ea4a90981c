"""Running a plan with workers that are not there."""

import signal
import threading

import pytest
from fakes import make_launch

from dabench.base.errors import DabenchError, ResultsError
from dabench.plan.cases import expand
from dabench.plan.settings import Grid, Settings
from dabench.records.measurements import summarise
from dabench.records.summary import Stored
from dabench.run.runner import MAX_LAUNCHES, SHORT_LAUNCHES, Runner, stop_rule
from dabench.run.session import NoProgress, NoRecords


class Pool:
    """Answers requests as told: times per model, failures per model."""

    def __init__(self, times=None, failures=None, interrupt_at=None):
        self.times = times or {}
        self.failures = failures or {}
        self.interrupt_at = interrupt_at
        self.launched = []
        self.requests = []

    def run(self, request, receive, *, timeout_s):
        self.requests.append(request)
        if request["kind"] == "count":
            item = request["items"][0]
            sides = ("channels", "height", "width", "mode")
            model, rest = item["name"], {k: item[k] for k in sides}
            macs = {
                "macs": 5,
                "executed_macs": 7,
                "backward_macs": 10,
                "executed_backward_macs": 14,
            }
            receive({"kind": "count", "count": {"model": model, **rest, **macs}})
            return {"kind": "done"}
        if self.interrupt_at == len(self.launched):
            raise KeyboardInterrupt
        model = request["case"]["model"]
        index = self.launched.count(model)
        self.launched.append(model)
        failure = self.failures.get((model, index)) or self.failures.get(model)
        if failure:
            return {"kind": "failed", "status": failure, "reason": "because"}
        receive({"kind": "device", "device": {"device_name": "Fake", "threads": 1}})
        times = self.times.get(model, [1.0])
        time = times[index % len(times)]
        for phase in request["case"]["phases"]:
            receive(
                {
                    "kind": "phase", "phase": phase, "warmup": [[9.0, None]],
                    "samples": [[time, None]] * 5, "steady": True,
                    "stop": "repeat" if request["rule"]["repeat"] else "converged",
                    "spent_s": 5 * time, "passes": 1, "peak_bytes": 7, "other_cores": 0.0,
                    "throttled": None,
                }
            )  # fmt: skip
        return {"kind": "done"}


class Records(NoRecords):
    def __init__(self):
        self.launches = []
        self.summaries = []

    def launch(self, record):
        self.launches.append(record)

    def measurements(self, rows, launches):
        self.summaries.append(list(rows))


def run(pool, settings, *, records=None, at_once=1, **axes):
    plan = expand(Grid(devices=("cpu",), **axes), settings)
    return Runner(plan, pool, records or Records(), NoProgress(), at_once=at_once).run()


def test_every_case_gets_its_launches_and_its_numbers():
    pool = Pool({"disc": [2.0], "dw-disc": [1.0]})
    outcome = run(pool, Settings.of(repeat=5, launches=3), models=("disc", "dw-disc"), batches=(4,))
    assert sorted(pool.launched) == ["disc"] * 3 + ["dw-disc"] * 3
    assert [(r.model, r.median_s, r.launches) for r in outcome.measurements] == [
        ("disc", 2.0, 3),
        ("dw-disc", 1.0, 3),
    ]
    assert outcome.measurements[0].macs == 4 * 5
    assert outcome.measurements[0].executed_flops == 2 * 4 * 7
    assert not outcome.interrupted


def test_train_counts_follow_the_phase():
    outcome = run(
        Pool(), Settings.of(repeat=5, launches=3), models=("disc",), modes=("train",), batches=(2,)
    )
    assert {r.phase: r.macs for r in outcome.measurements} == {
        "forward": 10,
        "backward": 20,
        "optimizer": None,
        "total": 30,
    }


def test_a_count_that_failed_is_said():
    class Uncountable(Pool):
        def run(self, request, receive, *, timeout_s):
            if request["kind"] == "count":
                return {"kind": "failed", "status": "error", "reason": "too odd"}
            return super().run(request, receive, timeout_s=timeout_s)

    (row,) = run(Uncountable(), Settings.of(repeat=1, launches=3), models=("disc",)).measurements
    assert (row.status, row.macs) == ("ok", None)
    assert "operations not counted: too odd" in row.flags


def test_each_graph_is_counted_once():
    pool = Pool()
    run(
        pool,
        Settings.of(repeat=1, launches=3),
        models=("disc",),
        batches=(1, 2, 4),
        dtypes=("fp32", "bf16"),
    )
    assert [r["kind"] for r in pool.requests].count("count") == 1


def test_more_launches_while_the_interval_is_too_wide():
    agreeing, differing = Pool({"disc": [1.0]}), Pool({"disc": [1.0, 2.0]})
    settings = Settings.of(target_ci=0.01, max_time_s=600)
    run(agreeing, settings, models=("disc",))
    outcome = run(differing, settings, models=("disc",))
    assert len(agreeing.launched) == 3
    assert len(differing.launched) == MAX_LAUNCHES
    assert outcome.measurements[0].stop == "gave up"


def test_short_cases_with_fixed_samples_get_more_launches(monkeypatch):
    now = [0.0]

    class Slow(Pool):
        def run(self, request, receive, *, timeout_s):
            now[0] += {"disc": 2.0, "dw-disc": 0.1}.get(request.get("case", {}).get("model"), 0.0)
            return super().run(request, receive, timeout_s=timeout_s)

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    pool = Slow()
    run(pool, Settings.of(repeat=2), models=("disc", "dw-disc"))
    assert (pool.launched.count("disc"), pool.launched.count("dw-disc")) == (3, SHORT_LAUNCHES)
    pool = Slow({"dw-disc": [0.01]})
    run(pool, Settings.of(repeat=2, max_time_s=0.35), models=("dw-disc",))
    assert len(pool.launched) == 3


def test_a_given_number_of_launches_is_kept():
    pool = Pool({"disc": [1.0, 2.0]})
    run(pool, Settings.of(target_ci=0.01, launches=5, max_time_s=100), models=("disc",))
    assert len(pool.launched) == 5


@pytest.mark.parametrize("status", ["oom", "unsupported", "crashed", "timeout", "error"])
def test_a_failed_case_is_a_row_and_the_sweep_goes_on(status):
    pool = Pool(failures={"disc": status})
    outcome = run(pool, Settings.of(repeat=1, launches=3), models=("disc", "dw-disc"))
    rows = {r.model: r for r in outcome.measurements}
    assert (rows["disc"].status, rows["disc"].reason) == (status, "because")
    assert rows["dw-disc"].status == "ok"
    assert pool.launched.count("disc") == 1
    assert pool.launched.count("dw-disc") == 3


def test_impossible_cases_are_rows_and_never_run():
    pool = Pool()
    outcome = run(
        pool,
        Settings.of(repeat=1, launches=3),
        models=("stdc1-bisenet",),
        modes=("train",),
        phases=("total",),
    )
    assert [r.status for r in outcome.measurements] == ["unsupported"]
    assert pool.requests == []


def test_ctrl_c_keeps_what_was_measured():
    records = Records()
    pool = Pool(interrupt_at=4)
    outcome = run(
        pool, Settings.of(repeat=1, launches=3), models=("disc", "dw-disc"), records=records
    )
    assert outcome.interrupted
    assert len(records.launches) == 4
    assert all(r.status == "ok" and r.launches == 2 for r in outcome.measurements)
    assert all(r.flags == "2 of 3 launches ran" for r in outcome.measurements)
    assert records.summaries[-1] == outcome.measurements


def test_ctrl_c_at_once_leaves_rows_that_say_so():
    outcome = run(Pool(interrupt_at=0), Settings.of(repeat=1, launches=3), models=("disc",))
    assert [(r.status, r.reason) for r in outcome.measurements] == [
        ("pending", "not measured: the run ended before")
    ]


def test_resuming_measures_only_what_is_missing():
    plan = expand(
        Grid(models=("disc", "dw-disc"), devices=("cpu",)), Settings.of(repeat=5, launches=3)
    )
    first, second = (planned.case for planned in plan)
    launches = [make_launch(first, [3.0] * 5, launch=i, round=i) for i in range(2)]
    done = {first.case_id: launches, second.case_id: []}
    pool, records = Pool(), Records()
    stored = Stored(done, next_launch=7)
    outcome = Runner(plan, pool, records, NoProgress(), stored=stored).run()
    assert sorted(pool.launched) == ["disc", *["dw-disc"] * 3]
    assert [record.launch for record in records.launches] == [7, 8, 9, 10]
    assert [r.launches for r in outcome.measurements] == [3, 3]
    assert sorted(record.round for record in records.launches) == [0, 1, 2, 2]


def test_ctrl_c_while_a_launch_is_written_keeps_it():
    class Struck(Records):
        def launch(self, record):
            signal.raise_signal(signal.SIGINT)
            super().launch(record)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        records = Struck()
        outcome = run(Pool(), Settings.of(repeat=5), records=records, models=("disc", "dw-disc"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.interrupted
    assert len(records.launches) == 1
    assert sorted(row.status for row in outcome.measurements) == ["ok", "pending"]


class Stopped(Pool):
    """Ctrl-C comes while networks are being counted."""

    def run(self, request, receive, *, timeout_s):
        raise KeyboardInterrupt


def test_ctrl_c_while_a_resumed_run_counts_keeps_its_counts():
    planned, other = expand(
        Grid(devices=("cpu",), models=("disc", "dw-disc")), Settings.of(repeat=5)
    )
    done = {planned.case.case_id: [make_launch(planned.case, [3.0] * 5)], other.case.case_id: []}
    counted = []
    Pool().run({"kind": "count", "items": [{
        "name": "disc", "channels": planned.case.channels, "height": planned.case.height,
        "width": planned.case.width, "mode": "eval",
    }]}, counted.append, timeout_s=1)  # fmt: skip
    counts = ([message["count"] for message in counted], [])
    stored = Stored(done, counts=counts)
    outcome = Runner([planned, other], Stopped(), Records(), NoProgress(), stored=stored).run()
    assert outcome.interrupted
    assert outcome.measurements[0].executed_flops == 2 * 7


def test_what_an_earlier_run_counted_is_not_counted_again():
    plan = expand(Grid(devices=("cpu",), models=("disc", "dw-disc")), Settings.of(repeat=1))
    first, pool = Pool(), Pool()
    counted = []
    size = {name: getattr(plan[0].case, name) for name in ("channels", "height", "width", "mode")}
    first.run({"kind": "count", "items": [{"name": "disc", **size}]}, counted.append, timeout_s=1)
    stored = Stored(
        {planned.case.case_id: [] for planned in plan},
        counts=([message["count"] for message in counted], []),
    )
    outcome = Runner(plan, pool, Records(), NoProgress(), stored=stored).run()
    asked = [each["items"][0]["name"] for each in pool.requests if each["kind"] == "count"]
    assert asked == ["dw-disc"]
    assert [row.executed_flops for row in outcome.measurements] == [2 * 7] * 2


def test_time_is_shared_between_launches_and_phases():
    assert stop_rule(Settings.of(max_time_s=24.0), 4)["max_time_s"] == 2.0
    assert stop_rule(Settings.of(max_time_s=24.0, launches=1), 1)["max_time_s"] == 24.0
    assert stop_rule(Settings.of(repeat=5), 1)["max_time_s"] is None
    # What launches before have spent is gone.
    assert stop_rule(Settings.of(max_time_s=24.0), 1, spent_s=4.0, launches=1)["max_time_s"] == 10.0


class Told(NoProgress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_case_that_does_not_fit_says_so_before_it_runs_on():
    pool, told = Pool({"disc": [20.0]}), Told()
    plan = expand(Grid(devices=("cpu",), models=("disc",)), Settings.of(max_time_s=30.0))
    (row,) = Runner(plan, pool, Records(), told).run().measurements
    assert pool.launched == ["disc"]
    assert (
        "does not fit into --max-time 30 s: 3 launches of one pass each take about 60 s"
        in (told.notes[0])
    )
    assert len(told.notes) == 1
    assert "1 of 3 launches ran" in row.flags


@pytest.mark.parametrize("cases", [10, 40])
def test_the_summary_is_not_rewritten_after_every_launch(cases):
    """Rewriting it costs as much as there are rows: its share of the time is bounded."""
    now = [0.0]

    class Slow(Records):
        def measurements(self, rows, launches):
            super().measurements(rows, launches)
            now[0] += 0.001 * len(self.summaries[-1])

    class Quick(Pool):
        def run(self, *arguments, **options):
            now[0] += 0.01
            return super().run(*arguments, **options)

    records = Slow()
    batches = tuple(range(1, cases + 1))
    plan = expand(
        Grid(devices=("cpu",), models=("dw-disc",), batches=batches),
        Settings.of(repeat=1, launches=3),
    )
    Runner(plan, Quick(), records, NoProgress(), clock=lambda: now[0]).run()
    spent = sum(0.001 * len(rows) for rows in records.summaries[:-1])
    assert spent < 0.2 * now[0]
    assert len(records.launches) == 3 * cases


class SideBySide(Pool):
    """Launches end when as many have begun as can run at once, or none is left to begin."""

    def __init__(self, at_once, launches, **said):
        super().__init__(**said)
        self.running = []
        self.most = 0
        self.left = launches
        self.changed = threading.Condition()
        self.at_once = at_once

    def run(self, request, receive, *, timeout_s):
        if request["kind"] == "count":
            return super().run(request, receive, timeout_s=timeout_s)
        model = request["case"]["model"]
        with self.changed:
            assert model not in self.running
            self.running.append(model)
            self.left -= 1
            self.most = max(self.most, len(self.running))
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most == self.at_once or not self.left, timeout=30)
            self.running.remove(model)
            return super().run(request, receive, timeout_s=timeout_s)


def test_side_by_side_run_different_cases_and_none_twice():
    records = Records()
    pool = SideBySide(2, 6)
    outcome = run(
        pool, Settings.of(repeat=1, launches=3), models=("disc", "dw-disc"), records=records,
        at_once=2,
    )  # fmt: skip
    assert pool.most == 2
    assert [row.launches for row in outcome.measurements] == [3, 3]
    assert sorted(each.launch for each in records.launches) == [*range(6)]
    # The pool does not say that each ran where its round does.
    assert {each.round for each in records.launches} == {None}
    assert {each["lane"] for each in pool.requests if each["kind"] == "time"} == {0, 1}


def test_one_case_runs_alone_however_many_could():
    pool = SideBySide(1, 3)
    (row,) = run(pool, Settings.of(repeat=1, launches=3), models=("disc",), at_once=4).measurements
    assert (pool.most, row.launches) == (1, 3)


def test_a_case_that_failed_side_by_side_is_not_tried_again():
    pool = SideBySide(2, 4, failures={"disc": "oom"})
    outcome = run(pool, Settings.of(repeat=1, launches=3), models=("disc", "dw-disc"), at_once=2)
    assert {row.model: row.status for row in outcome.measurements} == {
        "disc": "oom",
        "dw-disc": "ok",
    }
    assert pool.launched.count("disc") == 1


def test_behind_what_could_not_be_written_nothing_is_written():
    class Full(Records):
        def launch(self, record):
            super().launch(record)
            raise ResultsError("the disk is full")

    records = Full()
    with pytest.raises(ResultsError, match="the disk is full"):
        run(
            SideBySide(2, 2), Settings.of(repeat=1, launches=1), models=("disc", "dw-disc"),
            records=records, at_once=2,
        )  # fmt: skip
    assert len(records.launches) == 1


def test_what_runs_while_another_one_is_lost_is_kept():
    class Lost(SideBySide):
        def run(self, request, receive, *, timeout_s):
            last = super().run(request, receive, timeout_s=timeout_s)
            if request["kind"] == "time" and request["case"]["model"] == "disc":
                raise DabenchError("no node is left")
            return last

    records = Records()
    with pytest.raises(DabenchError, match="no node is left"):
        run(
            Lost(2, 2), Settings.of(repeat=1, launches=1), models=("disc", "dw-disc"),
            records=records, at_once=2,
        )  # fmt: skip
    assert [each.case_id.split("/")[0] for each in records.launches] == ["dw-disc"]


def test_rounds_that_were_begun_before_are_not_gone_on_with_side_by_side():
    """Of them nobody knows on which machine they were, and no case may have one twice."""
    plan = expand(
        Grid(devices=("cpu",), models=("disc", "dw-disc")), Settings.of(repeat=1, launches=3)
    )
    first, second = (planned.case for planned in plan)
    done = {
        first.case_id: [make_launch(first, [1.0], launch=0, round=2)],
        second.case_id: [make_launch(second, [1.0], launch=1, round=0)],
    }

    class Here(Pool):
        def run(self, request, receive, *, timeout_s):
            if request["kind"] == "time":
                receive({"kind": "ran", "lane": request["lane"], "seconds": 1.0, "started_at": ""})
            return super().run(request, receive, timeout_s=timeout_s)

    records = Records()
    stored = Stored(done, next_launch=2)
    Runner(plan, Here(), records, NoProgress(), stored=stored, at_once=2).run()
    assert sorted(str(each.round) for each in records.launches) == ["1", "1", "None", "None"]


def test_what_is_counted_at_last_is_in_rows_that_were_there():
    (planned,) = expand(Grid(devices=("cpu",), models=("disc",)), Settings.of(repeat=1, launches=1))
    launch = make_launch(planned.case, [1.0])
    rows = summarise(planned.case, [launch], {}, None)
    stored = Stored({planned.case.case_id: [launch]}, {planned.case.case_id: rows}, next_launch=1)
    outcome = Runner([planned], Pool(), Records(), NoProgress(), stored=stored).run()
    assert rows[0].executed_flops is None
    assert outcome.measurements[0].executed_flops == 2 * 7
