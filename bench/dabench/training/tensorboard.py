"""Curves of a suite for TensorBoard (the extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dabench.base.errors import UsageError
from dabench.records.trainings import EpochRow
from dabench.training.suite import SuiteObserver

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
_SCALARS = (
    "loss", "adversarial_loss", "disc_loss", "belief_source", "belief_target", "disc_accuracy",
    "aux_adversarial_loss", "aux_disc_loss", "entropy", "mixed_loss", "masked_loss", "confident",
    "miou", "accuracy", "lr",
)  # fmt: skip


class TensorBoard:
    """Writes a point per epoch below ``FOLDER/tensorboard/RUN``; a context manager.

    Args:
        folder: Of the suite.
        observer: Told of everything as well.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, observer: SuiteObserver) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            needed = "it needs TensorBoard: pip install 'dabench[tensorboard]'"
            raise UsageError(f"--tensorboard: {needed}") from None
        self._make = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._folder, self._observer = folder, observer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ending: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def run(self, name: str, number: int, of: int, batch: int) -> None:
        """A run begins: curves of its own."""
        self._close()
        self._writer = self._make(str(self._folder / FOLDER / name))
        self._observer.run(name, number, of, batch)

    def done(self, name: str, result: Mapping[str, Any]) -> None:
        """A run ended."""
        self._observer.done(name, result)

    def preparing(self, what: str, done: int, of: int) -> None:
        """Frames are being decoded."""
        self._observer.preparing(what, done, of)

    def step(self, step: int, of: int, epoch: int, result: Mapping[str, float], lr: float) -> None:
        """A step is done."""
        self._observer.step(step, of, epoch, result, lr)

    def epoch(self, row: EpochRow) -> None:
        """A point on every curve."""
        values = asdict(row)
        if self._writer is not None:
            for name in _SCALARS:
                if values[name] is not None:
                    self._writer.add_scalar(name, values[name], row.epoch)
        self._observer.epoch(row)

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._observer.note(text)
