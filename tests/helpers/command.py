"""The command line, as a shell runs it or in this process."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from dabench.__main__ import main

LIMIT_S = 300


def environment(changes):
    """This process's, but for the user's own settings of dabench: tests name theirs."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == "DABENCH_CACHE" or not name.startswith("DABENCH_")
    }
    return {**inherited, **{name: str(value) for name, value in changes.items()}}


def start(*arguments, cwd=None, leads=False, **changes):
    """Starts ``dabench ARGUMENTS`` in a process of its own, which may lead a group."""
    return subprocess.Popen(
        [sys.executable, "-m", "dabench", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=leads,
        env=environment(changes),
    )


def shell(*arguments, cwd=None, **changes):
    """Runs ``dabench ARGUMENTS`` in a process of its own."""
    process = start(*arguments, cwd=cwd, **changes)
    out, err = process.communicate(timeout=LIMIT_S)
    return CompletedProcess(process.args, process.returncode, out, err)


def dabench(*arguments, cwd=None, **changes):
    """Runs ``dabench ARGUMENTS`` in this process, which has torch imported already."""
    words = ["dabench", *map(str, arguments)]
    code = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, environment(changes), clear=True),
        mock.patch.object(sys, "argv", words),
        _printed(1, contextlib.redirect_stdout) as out,
        _printed(2, contextlib.redirect_stderr) as err,
        _time_limit(words),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return CompletedProcess(words, code, "".join(out), "".join(err))


@contextlib.contextmanager
def _printed(number, redirected):
    """Catches what this process, its libraries and its workers print to a descriptor.

    Yields a list that holds it in the end.
    """
    printed = []
    kept = os.dup(number)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        os.dup2(file.fileno(), number)
        try:
            with (
                open(number, "w", encoding="utf-8", closefd=False, buffering=1) as stream,
                redirected(stream),
            ):
                yield printed
        finally:
            os.dup2(kept, number)
            os.close(kept)
            file.seek(0)
            printed.append(file.read())


@contextlib.contextmanager
def _time_limit(words):
    """Ends a command that hangs."""

    def end(*_):
        raise TimeoutError(f"{' '.join(words)} takes longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
