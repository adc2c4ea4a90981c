"""``dabench flops``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dabench.base.errors import UsageError, bad_value
from dabench.base.units import format_bytes
from dabench.cli.options import ModelArgs, Pretrained, ResumeFrom, check_alone, named
from dabench.cli.output import error_line, print_json, print_line, print_table, resumable
from dabench.plan.grids import make_grid, parse
from dabench.plan.references import split_names

if TYPE_CHECKING:
    from dabench.counting.counted import ModelCount


def flops(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Names.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Images per pass.", show_default="1")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Default: the model's own.", show_default=False),
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option("--input", metavar="CxHxW", help="Size and channels.", show_default=False),
    ] = None,
    model_arg: ModelArgs = None,
    pretrained: Pretrained = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="eval: graph of the main output; train: of all heads.",
            show_default="train,eval",
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="A row per layer.")] = False,
    time_share: Annotated[
        bool,
        typer.Option(
            "--time-share", help="Measure what share of a CPU forward uncounted operators take."
        ),
    ] = False,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Count with fvcore too, and explain differences.")
    ] = False,
    resume_from: ResumeFrom = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the counts in as a run.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Count operations, parameters, activations and bytes.

    1 MAC is 2 FLOPs. Algorithmic operations are those a layer's definition
    needs, executed ones those its kernels carry out.
    """
    given = named(locals())
    if resume_from is not None:
        check_alone(given, {"layers"})
        from dabench.run.counts import resume_counts

        with resumable("flops", resume_from):
            counted = resume_counts(resume_from)
    else:
        items = _checked(
            model or [], batch or "1", size, input_, mode or "train,eval", model_arg or []
        )
        from dabench.run.counts import CountRequest, count_into, count_models

        asked = CountRequest(items=items, shares=time_share, cross_check=cross_check)
        command = shlex.join(["dabench", *sys.argv[1:]])
        with resumable("flops", out):
            counted = (
                count_models(asked) if out is None else count_into(out, asked, command=command)
            )
    if json:
        print_json({"counts": counted.counts})
    else:
        _print(counted.counts, layers=layers)
    for each in counted.failed:
        error_line(f"{each['model']} ({each['mode']}): {each['reason']}")
    if counted.failed:
        raise typer.Exit(1)


def _print(documents: list[dict[str, Any]], *, layers: bool) -> None:
    """All tables: models, layers, what is not counted, fvcore's counts."""
    from dabench.counting.counted import ModelCount

    counts = [ModelCount.of(document) for document in documents]
    _print_models(counts)
    if layers:
        for count in counts:
            _print_layers(count)
    for count, document in zip(counts, documents, strict=True):
        _print_uncounted(count, document["time_shares"] or {})
    for document in documents:
        if "cross_check" in document:
            _print_cross_check(document)


def _checked(
    model: list[str],
    batch: str,
    size: str | None,
    shape: str | None,
    mode: str,
    model_arg: list[str],
) -> list[dict[str, Any]]:
    """What to count, every value checked before torch is imported."""
    from dabench.plan.cases import expand

    names = tuple(name for text in model for name in split_names(text))
    if not names:
        raise UsageError("--model: name at least one; 'dabench models' lists them")
    axes = {
        "model": names,
        "batch": (parse("batch", batch),),
        "size": () if size is None else (parse("size", size),),
        "input": () if shape is None else (parse("input", shape),),
        "mode": tuple(name.strip() for name in mode.split(",")),
        "model_arg": tuple(parse("model_arg", text) for text in model_arg),
        "device": ("cpu",),
    }
    grid, settings = make_grid(axes, {})
    if grid.inputs != ("device",):
        raise bad_value("--input", "host", "operations are of the network alone; it takes CxHxW")
    return [
        {
            "name": case.model, "batch": case.batch, "channels": case.channels,
            "height": case.height, "width": case.width, "mode": case.mode,
        }
        for case in (planned.case for planned in expand(grid, settings))
    ]  # fmt: skip


_QUANTITIES: dict[str, Callable[[ModelCount], str]] = {
    "mode": lambda c: c.mode,
    "batch": lambda c: str(c.batch),
    "input": lambda c: f"{c.channels}x{c.height}x{c.width}",
    "parameters": lambda c: f"{c.params:,}",
    "forward MACs": lambda c: _at_least(c, c.macs),
    "  executed": lambda c: _at_least(c, c.executed_macs),
    "  of convolutions": lambda c: f"{c.by_operator.get('convolution', 0):,}",
    "backward MACs": lambda c: _of_backward(c, c.backward_macs),
    "  executed ": lambda c: _of_backward(c, c.executed_backward_macs),
    "forward FLOPs": lambda c: _at_least(c, 2 * c.macs),
    "backward FLOPs": lambda c: _of_backward(c, 2 * c.backward_macs),
    "both MACs": lambda c: _at_least(c, c.macs + c.backward_macs),
    "both FLOPs": lambda c: _at_least(c, 2 * (c.macs + c.backward_macs)),
    "activations": lambda c: f"{c.activations:,}",
    "least bytes": lambda c: format_bytes(c.min_bytes),
    "bytes by layer": lambda c: format_bytes(c.bytes_moved),
}
_COLUMNS = 3


def _at_least(count: ModelCount, total: int) -> str:
    return f">= {total:,}" if count.at_least else f"{total:,}"


def _of_backward(count: ModelCount, total: int) -> str:
    return _at_least(count, total) if count.mode == "train" else f"{total:,}"


def _print_models(counts: list[ModelCount]) -> None:
    """A row per quantity, a few models side by side: whole numbers need the width."""
    if not counts:
        return
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


def _print_cross_check(document: dict[str, Any]) -> None:
    which = f"{document['model']} ({document['mode']})"
    if document["no_cross_check"]:
        print_line(f"{which}: fvcore cannot count it: {document['no_cross_check']}")
        return
    images = document.get("cross_check_batch", document["batch"])
    of = "" if images == document["batch"] else f" of {images} images"
    print_table(
        f"{which}: executed multiply-adds of the forward{of}, and fvcore's",
        ("operators", "dabench", "fvcore", "difference", "why"),
        (
            (
                row["group"], f"{row['ours']:,}", f"{row['theirs']:,}",
                f"{row['ours'] - row['theirs']:,}", row["why"],
            )
            for row in document["cross_check"]
        ),
        words=("operators", "why"),
    )  # fmt: skip


def _print_uncounted(count: ModelCount, known: dict[str, float]) -> None:
    which = f"{count.model} ({count.mode})"
    if count.without:
        print_line(f"{which}: no multiply-adds in {_calls(count.without, known)}")
    if count.uncounted:
        print_line(f"{which}: totals are at least: uncounted {_calls(count.uncounted, known)}")
    if count.dropped_macs:
        print_line(f"{which}: {count.dropped_macs:,} multiply-adds are computed for nothing")
    if count.note:
        print_line(f"{which}: {count.note}")


def _calls(calls: Mapping[str, int], known: dict[str, float]) -> str:
    return ", ".join(
        f"{name} x{n}" + (f" ({known[name]:.1%} of the time)" if name in known else "")
        for name, n in sorted(calls.items())
    )
