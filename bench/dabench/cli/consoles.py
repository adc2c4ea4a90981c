"""Rich's console, but for what it does where nobody takes its output."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from dabench.cli.output import to_nobody


class UnbrokenConsole(Console):
    """Rich ends the process then, with the exit code that of ``compare`` means slower."""

    def on_broken_pipe(self) -> None:
        """Goes on without a reader."""
        to_nobody(self.file)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; on standard error, where nothing can be written, to nobody."""
        try:
            super().print(*objects, **options)
        except OSError:
            if not self.stderr:
                raise
            to_nobody(self.file)
