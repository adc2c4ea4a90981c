"""The plugin of pytest: what it measures, shows, keeps and fails; the engine is a fake where
nothing depends on it."""

import json
from types import SimpleNamespace

import pytest
from fakes import make_case
from records import ENVIRONMENT, write_medians

from dabench.base.errors import UsageError
from dabench.guard import fixture
from dabench.records.folder import read_run
from dabench.records.measurements import summarise
from dabench.records.summary import launches_by_case
from dabench.records.timings import read_plan
from dabench.run.runner import Outcome
from dabench.run.session import NoProgress, Session, resume

STEADY = (1.0, 1.004, 0.996, 1.002, 0.998, 1.001)
CASE = make_case()
ONE = 'def test_net(dabench):\n    dabench("dw-disc", batch=2)\n'


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """pytest-benchmark measures nothing in a process that shares tests with others."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch):
    """What the engine finds: level, pattern and facts of the machine."""
    found = {"level": 1.0, "pattern": STEADY, "environment": ENVIRONMENT}

    def run_grids(grids, *, folder, observer, command, details):
        medians = {CASE: [found["level"] * each for each in found["pattern"]]}
        write_medians(folder, medians, environment=found["environment"], command=command, **details)
        plan = read_plan(folder, read_run(folder))
        launches = launches_by_case(folder, plan)
        rows = [row for p in plan for row in summarise(p.case, launches[p.case.case_id], {}, None)]
        found["grids"] = grids
        return Session(Outcome(rows, False), found["environment"], folder)

    monkeypatch.setattr(fixture, "run_grids", run_grids)
    return found


def runs(pytester, *options, test=ONE):
    pytester.makepyfile(test)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def test_what_is_slower_than_the_baseline_fails_with_its_verdict(pytester, machine):
    runs(pytester, "--dabench-save-baseline").assert_outcomes(passed=1)
    runs(pytester, "--dabench-fail-slower", "5%").assert_outcomes(passed=1)
    machine["level"] = 1.2
    done = runs(pytester, "--dabench-fail-slower", "5%")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "slower than its baseline by more than 5.0%:",
            "*forward: slower (1 s -> 1.2 s, ratio 1.200 (1.19* to 1.20*), 6 launches of each)",
            "*baseline: .dabench/baseline/test-cpu-*2026-01-02*",
            "*dabench compare .dabench/baseline/*--delta 0.05 --explain-verdict",
            "*= dabench =*",
            "Records: .dabench/runs/*-pytest*",
        ]
    )
    runs(pytester, "--dabench-fail-slower", "30%").assert_outcomes(passed=1)
    runs(pytester).assert_outcomes(passed=1)
    runs(pytester, "--dabench-save-baseline").assert_outcomes(passed=1)
    runs(pytester, "--dabench-fail-slower", "5%").assert_outcomes(passed=1)


def test_a_test_may_have_its_own_threshold(pytester, machine):
    runs(pytester, "--dabench-save-baseline")
    machine["level"] = 1.1
    own = ONE.replace("batch=2", 'batch=2, fail_slower="{}"')
    runs(pytester, test=own.format("5%")).assert_outcomes(failed=1)
    wide = runs(pytester, "--dabench-fail-slower", "5%", test=own.format("20%"))
    wide.assert_outcomes(passed=1)
    wide.stdout.fnmatch_lines(["*test_net forward: same (1 s -> 1.1 s, ratio 1.100*"])


def test_what_is_undecided_is_said_and_does_not_fail(pytester, machine):
    runs(pytester, "--dabench-save-baseline")
    machine.update(level=1.09, pattern=(1.0, 1.08, 0.94, 1.04, 0.96, 1.0))
    done = runs(pytester, "--dabench-fail-slower", "5%")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*forward: undecided*more launches of each would decide it*"])


def test_a_baseline_is_of_one_machine(pytester, machine):
    runs(pytester, "--dabench-save-baseline")
    machine.update(level=2.0, environment={**ENVIRONMENT, "cpu": "Else"})
    done = runs(pytester, "--dabench-fail-slower", "5%")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*has no baseline on this machine; --dabench-save-baseline makes*"])


def test_other_software_is_a_reason_not_to_judge(pytester, machine):
    runs(pytester, "--dabench-save-baseline")
    machine.update(level=2.0, environment={**ENVIRONMENT, "torch": "9.0"})
    done = runs(pytester, "--dabench-fail-slower", "5%")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(['*undecided*torch "2.15.0" and "9.0"'])


def test_tests_that_are_judged_at_once_share_the_level(pytester, machine):
    """A difference that one test alone would show is chance among a hundred."""
    machine["pattern"] = (1.0, 1.04, 0.96, 1.02, 0.98, 1.01)
    many = (
        "import pytest\n@pytest.mark.parametrize('n', range(100))\n"
        'def test_net(dabench, n):\n    dabench("dw-disc", batch=2)\n'
    )
    runs(pytester, "--dabench-save-baseline", "-k", "[7]", test=many).assert_outcomes(
        passed=1, deselected=99
    )
    machine["level"] = 1.095
    runs(pytester, "--dabench-fail-slower", "5%", "-k", "[7]", test=many).assert_outcomes(
        failed=1, deselected=99
    )
    done = runs(pytester, "--dabench-fail-slower", "5%", test=many)
    done.assert_outcomes(passed=100)
    done.stdout.fnmatch_lines(["*[[]7[]] forward: undecided*"])


def test_pytest_benchmark_sees_the_same_samples(pytester, machine):
    test = f"import pytest\n@pytest.mark.benchmark(group='mine')\n{ONE}"
    done = runs(pytester, "--benchmark-json", "out.json", test=test)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*benchmark 'mine': 1 tests*"])
    (row,) = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    known = row["extra_info"]["dabench"]
    assert row["stats"]["data"] == [level for level in STEADY for _ in range(3)]
    assert known["launch_medians_s"] == list(STEADY)
    assert known["phase"] == "forward"
    assert read_run(pytester.path / known["run"])["test"].endswith("::test_net")
    compared = runs(pytester, "--benchmark-compare", "out.json", test=test)
    compared.stdout.fnmatch_lines(["*test_net (NOW)*"])


def test_more_launches_where_there_is_something_to_guard(pytester, machine):
    def launches(*options):
        runs(pytester, *options).assert_outcomes(passed=1)
        return machine["grids"][0][1].launches

    assert launches() == fixture.LAUNCHES
    assert launches("--dabench-fail-slower", "5%") == fixture.GUARDED_LAUNCHES
    assert launches("--dabench-save-baseline") == fixture.GUARDED_LAUNCHES


def test_records_lie_where_the_user_wants_them(pytester, machine):
    runs(pytester, "--dabench-storage", "elsewhere", "--dabench-save-baseline")
    assert not (pytester.path / ".dabench").exists()
    assert len(list(pytester.path.glob("elsewhere/runs/*/*/run.json"))) == 1
    assert len(list(pytester.path.glob("elsewhere/baseline/*/*/run.json"))) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('dabench("nothing")', "*nothing*"),
        ('dabench("disc", batch=[1, 2])', "--batch: a test times one case*"),
        ('dabench("disc", bach=1)', "dabench() got an unexpected keyword argument 'bach'"),
        ('dabench("disc", fail_slower="much")', "fail_slower: 'much' is not allowed*"),
        ('dabench(print, dtype="bf16")', "*of a callable takes no 'dtype'"),
        ('dabench(print, device="tpu")', "--device: no such device: tpu"),
    ],
)
def test_what_cannot_be_measured_is_one_line(pytester, machine, call, message):
    done = runs(pytester, test=f"def test_net(dabench):\n    {call}\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([message])
    assert list(pytester.path.glob(".dabench/runs/*")) == []


def test_where_records_cannot_lie_is_said_once_by_the_option(pytester, machine):
    (pytester.path / "file").touch()
    done = runs(pytester, "--dabench-storage", "file/x")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["--dabench-storage: cannot write '*/file/x/runs': Not a directory"])
    assert "another exception" not in done.stdout.str()


def test_what_a_callable_raises_is_the_tests_own(pytester):
    done = runs(pytester, test="def test_net(dabench):\n    dabench(lambda: 1 / 0)\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E *ZeroDivisionError: division by zero"])


def test_a_threshold_is_checked_before_anything_runs(pytester):
    done = runs(pytester, "--dabench-fail-slower", "150%")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --dabench-fail-slower: '150%' is not allowed; it takes*"])


def test_nothing_is_measured_where_pytest_benchmark_is_disabled(pytester, machine):
    test = (
        "calls = []\n"
        'def test_net(dabench):\n    assert dabench("dw-disc") is None\n'
        "def test_call(dabench):\n"
        "    assert dabench(lambda: calls.append(1)) is None\n    assert calls == [1]\n"
    )
    runs(pytester, "--benchmark-disable", test=test).assert_outcomes(passed=2)
    assert not (pytester.path / ".dabench").exists()


def test_a_test_may_change_the_working_folder(pytester, machine):
    test = (
        "def test_net(dabench, monkeypatch, tmp_path):\n    monkeypatch.chdir(tmp_path)\n"
        '    dabench("dw-disc")\n'
    )
    runs(pytester, "--dabench-save-baseline", test=test).assert_outcomes(passed=1)
    machine["level"] = 3.0
    runs(pytester, "--dabench-fail-slower", "5%", test=test).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    "off",
    [
        pytest.param(("-n", "2"), marks=pytest.mark.extras),
        ("--benchmark-disable",),
        ("--benchmark-skip",),
    ],
)
@pytest.mark.parametrize("on", [("--dabench-fail-slower", "5%"), ("--dabench-save-baseline",)])
def test_a_guard_is_not_switched_off_unseen(pytester, off, on):
    done = runs(pytester, *on, *off)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {on[0]}: nothing is measured under {off[0]}*"])


def test_a_test_that_guards_itself_says_where_it_was_not_measured(pytester, machine):
    own = ONE.replace("batch=2", 'batch=2, fail_slower="5%"')
    done = runs(pytester, "--benchmark-disable", test=own)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*test_net was not measured: pytest-benchmark is disabled"])


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            'def test_net(dabench):\n    dabench("disc")\n    dabench("disc")\n',
            "one call of dabench() per test*",
        ),
        (
            "def test_net(request):\n    request.getfixturevalue('dabench')\n",
            "*dabench: name the fixture among the test's arguments*",
        ),
        (
            "def test_net(dabench, benchmark):\n    benchmark.pedantic(print)\n",
            "*a test that uses the fixture dabench cannot time something with benchmark, too",
        ),
    ],
)
def test_what_the_fixture_cannot_do_is_told(pytester, machine, test, message):
    done = runs(pytester, test=test)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["-q", "t.py"], ["-q"]),
        (["co", "--size", "co"], ["--size", "co"]),
        (["t.py", "-k", "t.py", "-m", "slow"], ["-k", "t.py", "-m", "slow"]),
        (["--basetemp", "x", "--junitxml=y", "--lf", "-x", "t.py"], ["-x"]),
        (["--dabench-fail-slower", "5%", "--rootdir=a", "t.py::a", "u.py"], ["--rootdir=a"]),
    ],
)
def test_a_launch_inherits_what_a_test_needs(words, kept):
    names = [word for word in words if word in ("co", "t.py", "t.py::a", "u.py")]
    config = SimpleNamespace(
        invocation_params=SimpleNamespace(args=words),
        option=SimpleNamespace(file_or_dir=list(dict.fromkeys(names))),
    )
    assert fixture.inherited(config) == kept


def test_what_is_too_slow_does_not_become_the_baseline(pytester, machine):
    both = ("--dabench-save-baseline", "--dabench-fail-slower", "5%")
    done = runs(pytester, *both)
    done.assert_outcomes(passed=1)
    assert "has no baseline" not in done.stdout.str()
    machine["level"] = 1.2
    done = runs(pytester, *both)
    done.assert_outcomes(failed=1)
    assert "is the baseline now" not in done.stdout.str()
    machine["level"] = 1.0
    done = runs(pytester, *both)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*test_net forward: *", "*is the baseline now*"])
    # Saving alone renews it, whatever a test allows.
    machine["level"] = 1.2
    own = 'def test_net(dabench):\n    dabench("dw-disc", batch=2, fail_slower="5%")\n'
    done = runs(pytester, "--dabench-save-baseline", test=own)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*is the baseline now*"])
    runs(pytester, "--dabench-fail-slower", "5%").assert_outcomes(passed=1)


def test_it_can_be_switched_off(pytester):
    done = runs(pytester, "-p", "no:dabench")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'dabench' not found*"])


CALLS = """
import time
def test_call(dabench):
    result = dabench(lambda: time.sleep(0.001), batch=2, repeat=3, launches=2)
    assert result.n == 6
    assert result.launches == 2
    assert result.median_s >= 0.001
"""


@pytest.mark.usefixtures("at_home")
def test_a_callable_is_measured_here_and_in_a_fresh_process(pytester):
    done = runs(pytester, "-k", "call", test=CALLS)
    done.assert_outcomes(passed=1)
    (run,) = pytester.path.glob(".dabench/runs/*/*")
    document = read_run(run)
    (planned,) = read_plan(run, document)
    assert (planned.case.batch, planned.case.height, planned.case.dtype) == (2, 0, "own")
    assert len(launches_by_case(run, [planned])[planned.case.case_id]) == 2
    with pytest.raises(UsageError, match=r"--resume: .*test_call was measured by another program"):
        resume(run, observer=NoProgress())


def test_a_launch_that_fails_says_why(pytester):
    test = CALLS.replace(
        "import time", "import os, time\nassert 'DABENCH_LAUNCH' not in os.environ"
    )
    done = runs(pytester, test=test)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*crashed: the test did not come to its measurement*"])
