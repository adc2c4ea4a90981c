"""Rich's console, but for what it does where nobody takes its output."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from dabench.cli.output import to_nobody, told, written_out


class UnbrokenConsole(Console):
    """Rich ends the process then, with the exit code that of ``compare`` means slower."""

    def on_broken_pipe(self) -> None:
        """Goes on without a reader."""
        to_nobody(self.file)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as rich does; raises as `written_out`, or on standard error nothing."""
        with told() if self.stderr else written_out():
            super().print(*objects, **options)
