"""``dabench flops``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from dabench.cli.output import print_json, print_line, print_table
from dabench.config import Grid
from dabench.errors import UsageError
from dabench.grid import parse
from dabench.units import format_bytes

if TYPE_CHECKING:
    from dabench.flops import ModelCount


def flops(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Names.", show_default=False),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="BATCH", help="Images per pass.")] = "1",
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Default: the model's own.", show_default=False),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(metavar="MODE", help="eval: graph of the main output; train: of all heads."),
    ] = "train,eval",
    layers: Annotated[bool, typer.Option("--layers", help="A row per layer.")] = False,
    time_share: Annotated[
        bool,
        typer.Option(
            "--time-share", help="Measure what share of a CPU forward uncounted operators take."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Count operations, parameters, activations and bytes.

    1 MAC is 2 FLOPs. Algorithmic operations are those a layer's definition
    needs, executed ones those its kernels carry out.

    Example: dabench flops --model disc,dw-disc,diag-disc
    """
    grid = _checked(model or [], batch, size, mode)
    from dabench.flops import count_model

    height, width = grid.sizes[0] if grid.sizes else (None, None)
    counts = [
        count_model(name, batch=grid.batches[0], height=height, width=width, mode=each)
        for name in grid.models
        for each in grid.modes
    ]
    shares = [_shares(count) if time_share else {} for count in counts]
    if json:
        pairs = zip(counts, shares, strict=True)
        print_json({"counts": [{**c.to_dict(), "time_shares": s or None} for c, s in pairs]})
        return
    _print_models(counts)
    if layers:
        for count in counts:
            _print_layers(count)
    for count, known in zip(counts, shares, strict=True):
        _print_uncounted(count, known)


def _checked(model: list[str], batch: str, size: str | None, mode: str) -> Grid:
    """Checks every value, before torch is imported."""
    from dabench.plan import check_size, spec_of

    names = tuple(name.strip() for text in model for name in text.split(","))
    if not names:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    grid = Grid(
        models=names,
        batches=(parse("batch", batch),),
        sizes=() if size is None else (parse("size", size),),
        modes=tuple(name.strip() for name in mode.split(",")),
    )
    for spec in map(spec_of, names):
        check_size(spec, *(grid.sizes[0] if grid.sizes else (spec.height, spec.width)))
    return grid


def _shares(count: ModelCount) -> dict[str, float]:
    """Time shares of the operators that a count leaves out."""
    from dabench.shares import time_shares
    from dabench_models import MODELS, build

    return time_shares(
        build(count.model),
        MODELS[count.model],
        size=(count.height, count.width),
        mode=count.mode,
        operators=count.uncounted,
    )


_QUANTITIES: dict[str, Callable[[ModelCount], str]] = {
    "mode": lambda c: c.mode,
    "batch": lambda c: str(c.batch),
    "input": lambda c: f"{c.channels}x{c.height}x{c.width}",
    "parameters": lambda c: f"{c.params:,}",
    "forward MACs": lambda c: f"{c.macs:,}",
    "  executed": lambda c: f"{c.executed_macs:,}",
    "  of convolutions": lambda c: f"{c.by_operator.get('convolution', 0):,}",
    "backward MACs": lambda c: f"{c.backward_macs:,}",
    "  executed ": lambda c: f"{c.executed_backward_macs:,}",
    "forward FLOPs": lambda c: f"{2 * c.macs:,}",
    "backward FLOPs": lambda c: f"{2 * c.backward_macs:,}",
    "both MACs": lambda c: f"{c.macs + c.backward_macs:,}",
    "both FLOPs": lambda c: f"{2 * (c.macs + c.backward_macs):,}",
    "activations": lambda c: f"{c.activations:,}",
    "least bytes": lambda c: format_bytes(c.min_bytes),
    "bytes by layer": lambda c: format_bytes(c.bytes_moved),
}
_COLUMNS = 3


def _print_models(counts: list[ModelCount]) -> None:
    """A row per quantity, a few models side by side: whole numbers need the width."""
    print_line("Per pass; 1 MAC = 2 FLOPs; bytes of the fp32 forward; eval has no backward.")
    for start in range(0, len(counts), _COLUMNS):
        group = counts[start : start + _COLUMNS]
        print_table(
            "",
            ("", *(count.model for count in group)),
            ((name, *(show(count) for count in group)) for name, show in _QUANTITIES.items()),
            words=("",),
        )


def _print_layers(count: ModelCount) -> None:
    print_table(
        f"{count.model}, {count.mode}, batch {count.batch}",
        (
            "layer", "kind", "output", "params", "fwd MACs", "executed", "bwd MACs", "executed",
            "activations", "bytes",
        ),
        (
            (
                row.layer, row.kind, row.shape, f"{row.params:,}", f"{row.macs:,}",
                f"{row.executed_macs:,}", f"{row.backward_macs:,}",
                f"{row.executed_backward_macs:,}", f"{row.activations:,}",
                format_bytes(row.bytes_moved),
            )
            for row in count.layers
        ),
        words=("layer", "kind"),
    )  # fmt: skip


def _print_uncounted(count: ModelCount, known: dict[str, float]) -> None:
    calls = ", ".join(
        f"{name} x{n}" + (f" ({known[name]:.1%} of the time)" if name in known else "")
        for name, n in sorted(count.uncounted.items())
    )
    if calls:
        print_line(f"{count.model} ({count.mode}): not multiply-adds, not counted: {calls}")
