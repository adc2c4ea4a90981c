"""Operations counted in workers: for the moment, or as a run of kind ``count``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dabench.device.machine import describe_host
from dabench.plan.networks import identities
from dabench.records.counts import KIND, read_counts, read_uncounted, write_counts
from dabench.records.folder import (
    RUN,
    RunFolder,
    bad_row,
    check_new_run,
    check_same_machine,
    read_run,
)
from dabench.run.launcher import Launcher
from dabench.run.runner import COUNT_TIMEOUT_S, WorkerPool
from dabench.run.session import check_same_networks, probe

_GRAPH = ("batch", "channels", "height", "width", "mode")


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted.

    Attributes:
        counts: Documents of `dabench.counting.counted.ModelCount`, with ``time_shares`` and, if
            asked for, ``cross_check``.
        failed: Of the others: ``model``, what was asked, and the ``reason``.
    """

    counts: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class CountRequest:
    """What to count.

    Attributes:
        items: Arguments of `dabench.counting.counts.count_model`.
        shares: Whether to measure the time shares of what is not counted.
        cross_check: Whether to count with fvcore too.
    """

    items: Sequence[Mapping[str, Any]]
    shares: bool = False
    cross_check: bool = False


def count_models(asked: CountRequest) -> Counted:
    """Counts networks, each in a worker of its own, and keeps no record."""
    with Launcher() as launcher:
        return _count(asked, launcher, Counted(), lambda counted: None)


def count_into(folder: Path, asked: CountRequest, *, command: str) -> Counted:
    """Counts networks into a run of their own.

    Args:
        folder: For the records.
        asked: What to count.
        command: What the user asked for, for the record.

    Raises:
        UsageError: The folder cannot be written or holds a run.
    """
    check_new_run(folder)
    with (
        Launcher() as launcher,
        RunFolder.create(
            folder,
            KIND,
            command=command,
            environment=describe_host() | probe(launcher),
            networks=identities(item["name"] for item in asked.items),
            shares=asked.shares,
            cross_check=asked.cross_check,
            plan=[dict(item) for item in asked.items],
        ) as run,
    ):
        return _count_into(run, launcher)


def resume_counts(folder: Path) -> Counted:
    """Continues an interrupted run of counts; what could not be counted then is tried again.

    Raises:
        UsageError: No such run there, another machine, or networks that have changed.
        ResultsError: Its records are damaged.
    """
    document = read_run(folder, KIND)
    with Launcher() as launcher:
        check_same_machine(folder, document["environment"], describe_host() | probe(launcher))
        check_same_networks(folder, document["networks"])
        with RunFolder.open(folder, KIND) as run:
            return _count_into(run, launcher)


def _count_into(run: RunFolder, launcher: Launcher) -> Counted:
    document = run.document
    with bad_row(run.path / RUN, 1):
        asked = CountRequest(
            items=document["plan"],
            shares=document["shares"],
            cross_check=document["cross_check"],
        )
        for each in asked.items:
            _graph(each)
    return count_beside(run, launcher, asked)


def count_beside(run: RunFolder, pool: WorkerPool, asked: CountRequest) -> Counted:
    """Counts networks into a run of whatever kind, but for those that it has counted."""
    known = Counted(read_counts(run.path), read_uncounted(run.path))
    return _count(
        asked, pool, known, lambda counted: write_counts(run, counted.counts, counted.failed)
    )


def _count(
    asked: CountRequest, pool: WorkerPool, known: Counted, keep: Callable[[Counted], None]
) -> Counted:
    """Counts what is not known yet, and tells `keep` of all that is known after each network."""
    counts = {_key(count): count for count in known.counts}
    failed = {_key(each): each for each in known.failed}
    graphs = [_graph(each) for each in asked.items]
    names = [_key(graph) for graph in graphs]

    def so_far() -> Counted:
        return Counted(
            [counts[name] for name in names if name in counts],
            [failed[name] for name in names if name in failed],
        )

    for item, graph, name in zip(asked.items, graphs, names, strict=True):
        if name in counts:
            continue
        found: dict[str, Any] = {}
        request = {
            "kind": "count",
            "items": [dict(item)],
            "shares": asked.shares,
            "cross_check": asked.cross_check,
        }

        def receive(message: dict[str, Any], found: dict[str, Any] = found) -> None:
            found.update(message["count"])

        last = pool.run(request, receive, timeout_s=COUNT_TIMEOUT_S)
        failed.pop(name, None)
        if found:
            counts[name] = found
        else:
            failed[name] = {**graph, "reason": last["reason"]}
        keep(so_far())
    return so_far()


def _graph(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": item["name"], **{name: item[name] for name in _GRAPH}}


def _key(count: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(count[name] for name in ("model", *_GRAPH))
