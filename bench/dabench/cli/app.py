"""The application and its entry point: one line for what the user can mend."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from dabench.base.errors import DabenchError
from dabench.cli.examples import START
from dabench.cli.late import add_late
from dabench.cli.output import error_line, told, write_out

INTERRUPTED, FAULT = 130, 70

# What typer raises for a line it cannot parse; the class has no public name of its own.
_LineError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="dabench",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=START,
)

# Name, where it is, and the first line of its help, so that this list costs no imports.
COMMANDS = (
    ("time", "timing:time", "Time forward, backward and optimiser of models."),
    ("sweep", "timing:sweep",
     "Measure a preset, the grids of a TOML file, or what the options say."),
    ("train", "training:train", "Train a segmenter on one domain and score it on another."),
    ("reproduce", "reproducing:reproduce",
     "Run every experiment of the paper and write its tables and figures."),
    ("eval", "checkpoints:evaluate",
     "Score a checkpoint: mIoU, pixel accuracy and every class, at full label resolution."),
    ("predict", "checkpoints:predict", "Colour images by the classes a checkpoint sees in them."),
    ("flops", "counting:flops", "Count operations, parameters, activations and bytes."),
    ("profile", "profiling:profile",
     "Show where the time goes, layer by layer, and what holds each layer back."),
    ("explain", "explaining:explain",
     "Say in plain words why one network is not as much faster as its operations promise."),
    ("choose", "choosing:choose",
     "Say which network to deploy, run how: for a deadline, an accuracy, a memory."),
    ("export-model", "choosing:export_model",
     "Write the chosen network as files that run without dabench: ONNX, manifest, script."),
    ("compare", "comparing:compare",
     "Say which of two is faster, how sure that is, and what would decide it."),
    ("selftest", "selftesting:selftest",
     "Compare a case with itself: this machine's noise floor, and how often verdicts are false."),
    ("rank", "ranking:rank",
     "Order models on each machine, and say where the order holds and where it flips."),
    ("history", "histories:history",
     "Show one case over commits and dates, and where it became faster or slower."),
    ("ls", "keeping:ls", "List runs: when, of what kind, on which machine, with what tags."),
    ("show", "keeping:show",
     "Show one run: its machine, what was asked, and of timings what was measured."),
    ("tag", "keeping:tag", "Tag a run: 'dabench prune' keeps it, 'dabench ls --tag' finds it."),
    ("note", "keeping:note", "Add a note to a run."),
    ("prune", "keeping:prune", "Delete old runs; asks before it does, and keeps what is tagged."),
    ("merge", "keeping:merge",
     "Bring in runs of other machines; refuses what contradicts a run that is there."),
    ("export", "exchanging:export",
     "Write runs in the format of another tool; says what it cannot hold."),
    ("import", "exchanging:import_",
     "Make runs of files that dabench, pytest-benchmark or nvbench wrote."),
    ("audit", "auditing:audit",
     "Find what cannot be true: times below what a chip could do, claims that logs do not carry."),
    ("ceilings", "ceilings:ceilings",
     "Measure what this machine can reach at best: the roof of 'dabench profile'."),
    ("report", "reporting:report",
     "Write a report from raw records: tables, CSV and charts, or one page of everything."),
    ("serve", "serving:serve", "Show runs as a page in the browser, renewed as rows come in."),
    ("models", "info:models", "List the networks that can be measured."),
    ("env", "info:env", "Describe this machine: its devices, what noise to expect, what to fix."),
    ("data", "datasets:app", "Check, draw and prepare datasets."),
)  # fmt: skip

for _name, _target, _summary in COMMANDS:
    add_late(app, _name, f"dabench.cli.{_target}", _summary)


def _show_version(wanted: bool) -> None:
    if wanted:
        from dabench.device.machine import version_of

        write_out(f"dabench {version_of('dabench')}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Time, count and compare segmenters and domain-adaptation discriminators."""


def _given(error: Any) -> str:
    """The value of the option that an error is about: typer's messages leave it out."""
    names = getattr(getattr(error, "param", None), "opts", ())
    words = sys.argv[1:]
    # Of an option that is given twice the last counts.
    for word, following in reversed([*zip(words, [*words[1:], ""], strict=True)]):
        name, separate, value = word.partition("=")
        if name in names:
            return f", not {value if separate else following!r}"
    return ""


def _run() -> Any:
    """Runs the command; what is returned is its exit code."""
    try:
        return app(standalone_mode=False)
    except SystemExit as end:
        # Typer makes 1 of every broken pipe, which of compare means slower. That of help is
        # its reader's, who has gone.
        if end.code == 1 and {"-h", "--help"} & {*sys.argv}:
            return 0
        if isinstance(end.__context__, OSError):
            raise end.__context__ from None
        return end.code


def _refuse(message: str) -> NoReturn:
    """Ends with one line, or under ``--debug`` with the traceback of the error at hand."""
    if "--debug" in sys.argv:
        with told():
            traceback.print_exc()
    else:
        error_line(message)
    sys.exit(2)


def main() -> None:
    """Runs the command line; an error becomes one line and an exit code.

    Exit codes: 0 done, 1 something that was measured failed (of compare: is slower), 2 the
    request cannot be met, 3 undecided (compare --strict), 70 a fault of dabench, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a sign shows another; it must not cost a result.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(_run())
    except _LineError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # Rich ends the process where the reader of help has gone.
            with suppress(SystemExit, OSError):
                error.show()
        else:
            error_line(error.format_message() + _given(error))
        sys.exit(2)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except DabenchError as error:
        _refuse(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}{error.strerror or error}")
    except Exception as error:
        # Python itself would end with 1, which of compare means slower.
        with told():
            traceback.print_exc()
        raise SystemExit(FAULT) from error
