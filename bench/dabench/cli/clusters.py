"""Options of a sweep on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value, check_choice
from dabench.base.started import Started
from dabench.cli.options import option
from dabench.plan.places import MACHINES, Place
from dabench.plan.settings import Grid, Settings

if TYPE_CHECKING:
    from dabench.data.roots import Places
    from dabench.run.runner import Observer
    from dabench.run.session import Session
    from dabench.training.deciding import Question
    from dabench.training.scene import Scene
    from dabench.training.suite import Planned, SuiteObserver

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


@dataclass(frozen=True, slots=True)
class Spread:
    """A cluster on whose machines a suite is trained.

    Attributes:
        on: As the user wrote it.
        storage: Where checkpoints go.
        places: Roots and pairs as they are known here.
        roots: Those that the user gave as options.
    """

    on: str
    storage: str | None
    places: Places
    roots: Mapping[str, Path | None]

    def results(
        self,
        folder: Path,
        scene: Scene,
        plan: Sequence[Planned] | None,
        split: str | None,
        observer: SuiteObserver,
        question: Question | None,
    ) -> dict[str, dict[str, Any]]:
        """Trains a plan, or without one goes on with what is in the folder."""
        from dabench.cli.processes import command_of
        from dabench.training.spread import Asked, resume_spread_suite, spread_suite

        given = {name: root for name, root in self.roots.items() if root is not None}
        asked = Asked(scene.asked, scene.describe(split), self.places, given, split)
        place = Place.of(self.on)
        if plan is None:
            return resume_spread_suite(folder, asked, place=place, observer=observer)
        return spread_suite(
            plan, asked, place=place, folder=folder, command=command_of(Started()),
            storage=self.storage, observer=observer, question=question,
        )  # fmt: skip


def check_spread(on: str | None, storage: str | None, processes: int) -> None:
    """Checks what is asked of a cluster that trains.

    Raises:
        UsageError: No such thing, or something that only a cluster has, or has not.
    """
    if on is None:
        if storage is not None:
            raise UsageError("--storage: it is of a cluster; name that by --on")
        return
    Place.of(on)
    if processes > 1:
        raise bad_value("--nproc", processes, "a run on a cluster is one process")
    if storage is not None:
        from dabench.training.storage import Storage

        Storage(storage)


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
