"""Live progress on standard error: what runs, how far, how long still."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dabench.measurement import LaunchRecord
from dabench.plan import Case


class LiveProgress:
    """An observer (`dabench.runner.Observer`) that draws a bar; a context manager.

    Drawn twice a second, so that drawing takes no share worth naming of the
    processors being measured. Without a terminal it prints failures only.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

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
            self._console.print(f"{record.case_id}: {record.status}: {record.reason}", markup=False)
