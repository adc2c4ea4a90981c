"""Options of a sweep on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dabench.base.errors import UsageError, check_choice
from dabench.cli.options import option
from dabench.plan.places import MACHINES, Place
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.run.runner import Observer
    from dabench.run.session import Session

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ray|ray://HOST:PORT",
        help="Measures on the nodes of a Ray cluster: this machine's, or one elsewhere.",
        show_default=False,
    ),
]
Machines = Annotated[
    str | None,
    option(
        "--machines",
        "Of a cluster: all kinds of machines measure every case, or any one kind does. Default "
        "all.",
        MACHINES,
    ),
]


@dataclass(frozen=True, slots=True)
class Where:
    """A cluster, and which of its machines measure.

    Attributes:
        on: As the user wrote it.
        machines: Of `MACHINES`.
    """

    on: str
    machines: str

    def measure(
        self, grids: list[tuple[Grid, Settings]], folder: Path, command: str
    ) -> Callable[[Observer], list[Session]]:
        """Measures grids into a new folder, once it is called with an observer."""
        from dabench.run.spreading import spread_grids

        return lambda observer: spread_grids(
            grids,
            place=Place.of(self.on),
            machines=self.machines,
            folder=folder,
            observer=observer,
            command=command,
        )

    def resume(self, folder: Path) -> Callable[[Observer], list[Session]]:
        """Continues the runs in a folder, once it is called with an observer."""
        from dabench.run.spreading import resume_spread

        return lambda observer: resume_spread(folder, place=Place.of(self.on), observer=observer)


def where_of(on: str | None, machines: str | None) -> Where | None:
    """The cluster that is asked for; None is this machine.

    Raises:
        UsageError: No such thing, or something that only a cluster has.
    """
    if on is None:
        if machines is not None:
            raise UsageError("--machines: it is of a cluster; name that by --on")
        return None
    Place.of(on)
    check_choice("--machines", machines or MACHINES[0], MACHINES)
    return Where(on, machines or MACHINES[0])
