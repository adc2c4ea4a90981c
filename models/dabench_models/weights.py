"""Published checkpoints into our networks, never unpickling anything but tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# STDC-Seg registers its stages a second time as x2, x4, ...: the same tensors.
_ALIAS = re.compile(r"(^|\.)x(2|4|8|16|32)\.")
_SHOWN = 3


class WeightsError(ValueError):
    """A checkpoint that does not fit; the message names the first few keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What a checkpoint gave.

    Attributes:
        loaded: Keys taken over.
        left_out: Keys of the checkpoint the network has no use for, such as a
            segmenter's unused classifier and detail heads.
    """

    loaded: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        if not self.left_out:
            return f"{len(self.loaded)} tensors loaded, none left out"
        modules = sorted({key.rsplit(".", 2)[0] for key in self.left_out})
        return (
            f"{len(self.loaded)} tensors loaded, {len(self.left_out)} left out "
            f"({_few(modules)}), which the network does not use"
        )


def load_weights(model: nn.Module, path: str | PathLike[str]) -> LoadReport:
    """Loads a checkpoint of STDC-Seg, of the paper's repository, or our own.

    The file holds a state dict, bare or under ``state_dict``. A ``module.``
    prefix and the alias keys ``x2``, ``x4``, ... are ignored. For a backbone
    file pass the backbone: ``load_weights(model.cp.backbone, path)``.

    Args:
        model: The network to fill; unchanged if the checkpoint does not fit.
        path: A file written by ``torch.save``.

    Returns:
        The keys loaded and those left out.

    Raises:
        WeightsError: Unreadable, not a state dict, or keys missing or misshapen.
    """
    state = {
        key.removeprefix("module."): value
        for key, value in _read(path).items()
        if not _ALIAS.search(key)
    }
    wanted = model.state_dict()
    # Files older than PyTorch 0.4.1 lack these counters, and nothing here reads them.
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} keys missing: {_few(missing)}")
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen: {_few(misshapen)}")
    if problems:
        raise WeightsError(f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}")
    loaded = {key: state[key] for key in wanted if key in state}
    model.load_state_dict(loaded, strict=False)
    left_out = tuple(key for key in state if key not in wanted)
    return LoadReport(loaded=tuple(loaded), left_out=left_out)


def _read(path: str | PathLike[str]) -> Mapping[str, Tensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can make the unpickler raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"cannot read weights from {path}: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not (
        isinstance(content, Mapping) and all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise WeightsError(f"{path} holds no state dict of tensors")
    return content


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
