"""Live progress on standard error: what runs, how far, how long still."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dabench.cli.consoles import UnbrokenConsole
from dabench.plan.cases import Case
from dabench.records.measurements import LaunchRecord
from dabench.records.trainings import EpochRow
from dabench.training.health import signs_of


class _Bar:
    """A bar on standard error while the context lasts."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Some versions of rich end what they did not draw with an empty line.
        if not self._progress.disable:
            self._progress.stop()


class LiveProgress(_Bar):
    """An observer (`dabench.run.runner.Observer`) that draws a bar; a context manager.

    Drawn twice a second, so that drawing takes no share worth naming of the
    processors being measured. Without a terminal it prints failures only.
    """

    def __init__(self) -> None:
        self._console = UnbrokenConsole(stderr=True, highlight=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("launches,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            refresh_per_second=2,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("starting a worker", total=None)
        self._total = 0

    def planned(self, launches: int) -> None:
        """More launches are due."""
        self._total += launches
        self._progress.update(self._task, total=self._total)

    def started(self, case: Case) -> None:
        """Names the case at the bar."""
        self._progress.update(self._task, description=case.case_id)

    def finished(self, record: LaunchRecord) -> None:
        """Moves the bar on; a failure is said at once."""
        self._progress.advance(self._task)
        if record.status != "ok":
            self.note(f"{record.case_id}: {record.status}: {record.reason}")

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._console.print(text, markup=False)


class TrainProgress(_Bar):
    """Shows a training suite (`dabench.training.suite.SuiteObserver`); a context manager.

    Prints a line per run and per epoch; on a terminal it draws a bar, too.

    Args:
        quiet: Print notes and failures only.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._console = UnbrokenConsole(stderr=True, highlight=False, emoji=False)
        self._quiet = quiet
        self._batch = 0
        self._rows: list[EpochRow] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[state]}"),
            console=self._console,
            refresh_per_second=2,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._progress.add_task("preparing", total=None, state="")

    def run(self, name: str, number: int, of: int, batch: int) -> None:
        """A run begins: a bar of its own."""
        self._batch = batch
        self._rows.clear()
        self._progress.reset(self._task, total=None, state="")
        self._progress.update(self._task, description=f"{name} ({number}/{of})")
        if not self._quiet:
            self._console.print(f"{name} ({number} of {of})", markup=False)

    def done(self, name: str, result: Mapping[str, Any]) -> None:
        """A run ended; a failure is said at once."""
        if result["status"] != "ok":
            self._console.print(f"{name}: {result['reason']}", markup=False)

    def preparing(self, what: str, done: int, of: int) -> None:
        """Frames are being decoded."""
        self._progress.update(self._task, completed=done, total=of, state=f"decoding {what}")

    def step(self, step: int, of: int, epoch: int, result: Mapping[str, float], lr: float) -> None:
        """Losses at the bar."""
        losses = " ".join(f"{name} {value:.3f}" for name, value in result.items())
        speed = self._progress.tasks[self._task].speed
        rate = "" if speed is None else f"{speed * self._batch:.1f} images/s "
        state = f"epoch {epoch} lr {lr:.2g} {rate}{losses}"
        self._progress.update(self._task, completed=step, total=of, state=state)

    def epoch(self, row: EpochRow) -> None:
        """A line per epoch."""
        self._rows.append(row)
        if self._quiet:
            return
        parts = [
            f"loss {row.loss:.3f}",
            *([] if row.miou is None else [f"mIoU {row.miou:.1%}"]),
            f"{row.images / row.seconds:.1f} images/s",
            f"{row.data_s / row.seconds:.0%} waiting for data",
            *(sign.flag for sign in signs_of(self._rows)),
        ]
        self._console.print(f"  epoch {row.epoch}: {', '.join(parts)}", markup=False)

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._console.print(text, markup=False)
