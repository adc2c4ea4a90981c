"""``dabench models`` and ``dabench env``."""

from __future__ import annotations

from typing import Annotated

import typer

from dabench.base.units import format_bytes, format_seconds
from dabench.cli.output import print_json, print_line, print_table

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def models(json: Json = False) -> None:
    """List the networks that can be measured."""
    from dabench_models import MODELS

    if json:
        print_json({"models": [spec.to_dict() for spec in MODELS.values()]})
        return
    print_table(
        "",
        ("model", "family", "input", "what it is"),
        (
            (
                spec.name,
                spec.family,
                f"{spec.channels}x{spec.height}x{spec.width}",
                spec.summary,
            )
            for spec in MODELS.values()
        ),
        words=("model", "family", "what it is"),
    )


def env(
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Say what would quiet this machine; measure what it may do."),
    ] = False,
    json: Json = False,
) -> None:
    """Describe this machine: its devices, what noise to expect, what to fix."""
    if tune:
        _tune(json=json)
        return
    from dabench.device.machine import advice, describe_host
    from dabench.records.measurements import noise
    from dabench.run.session import measure_noise

    host = describe_host()
    session = measure_noise()
    (row,) = session.outcome.measurements
    environment = {**session.environment, **host}
    hints = [*noise(row), *advice(host)]
    if json:
        document = {"environment": environment, "noise": row.to_dict(), "advice": hints}
        print_json(document)
        return
    rows = []
    for name, value in environment.items():
        shown = format_bytes(value) if name.endswith("_bytes") else value
        if isinstance(shown, list):
            shown = ", ".join(map(str, shown))
        elif isinstance(shown, dict):
            shown = ", ".join(f"{key}={text}" for key, text in shown.items())
        rows.append((name, "-" if shown in (None, "") else str(shown)))
    print_table("", ("what", "value"), rows, words=("what", "value"))
    for hint in hints:
        print_line(f"* {hint}")


def _tune(*, json: bool) -> None:
    """What would quiet this machine, and the noise as it is and with threads in place."""
    from dataclasses import asdict

    from dabench.device.tuning import advise, pinned_command, whole_cores
    from dabench.run.launcher import Launcher
    from dabench.run.quieting import beyond_chance, noise_before_and_after
    from dabench.run.session import probe

    with Launcher() as launcher:
        advice = advise(probe(launcher)["gpus"])
    cores = whole_cores()
    before, after = noise_before_and_after(cores)
    limit = beyond_chance(before.launches)
    if json:
        print_json(
            {
                "advice": [asdict(each) for each in advice],
                "before": asdict(before),
                "after": asdict(after),
                "beyond_chance": limit,
            }
        )
        return
    print_table(
        "What would quiet this machine",
        ("what", "how it is", "done for the measurement below", "to be done by you"),
        (
            (each.what, each.found, each.how if each.ours else "", "" if each.ours else each.how)
            for each in advice
        ),
        words=("what", "how it is", "done for the measurement below", "to be done by you"),
    )
    print_table(
        f"A small network in {before.launches} processes each, in turn",
        ("threads", "median", "scatter of processes", "width within one"),
        (
            (name, format_seconds(each.median_s), f"{each.between:.2%}", f"{each.within:.1%}")
            for name, each in (("as it is", before), ("in place", after))
        ),
        words=("threads",),
    )
    ratio = after.between / before.between
    says = "within chance"
    if ratio < 1 / limit:
        says = f"quieter in place: begin commands with '{pinned_command(cores)}'"
    elif ratio > limit:
        says = "noisier in place: leave threads as they are"
    chance = f"{1 / limit:.2f} to {limit:.2f}"
    print_line(f"Scatter in place over as it is: {ratio:.2f} (chance: {chance}): {says}.")
