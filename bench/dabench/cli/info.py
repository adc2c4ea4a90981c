"""``dabench models`` and ``dabench env``."""

from __future__ import annotations

from typing import Annotated

import typer

from dabench.base.units import format_bytes
from dabench.cli.output import console, print_json, print_table

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


def env(json: Json = False) -> None:
    """Describe this machine: its devices, what noise to expect, what to fix."""
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
        console().print(f"* {hint}", markup=False)
