"""What the fixture ``dabench`` is: measures, keeps, and judges against a baseline."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dabench.api import TimeResult, grid_of
from dabench.base.errors import DabenchError, UsageError, clean_line
from dabench.base.files import disk_errors, slug
from dabench.base.units import format_seconds, threshold_of
from dabench.device.machine import machine_key
from dabench.findings.compare import Compared, compare_runs, read_sides
from dabench.guard.state import (
    ENDING,
    FAIL_SLOWER,
    FOLDER,
    SAID,
    SAVE,
    STORAGE,
    TAPE,
    TESTS,
)
from dabench.plan.axes import AXES
from dabench.plan.cases import expand
from dabench.plan.networks import commit_of
from dabench.plan.settings import Grid, Settings
from dabench.records.comparisons import Side, seconds_per_pass
from dabench.records.folder import new_run_folder, read_run
from dabench.records.measurements import Measurement
from dabench.run.callables import measured_here, opened, time_callable
from dabench.run.session import NoProgress, Session, run_grids

Message = dict[str, Any]

LAUNCH = "DABENCH_LAUNCH"
"""Names the file by which a fresh process is asked for one launch of a test's callable."""

LAUNCHES, GUARDED_LAUNCHES = 3, 8
MAX_TIME_S = 10.0
"""Sampling time of a test, over all launches and phases."""

_OF_CALLABLES = {"device", "batch", "warmup", "repeat", "target_ci", "max_time", "launches",
                 "timeout"}  # fmt: skip


