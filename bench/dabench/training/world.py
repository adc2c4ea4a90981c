"""The processes that train together, each on its share of every batch.

As torch has it: a *world* of so many processes, each of which has a *rank*, started by
``torchrun`` or by ``dabench train --nproc``. All have the same weights and take the same steps;
process 0, the first, alone writes. What a process does by itself (reading a folder, measuring
which precision is faster) the first does for all: `World.share`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dabench.base.cores import usable_cores
from dabench.base.errors import DabenchError, DiedError, UsageError
from dabench.base.started import Started
from dabench.timing.clock import host_clock

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that decodes frames or evaluates. Of one that has ended they
hear from who started them.
"""

JOINING = timedelta(minutes=30)
"""How long they wait for each other at the beginning."""

_ENDED = ("closed by peer", "reset by peer", "Broken pipe", "timed out", "Timed out")
"""In what gloo and NCCL say where another process is no more."""

_ASK_S = 0.02


class OtherProcessError(DabenchError):
    """Process 0 could not do what it does for all; it has said why."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a training as one of them sees them; all methods are called by all alike.

    Attributes:
        rank: Of this process, from 0.
        size: How many there are.
        local_rank: Of this process among those of its machine.
        local_size: How many these are.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints, and does things once."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Threads of CPU kernels where nobody says how many; 0 leaves torch's default."""
        return max(1, usable_cores() // self.local_size) if self.size > 1 else 0

    def device(self, name: str) -> str:
        """This process's own of a kind of device, such as ``cuda:3`` of ``cuda``."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.size > 1 else name

    def part(self, count: int) -> slice:
        """This process's share of so many things: as equal as can be, in order."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def share(self, make: Callable[[], Any]) -> Any:
        """What the first process makes: a JSON document, for all.

        Raises:
            OtherProcessError: It could not; in the first process its own error.
        """
        return json.loads(self.share_bytes(lambda: json.dumps(make()).encode()))

    def share_bytes(self, make: Callable[[], bytes]) -> bytes:
        """Bytes that the first process makes, for all; raises as `share`."""
        if self.size == 1:
            return make()
        failure: DabenchError | None = None
        content = b""
        if self.first:
            try:
                content = make()
            except DabenchError as error:
                failure = error
        length = torch.tensor([-1 if failure is not None else len(content)])
        dist.broadcast(length, src=0)
        if failure is not None:
            raise failure
        if length.item() < 0:
            raise OtherProcessError("process 0 could not go on")
        if length.item() == 0:
            return b""
        sent = torch.empty(int(length.item()), dtype=torch.uint8)
        if self.first:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(sent, src=0)
        return sent.numpy().tobytes()

    def check_same(self, what: str, own: Any) -> None:
        """Checks that all have what the first has.

        Args:
            what: In words.
            own: A JSON document.

        Raises:
            UsageError: This process has another.
        """
        if self.share(lambda: own) != json.loads(json.dumps(own)):
            raise UsageError(f"{what} are not those of process 0")

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, which stays out of gradients."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, which stays out of gradients."""
        return self.total(value) / self.size if self.size > 1 else value

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each of some numbers."""
        if self.size == 1:
            return dict(values)
        every = self.mean(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, every.tolist(), strict=True))

    def gathered(self, value: Tensor) -> list[Tensor]:
        """Every process's tensor, of one shape, by rank."""
        if self.size == 1:
            return [value]
        every = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(every, value)
        return every

    def clock(self) -> float:
        """The first process's clock, so that all see the same moment."""
        now = torch.tensor([host_clock()], dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(now, src=0)
        return float(now.item())

    def averaging(self, parameters: Iterable[nn.Parameter]) -> Callable[[], None]:
        """What averages these parameters' gradients over the processes.

        Args:
            parameters: All that an optimiser changes; they become those of the first process.

        A step passes the segmenter forward and back several times, not always through every head.
        So gradients gather in each process, and when they are whole, are averaged once:
        `DistributedDataParallel` reduces while it goes back from a sum that holds nothing of the
        parameters.
        """
        every = list(parameters)
        if self.size == 1:
            return lambda: None
        reducing = DistributedDataParallel(_Nothing(every))

        def average() -> None:
            unused = [each for each in every if each.grad is None]
            reducing().backward()
            for each in unused:
                # Optimisers leave alone what has none, and let what has zeros decay.
                each.grad = None

        return average

    @torch.no_grad()
    def average_buffers(self, network: nn.Module) -> None:
        """Gives all the mean of what each has seen: running statistics of batch norm.

        As timm's ``--dist-bn reduce``. Counters are the same in all already.
        """
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.mean(buffer))


ALONE = World()
"""One process."""


class _Nothing(nn.Module):
    """A sum that depends on all parameters, each times zero."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.all = nn.ParameterList(parameters)

    def forward(self) -> Tensor:
        return torch.stack([each.sum() for each in self.all]).sum() * 0


def agreed(store: Any, rank: int, size: int) -> str:
    """A word that those processes have in common which are there now.

    torchrun's store outlives a restart, and its agents do not count restarts alike: who came first
    would look for what one that has ended left there. So each says hello by a word of its own, and
    the first answers with a new one until all have said that they heard it.

    Args:
        store: Of torch, that all see.
        rank: Of this process.
        size: How many there are.

    Raises:
        DiedError: Others did not come for `JOINING`.
    """
    hello = "dabench/hello"
    if rank:
        own = uuid.uuid4().hex
        store.set(f"{hello}/{rank}", own)
        word = str(store.get(f"{hello}/answer/{own}").decode())
        store.set(f"{hello}/{word}/{rank}", "heard")
        return word
    word = uuid.uuid4().hex
    silent = set(range(1, size))
    until = host_clock() + JOINING.total_seconds()
    while silent:
        if host_clock() > until:
            missing = ", ".join(map(str, sorted(silent)))
            raise DiedError(f"processes that train together never came: {missing}")
        for other in sorted(silent):
            if store.check([f"{hello}/{other}"]):
                store.set(f"{hello}/answer/{store.get(f'{hello}/{other}').decode()}", word)
            if store.check([f"{hello}/{word}/{other}"]):
                silent.discard(other)
        time.sleep(_ASK_S)
    return word


@contextmanager
def joined(started: Started) -> Iterator[World]:
    """Joins the processes that were started together, until the end of the context.

    Args:
        started: What this process was told by who started it.

    Raises:
        DiedError: One of the others has ended.
    """
    if started.size == 1:
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if cuda and started.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(started.local_rank)
    store, _, _ = next(dist.rendezvous("env://", timeout=JOINING))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=dist.PrefixStore(agreed(store, started.rank, started.size), store),
        rank=started.rank,
        world_size=started.size,
        timeout=PATIENCE,
    )
    try:
        yield World(started.rank, started.size, started.local_rank, started.local_size)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _ENDED):
            raise
        raise DiedError("another process of the training ended") from error
    # After an error nobody waits for the others.
    dist.destroy_process_group()
