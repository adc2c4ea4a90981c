"""``dabench eval`` and ``dabench predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dabench.base.errors import UsageError, named_as
from dabench.cli.options import (
    Json,
    Out,
    Quiet,
    ResumeFrom,
    check_alone,
    named,
    option,
    with_options,
)
from dabench.cli.output import print_json, print_line, print_table
from dabench.cli.training import CamvidRoot, CityscapesRoot, Gta5Root
from dabench.cli.ways import WAYS, Keep, Shown, parse_keep, resume_ways, score_ways, ways_of
from dabench.plan.trained import trained_at

Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder (a suite's: the median seed), or a checkpoint.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda[:N], mps.")]


@with_options(*WAYS, "timeout")
def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="A run's folder (a suite's: the median seed), or a checkpoint."),
    ] = None,
    data: Annotated[
        str | None, option("--data", "cityscapes, gta5, camvid, camvid:dusk, ...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Default: the reported one.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda[:N], mps.", show_default="cpu")
    ] = None,
    keep: Keep = None,
    times: Annotated[
        bool,
        typer.Option(
            "--times", help="Time passes on the images against passes on random input, too."
        ),
    ] = False,
    resume_from: ResumeFrom = None,
    out: Out = None,
    quiet: Quiet = False,
    gta5_root: Gta5Root = None,
    cityscapes_root: CityscapesRoot = None,
    camvid_root: CamvidRoot = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Score a checkpoint: mIoU, pixel accuracy and every class, at full label resolution.

    With any of --runtime, --dtype, --memory-format, --fuse, --compile, --threads and --batch, a
    row for each way to run what a run's folder holds: the graph that 'dabench time' measures, held
    against the plain one.
    """
    given = named(locals())
    roots = {"gta5": gta5_root, "cityscapes": cityscapes_root, "camvid": camvid_root}
    shown = Shown(parse_keep(keep), quiet=quiet, json=json)
    if resume_from is not None:
        check_alone(given, {"keep", *(f"{name}_root" for name in roots)})
        from dabench.data.named import domain_of

        resume_ways(
            resume_from, lambda asked, classes: domain_of(asked, roots, classes), shown, roots
        )
        return
    if checkpoint is None or data is None:
        missing = "CHECKPOINT" if checkpoint is None else "--data"
        raise UsageError(f"{missing}: needed; 'dabench eval --help' lists what it takes")
    device = device or "cpu"
    if given.keys() & {*WAYS}:
        from dabench.data.named import domain_of

        trained = trained_at(checkpoint)
        ways = ways_of(given, f"trained:{checkpoint}", device)
        domain = domain_of(data, roots, trained.classes)
        score_ways(
            ways, data, domain, split or domain.reported, out, shown, times=times, roots=roots
        )
        return
    if alone := sorted({"keep", "out", "timeout", "times"} & given.keys()):
        ways_asked = ", ".join("--" + key.replace("_", "-") for key in WAYS)
        raise UsageError(f"--{alone[0]}: it is of ways to run a network; name one of {ways_asked}")
    _score(checkpoint, data, split, device, roots, json=json)


def _score(
    checkpoint: Path,
    data: str,
    split: str | None,
    device: str,
    roots: Mapping[str, Path | None],
    *,
    json: bool,
) -> None:
    """Scores a checkpoint as its training did, class by class."""
    from dabench.data.domain import check_domain
    from dabench.data.named import domain_of

    with named_as("--data", "domain"):
        check_domain(data)
    from dabench.training.predict import load_trained, score

    trained = load_trained(checkpoint, device)
    domain = domain_of(data, roots, trained.classes.names)
    scores = score(trained, domain, split=split, device=device)
    iou = dict(zip(trained.classes.names, scores.iou, strict=True))
    if json:
        print_json(
            {"data": domain.name, "miou": scores.miou, "accuracy": scores.accuracy, "iou": iou}
        )
        return
    rows = [("mean (mIoU)", f"{scores.miou:.1%}"), ("pixel accuracy", f"{scores.accuracy:.1%}")]
    rows += [(name, "-" if value is None else f"{value:.1%}") for name, value in iou.items()]
    title = f"{domain.name}, {split or domain.reported} split, {trained.config.evaluation} mIoU"
    print_table(title, ("class", "IoU"), rows, words=("class",))


def predict(
    checkpoint: Checkpoint,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("predictions"),
    device: Device = "cpu",
) -> None:
    """Colour images by the classes a checkpoint sees in them."""
    for path in images:
        if not path.is_file():
            what = "is no file" if path.exists() else "does not exist"
            raise UsageError(f"image {str(path)!r} {what}")
    from dabench.training.predict import load_trained, predict_files

    for path in predict_files(load_trained(checkpoint, device), images, out, device=device):
        print_line(str(path))