class Guard:
    """Times one thing per test.

    Args:
        item: The test.
        benchmark: Its fixture of pytest-benchmark.

    Raises:
        UsageError: The fixture was asked for by its name while the test ran: pytest-benchmark
            has a timer of its own by then.
    """

    def __init__(self, item: pytest.Item, benchmark: Any) -> None:
        if TAPE not in item.stash:
            raise pytest.UsageError("dabench: name the fixture among the test's arguments")
        self._item = item
        self._tape = item.stash[TAPE]
        self._benchmark = benchmark
        self._config = item.config
        self._shown = False

    def __call__(
        self,
        what: str | Callable[[], object],
        *,
        fail_slower: str | float | None = None,
        **options: Any,
    ) -> TimeResult | None:
        """Measures a network or a callable, and judges it where a baseline is there.

        Args:
            what: A name or reference as of `dabench.time`, or what is to be called: in this
                process, and for each further launch in a fresh one that runs this test alone.
            fail_slower: Fails the test if it is slower than its baseline by more than this
                share, such as ``"3%"``; None takes ``--dabench-fail-slower``.
            **options: As of `dabench.time`, each with one value. Of a callable only ``device``,
                ``batch`` (images per call) and how long it is measured.

        Returns:
            The measurements; None where pytest-benchmark is disabled, such as under xdist: then
            a callable is called once, and of a network the name is checked.

        What cannot be measured fails the test with one line.
        """
        try:
            return self._timed(what, fail_slower, options)
        except DabenchError as error:
            # Not by pytest.fail, which would show what it is raised from, too.
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        finally:
            if not self._shown:
                # Else pytest-benchmark would complain, too, that its fixture was not used.
                with suppress(_NothingToShowError):
                    self._benchmark.pedantic(_nothing_to_show)

    def _timed(
        self,
        what: str | Callable[[], object],
        fail_slower: str | float | None,
        options: dict[str, Any],
    ) -> TimeResult | None:
        if self._shown:
            raise UsageError("one call of dabench() per test; use pytest.mark.parametrize for more")
        guard = self._threshold(fail_slower)
        saves = bool(self._config.getoption(SAVE))
        launches = GUARDED_LAUNCHES if saves or guard is not None else LAUNCHES
        given = {"launches": launches, "max_time": MAX_TIME_S, **options}
        if LAUNCH in os.environ and callable(what):
            self._answer(what, given)
        if self._benchmark.disabled:
            self._shown = True
            if guard is not None:
                self._config.stash.setdefault(SAID, [])
                self._say("was not measured: pytest-benchmark is disabled")
            if callable(what):
                self._benchmark.pedantic(what)
            else:
                self._case(what, given)
                self._benchmark.pedantic(lambda: None)
            return None
        folder = self._folder()
        if callable(what):
            session = self._time_callable(what, given, folder)
        else:
            session = run_grids(
                [self._case(what, given)], folder=folder, observer=NoProgress(),
                command=f"dabench({what!r}) in {self._item.nodeid}", details=self._details(),
            )  # fmt: skip
        result = TimeResult(session)
        sides = read_sides(folder)
        _check(sides)
        self._replay(result, sides)
        baseline = self._baseline(session)
        # Who saves alone renews it, whatever the test allows; who asks for both gets what is too
        # slow as a failure, and not as the baseline.
        renews = saves and (self._config.getoption(FAIL_SLOWER) is None or not baseline.exists())
        if guard is not None and not renews:
            self._judge(baseline, folder, guard)
        if saves:
            _replace(folder, baseline)
            self._say(f"is the baseline now: {self._short(baseline)}")
        return result

    def _threshold(self, own: str | float | None) -> float | None:
        if own is not None:
            return threshold_of("fail_slower", own)
        asked = self._config.getoption(FAIL_SLOWER)
        return None if asked is None else threshold_of("--dabench-fail-slower", asked)

    def _case(self, what: str, given: dict[str, Any]) -> tuple[Grid, Settings]:
        """The grid of the one case."""
        grid, settings = _grid({"model": what, **given})
        for axis in AXES.values():
            if axis.key != "phase" and len(getattr(grid, axis.field)) > 1:
                raise UsageError(
                    f"{axis.option}: a test times one case; use pytest.mark.parametrize for more"
                )
        expand(grid, settings)
        return grid, settings

    def _time_callable(
        self, function: Callable[[], object], given: dict[str, Any], folder: Path
    ) -> Session:
        settings = self._settings(given)
        return time_callable(
            function,
            self._item.nodeid,
            device=str(given.get("device", "cpu")),
            batch=int(given.get("batch", 1)),
            settings=settings,
            folder=folder,
            command=f"dabench(...) in {self._item.nodeid}",
            relaunch=lambda rule: self._relaunch(rule, settings.timeout_s),
            details=self._details(),
        )

    def _settings(self, given: dict[str, Any]) -> Settings:
        """How long a callable is measured."""
        if unknown := sorted(set(given) - _OF_CALLABLES):
            raise UsageError(f"dabench() of a callable takes no {unknown[0]!r}")
        times = {key: value for key, value in given.items() if key not in ("device", "batch")}
        return _grid({"model": "dw-disc", **times})[1]

    def _relaunch(self, rule: Message, timeout_s: float) -> list[Message]:
        """One launch in a fresh process: this test, alone, under the options of this session."""
        config = self._config
        rest = self._item.nodeid.partition("::")[2]
        alone = ["-n0"] * config.pluginmanager.hasplugin("xdist")
        with tempfile.TemporaryDirectory(prefix="dabench-") as folder:
            asked = Path(folder) / "launch.json"
            asked.write_text(json.dumps(rule), encoding="utf-8")
            command = [
                sys.executable, "-m", "pytest", *inherited(config), *alone,
                f"--basetemp={Path(folder) / 'tmp'}", f"{self._item.path}::{rest}",
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command, cwd=config.invocation_params.dir, timeout=timeout_s, check=False,
                    capture_output=True, text=True, env={**os.environ, LAUNCH: str(asked)},
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                why = f"took longer than the limit of {timeout_s:g} s"
                return [{"kind": "failed", "status": "timeout", "reason": why}]
            answer = asked.with_suffix(".answer")
            if answer.exists():
                messages: list[Message] = json.loads(answer.read_text(encoding="utf-8"))
                return messages
        last = clean_line("\n".join(reversed((done.stdout + done.stderr).splitlines())))
        why = f"the test did not come to its measurement in a fresh process: {last}"
        return [{"kind": "failed", "status": "crashed", "reason": why}]

    def _answer(self, function: Callable[[], object], given: dict[str, Any]) -> None:
        """In the fresh process: measures one launch and ends the test.

        What the user wants to know of the result, the first process asks.
        """
        asked = Path(os.environ[LAUNCH])
        rule = json.loads(asked.read_text(encoding="utf-8"))
        messages = measured_here(function, opened(str(given.get("device", "cpu"))), rule)
        asked.with_suffix(".answer").write_text(json.dumps(messages), encoding="utf-8")
        pytest.skip("one launch, measured for another process")

    def _replay(self, result: TimeResult, sides: Mapping[str, Side]) -> None:
        """Shows the samples to pytest-benchmark: of a training step's phases the whole."""
        row = next((row for row in result if row.phase == "total"), result[0])
        launches, _ = seconds_per_pass(sides[row.case_id], row.phase)
        samples = [each for launch in launches for each in launch]
        self._benchmark.extra_info["dabench"] = {
            "run": str(result.folder),
            "phase": row.phase,
            "launch_medians_s": [median(each) for each in launches],
            "measurements": [_numbers(each) for each in result],
        }
        self._tape.seconds = iter(samples)
        self._shown = True
        self._benchmark.pedantic(lambda: None, rounds=len(samples))

    def _judge(self, baseline: Path, folder: Path, guard: float) -> None:
        if not baseline.exists():
            self._say("has no baseline on this machine; --dabench-save-baseline makes one")
            return
        found = compare_runs(baseline, folder, guard, max(self._config.stash[TESTS], 1))
        for each in found:
            self._say(_said(each))
        if any(each.verdict == "slower" for each in found):
            run = read_run(baseline)
            at = (run.get("repository") or {}).get("commit")
            old, new = self._short(baseline), self._short(folder)
            lines = [
                f"slower than its baseline by more than {guard:.1%}:",
                *(f"  {_said(each)}" for each in found),
                f"  baseline: {old}, {run['created'][:10]}{f', commit {at}' if at else ''}",
                f"  dabench compare {old} {new} --delta {guard:g} --explain-verdict",
            ]
            pytest.fail("\n".join(lines), pytrace=False)

    def _details(self) -> dict[str, Any]:
        """What the record says of the test."""
        return {
            "test": self._item.nodeid,
            "repository": {"commit": commit_of(self._config.rootpath)},
        }

    def _storage(self) -> Path:
        """Whole, since a test may change the working folder."""
        config = self._config
        named = config.getoption(STORAGE)
        return config.invocation_params.dir / named if named else config.rootpath / ".dabench"

    def _short(self, path: Path) -> Path:
        """As short as it can be said from where pytest was started."""
        here = self._config.invocation_params.dir
        return path.relative_to(here) if path.is_relative_to(here) else path

    def _name(self) -> str:
        """Of the test's folders: readable, and unique however long or odd its id is."""
        nodeid = self._item.nodeid
        return f"{slug(nodeid)[-60:]}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"

    def _folder(self) -> Path:
        """The folder of this test's run, in that of the session."""
        stash = self._config.stash
        if ENDING not in stash:
            stash[ENDING] = ExitStack()
            root = self._storage() / "runs"
            folder = new_run_folder(None, "pytest", root, option="--dabench-storage")
            stash[FOLDER] = stash[ENDING].enter_context(folder)
            stash.setdefault(SAID, []).append(f"Records: {self._short(stash[FOLDER])}")
        return stash[FOLDER] / self._name()

    def _baseline(self, session: Session) -> Path:
        return self._storage() / "baseline" / machine_key(session.environment) / self._name()

    def _say(self, text: str) -> None:
        self._config.stash[SAID].append(f"{self._item.nodeid} {text}")


_OF_THE_SESSION = (
    "--basetemp", "--junitxml", "--junit-xml", "--log-file", "--report-log", "--benchmark-json",
    "--benchmark-save", "--dabench-fail-slower",
)  # fmt: skip
"""Options with a value that speak of the whole session; a launch writes none of its files."""

_SELECTING = (
    "--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first", "--sw", "--stepwise",
    "--cache-clear", "--benchmark-autosave", "--dabench-save-baseline", "--pdb",
)  # fmt: skip
"""Options without one, likewise."""


def inherited(config: pytest.Config) -> list[str]:
    """The options of a session that a launch of one of its tests needs, too."""
    words = [str(word) for word in config.invocation_params.args]
    for name in map(str, config.option.file_or_dir):
        # What stands behind an option may be its value: of several the one that stands alone.
        places = [place for place, word in enumerate(words) if word == name]
        alone = [place for place in places if not place or not words[place - 1].startswith("-")]
        if places:
            del words[(alone or places)[-1]]
    kept: list[str] = []
    values = iter(words)
    for word in values:
        if word in _OF_THE_SESSION:
            next(values, None)
        elif word not in _SELECTING and word.partition("=")[0] not in _OF_THE_SESSION:
            kept.append(word)
    return kept


_KEPT = ("case_id", "phase", "n", "launches", "median_s", "ci_low_s", "ci_high_s", "flags")


def _grid(given: dict[str, Any]) -> tuple[Grid, Settings]:
    try:
        return grid_of("dabench()", given)
    except TypeError as error:
        raise UsageError(str(error)) from None


class _NothingToShowError(Exception):
    """Ends a measurement of pytest-benchmark."""


def _nothing_to_show() -> None:
    raise _NothingToShowError


def _check(sides: Mapping[str, Side]) -> None:
    """Fails a test of which a launch failed: what is left would pass for all there is."""
    for side in sides.values():
        for launch in side.launches:
            if launch.status != "ok":
                raise UsageError(f"{side.case.case_id}: {launch.status}: {launch.reason}")
        if side.impossible:
            raise UsageError(f"{side.case.case_id}: {side.impossible}")


def _numbers(row: Measurement) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row) if field.name in _KEPT}


def _said(each: Compared) -> str:
    """A verdict with what it rests on."""
    times = f"{format_seconds(each.base_s)} -> {format_seconds(each.new_s)}"
    ratio = each.ratio and (
        f", ratio {each.ratio.estimate:.3f} ({each.ratio.low:.3f} to {each.ratio.high:.3f})"
    )
    why = f": {each.reason}" if each.reason else ""
    return (
        f"{each.phase}: {each.verdict} ({times}{ratio or ''}, {each.launches} launches of each)"
        f"{why}"
    )


def _replace(folder: Path, target: Path) -> None:
    """Copies a run to where another one may lie."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as stage:
            copied = shutil.copytree(folder, Path(stage) / "run")
            if target.exists():
                target.rename(Path(stage) / "old")
            copied.rename(target)
