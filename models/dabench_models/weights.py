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
    """Loads a checkpoint of STDC-Seg, of the paper's repository, our own or another trainer's.

    The file holds a state dict, bare or under one of `CONTAINERS`. Prefixes that
    wrappers put before every key (`PREFIXES`) come off, in any order and number,
    and the alias keys ``x2``, ``x4``, ... are ignored. For a backbone file pass
    the backbone: ``load_weights(model.cp.backbone, path)``.

    Args:
        model: The network to fill; unchanged if the checkpoint does not fit.
        path: A file written by ``torch.save``.

    Returns:
        The keys loaded and those left out.

    Raises:
        WeightsError: Unreadable, not a state dict, keys missing or misshapen, or
            weights that are no numbers; one line.
    """
    wanted = model.state_dict()
    state = {k: v for k, v in _unwrapped(_read(path), wanted).items() if not _ALIAS.search(k)}
    # Files older than PyTorch 0.4.1 lack these counters, and nothing here reads them.
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = []
    if missing:
        has = f"; the file has {_few(list(state))}" if len(missing) == len(wanted) else ""
        problems.append(f"{len(missing)} of {len(wanted)} keys missing: {_few(missing)}{has}")
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen: {_few(misshapen)}")
    loaded = {key: state[key] for key in wanted if key in state}
    no_numbers = [key for key, value in loaded.items() if not bool(value.isfinite().all())]
    if no_numbers:
        problems.append(f"{len(no_numbers)} hold what is no number: {_few(no_numbers)}")
    if problems:
        raise WeightsError(f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(loaded, strict=False)
    left_out = tuple(key for key in state if key not in wanted)
    return LoadReport(loaded=tuple(loaded), left_out=left_out)


CONTAINERS = (
    "state_dict", "model_state_dict", "model", "network", "net", "weights", "model_ema",
    "state_dict_ema", "ema_state_dict", "ema",
)  # fmt: skip
"""Keys under which trainers keep a state dict, the trained weights before their averages."""

PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "ema_model.")
"""What DataParallel and DDP, torch.compile, Lightning and others put before every key."""


def _unwrapped(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without prefixes, as long as taking one off finds more of the keys."""
    found = dict(state)
    while True:
        fitting = sum(key in wanted for key in found)
        stripped = [{key.removeprefix(p): v for key, v in found.items()} for p in PREFIXES]
        # A prefix may stand behind another: what fits only in the end counts for every step.
        better = [s for s in stripped if s.keys() != found.keys() and _fit(s, wanted) > fitting]
        if not better:
            return found
        found = max(better, key=lambda s: _fit(s, wanted))


def _fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], depth: int = 4) -> int:
    """Keys that fit once all prefixes are off."""
    here = sum(key in wanted for key in state)
    if here or not depth:
        return here
    deeper = (
        {key.removeprefix(p): v for key, v in state.items()}
        for p in PREFIXES
        if any(key.startswith(p) for key in state)
    )
    return max((_fit(each, wanted, depth - 1) for each in deeper), default=0)


def _read(path: str | PathLike[str]) -> Mapping[str, Tensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can make the unpickler raise anything
        raise WeightsError(f"cannot read weights from {path}: {_cause(error)}") from error
    place = []
    while isinstance(content, Mapping) and content and not _is_state_dict(content):
        name = next((n for n in CONTAINERS if isinstance(content.get(n), Mapping)), None)
        if name is None:
            break
        content = content[name]
        place.append(name)
    if not (isinstance(content, Mapping) and _is_state_dict(content)):
        under = f" under {'.'.join(place)!r}" if place else ""
        raise WeightsError(f"{path} holds no state dict of tensors{under}")
    return content


def _is_state_dict(content: Mapping[object, object]) -> bool:
    import torch

    return bool(content) and all(isinstance(value, torch.Tensor) for value in content.values())


_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_FOREIGN = re.compile(r"(?:GLOBAL|class) ([\w.]+)")


def _cause(error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    text = _ESCAPES.sub("", str(error))
    foreign = _FOREIGN.search(text)
    if foreign and "weights_only" in text:
        return (
            f"it holds a {foreign[1]} beside its tensors, which is not read from files of others; "
            "save the state dict alone"
        )
    return text.splitlines()[0] if text else type(error).__name__


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
