"""``dabench eval`` and ``dabench predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dabench.base.errors import UsageError
from dabench.cli.output import console, print_json, print_table
from dabench.cli.training import CamvidRoot, CityscapesRoot, Gta5Root

Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder (a suite's: the median seed), or a checkpoint.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda[:N], mps.")]


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str, typer.Option(help="cityscapes, gta5, camvid, camvid:dusk, ...")],
    split: Annotated[str | None, typer.Option(help="Default: the reported one.")] = None,
    device: Device = "cpu",
    gta5_root: Gta5Root = None,
    cityscapes_root: CityscapesRoot = None,
    camvid_root: CamvidRoot = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Score a checkpoint: mIoU, pixel accuracy and every class, at full label resolution."""
    from dabench.data.domain import check_domain, open_domain
    from dabench.data.roots import find_places

    check_domain(data)
    roots = {"gta5": gta5_root, "cityscapes": cityscapes_root, "camvid": camvid_root}
    dataset = data.partition(":")[0]
    places = find_places(roots)
    from dabench.training.predict import load_trained, score

    trained = load_trained(checkpoint, device)
    if dataset in places.roots:
        root = places.roots[dataset]
    elif dataset == "camvid":
        raise UsageError("--camvid-root: needed; nothing stands in for CamVid")
    else:
        from dabench.data.standin import cached_standin

        root = dict(zip(("gta5", "cityscapes"), cached_standin(), strict=True))[dataset]
    as_cityscapes = trained.classes.name == "cityscapes"
    domain = open_domain(data, root, as_cityscapes=as_cityscapes)
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
    missing = [path for path in images if not path.is_file()]
    if missing:
        raise UsageError(f"image {str(missing[0])!r} does not exist")
    from dabench.training.predict import load_trained, predict_files

    for path in predict_files(load_trained(checkpoint, device), images, out, device=device):
        console().print(str(path), markup=False)
