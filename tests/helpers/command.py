"""The command line, as a shell runs it or in this process."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from dabench.__main__ import main


def environment(changes):
    """This process's, but for its datasets: tests name their own."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("DABENCH_") and name.endswith("_ROOT"))
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
    out, err = process.communicate(timeout=400)
    return CompletedProcess(process.args, process.returncode, out, err)


def dabench(*arguments, cwd=None, **changes):
    """Runs ``dabench ARGUMENTS`` in this process: without the seconds that importing torch takes.

    What workers print goes to this process's standard error, and is not in the answer.
    """
    out, err = io.StringIO(), io.StringIO()
    words = ["dabench", *map(str, arguments)]
    code = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, environment(changes), clear=True),
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
