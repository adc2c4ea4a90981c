"""``dabench data``: check, draw and prepare datasets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dabench.base.errors import bad_value, named_as
from dabench.cli.examples import examples_of
from dabench.cli.output import console, print_line, print_table
from dabench.plan.grids import parse

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    add_completion=False,
    help="Check, draw and prepare datasets.",
    epilog=examples_of("data"),
)

Name = Annotated[str, typer.Argument(help="cityscapes, gta5, camvid, camvid:day, camvid:dusk.")]
Root = Annotated[Path, typer.Argument(help="The dataset's folder.")]


@contextlib.contextmanager
def _arguments(name: str) -> Iterator[None]:
    """Within, errors name the arguments of these commands."""
    with named_as("NAME", "domain"), named_as("ROOT", f"--{name.partition(':')[0]}-root"):
        yield


@app.command(epilog=examples_of("data check"))
def check(name: Name, root: Root) -> None:
    """Count, pair and read every file; say what is wrong and what mends it."""
    from dabench.data.check import check_domain_files
    from dabench.data.domain import open_domain

    with _arguments(name):
        report = check_domain_files(open_domain(name, root))
    classes = report.domain.classes
    print_table(
        f"{report.domain.name} at {root}",
        ("split", "frames", "usable", "sizes"),
        (
            (
                split,
                str(found.frames),
                str(found.frames - len(found.unreadable) - len(found.mismatched)),
                ", ".join(f"{h}x{w} ({n})" for (h, w), n in found.image_sizes.most_common(4)),
            )
            for split, found in report.splits.items()
        ),
        words=("split", "sizes"),
    )
    names = (*classes.names, "ignored")
    print_table(
        "Share of the pixels",
        ("class", *report.splits),
        (
            (
                name,
                *(
                    f"{s.histogram[i] / max(sum(s.histogram), 1):.2%}"
                    for s in report.splits.values()
                ),
            )
            for i, name in enumerate(names)
        ),
        words=("class",),
    )
    for problem in report.problems:
        print_line(f"problem: {problem}")
    if report.problems:
        raise typer.Exit(1)
    print_line("no problems found")


_LARGEST = 1000


@app.command(epilog=examples_of("data synth"))
def synth(
    out: Annotated[Path, typer.Argument(help="Gets gta5/ and cityscapes/.")],
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal frames.")] = 0,
    scale: Annotated[float, typer.Option(help="Of the number of frames.")] = 1.0,
) -> None:
    """Draw the synthetic stand-in in the layouts of GTA5 and Cityscapes."""
    from dabench.data.standin import write_standin

    if seed < 0:
        raise bad_value("--seed", seed, "it takes a whole number of at least 0")
    if not 0 < scale <= _LARGEST:
        raise bad_value("--scale", scale, f"it takes as --scale a number above 0, up to {_LARGEST}")
    for path in write_standin(out, seed=seed, scale=scale):
        print_line(str(path))


@app.command(epilog=examples_of("data prepare"))
def prepare(
    name: Name,
    root: Root,
    size: Annotated[str, typer.Option(metavar="HxW", help="Images are resized to.")] = "512x1024",
) -> None:
    """Decode and resize a dataset once, as training does by itself on first use."""
    from rich.progress import track

    from dabench.data import prepare as preparing
    from dabench.data.domain import open_domain

    height, width = parse("size", size)
    if min(height, width) < 1:
        raise bad_value("--size", size, "it takes HxW, both at least 1")
    with _arguments(name):
        domain = open_domain(name, root)
    for split, frames in track(
        [item for item in domain.splits.items() if item[1]],
        description="decoding",
        console=console(stderr=True),
    ):
        done = preparing.prepare(frames, (height, width))
        print_line(f"{split}: {len(done)} frames at {height}x{width}")
