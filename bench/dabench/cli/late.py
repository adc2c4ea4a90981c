"""Commands that are imported when they are called, not when another one is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from dabench.cli.examples import examples_of


class LateCommand(TyperCommand):
    """Stands for a command in the list of commands, and becomes it when it is called.

    Attributes:
        target: ``module:name`` of the command's function, or of a `typer.Typer`
            that holds commands of its own.
    """

    target = ""

    def loaded(self) -> Any:
        """The command itself, with its options (of a class of click's, vendored by typer)."""
        module, _, name = self.target.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return get_command(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name, epilog=examples_of(str(self.name)))(found)
        return get_command(alone)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """The context of the command itself: nothing else of it is asked for before."""
        return self.loaded().make_context(*args, **kwargs)


def add_late(app: typer.Typer, name: str, target: str, summary: str) -> None:
    """Adds a command by the place of its function and the first line of its help."""
    late = type("Late", (LateCommand,), {"target": target})
    app.command(name, cls=late, help=summary)(lambda: None)
