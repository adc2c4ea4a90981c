"""A domain: the frames of one dataset, or part of one, by split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dabench.base.errors import DataError, UsageError, bad_value
from dabench.data.labels import CAMVID, CITYSCAPES, Classes

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

DAY, DUSK = ("0006R0", "0016E5"), ("0001TP",)
_CAMVID_PARTS = {"day": DAY, "dusk": DUSK}
DATASETS = ("cityscapes", "gta5", "camvid")
DRAWN = "SYNTHETIC.txt"
"""Lies in the root of frames that dabench drew, so that they never pass for real ones."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An image and its label map."""

    name: str
    image: Path
    label: Path
    encoding: str


@dataclass(frozen=True, slots=True)
class Domain:
    """Frames of one look, by split, with the meaning of their labels.

    Attributes:
        name: As tables print it; says ``synthetic`` where frames are drawn.
        root: The folder it was found in.
        splits: ``train``, ``val``, ``test`` -> frames in order of name.
        reported: The split whose scores are reported.
        unpaired: Images left out for want of a label.
        synthetic: Whether dabench drew the frames.
    """

    name: str
    root: Path
    classes: Classes
    splits: Mapping[str, tuple[Frame, ...]]
    reported: str
    unpaired: tuple[Path, ...] = ()
    synthetic: bool = False

    def frames(self, split: str) -> tuple[Frame, ...]:
        """The frames of a split.

        Raises:
            DataError: It has none.
        """
        found = self.splits.get(split, ())
        if not found:
            having = ", ".join(name for name, frames in self.splits.items() if frames)
            raise DataError(
                f"{self.name} at {self.root} has no frames in {split!r}; it has: {having}"
            )
        return found


def check_domain(spec: str) -> None:
    """Checks a domain's name, such as ``camvid:day``.

    Raises:
        UsageError: Unknown.
    """
    dataset, _, part = spec.partition(":")
    if dataset not in DATASETS or (part and dataset != "camvid"):
        allowed = f"choices: {', '.join(DATASETS)}, camvid:day, camvid:dusk, camvid:PREFIX+PREFIX"
        raise bad_value("domain", spec, allowed)


def open_domain(spec: str, root: Path, *, as_cityscapes: bool = False) -> Domain:
    """Finds the frames of a domain below a root.

    Args:
        spec: ``cityscapes``, ``gta5``, ``camvid`` or part of it: ``camvid:day``,
            ``camvid:dusk``, ``camvid:0006R0+0016E5``.
        root: The dataset's folder, laid out as its authors publish it.
        as_cityscapes: Read CamVid's labels as the Cityscapes classes that match.

    Returns:
        The domain; its name says so if the frames are the stand-in's.

    Raises:
        UsageError: An unknown domain or a missing root.
        DataError: Nothing there, or images without labels.
    """
    check_domain(spec)
    dataset, _, part = spec.partition(":")
    if not root.is_dir():
        raise UsageError(f"--{dataset}-root: {str(root)!r} is no folder")
    if dataset == "camvid":
        return _camvid(spec, root, _CAMVID_PARTS.get(part, tuple(filter(None, part.split("+")))),
                       as_cityscapes)  # fmt: skip
    synthetic = (root / DRAWN).exists()
    name = f"synthetic {dataset}" if synthetic else dataset
    splits, unpaired = (_cityscapes if dataset == "cityscapes" else _gta5)(root)
    reported = "test" if synthetic and splits.get("test") else "val"
    return _checked(Domain(name, root, CITYSCAPES, splits, reported, tuple(unpaired), synthetic))


def _checked(domain: Domain) -> Domain:
    if not any(domain.splits.values()):
        without = f"; {len(domain.unpaired)} images lack a label" if domain.unpaired else ""
        raise DataError(f"no {domain.name} frames with labels below {domain.root}{without}")
    return domain


def _cityscapes(root: Path) -> tuple[dict[str, tuple[Frame, ...]], list[Path]]:
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with ``gtFine/SPLIT/CITY/*_gtFine_*.png``."""
    splits: dict[str, tuple[Frame, ...]] = {}
    unpaired: list[Path] = []
    for split in ("train", "val", "test"):
        frames = []
        for image in sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
            stem = image.name.removesuffix("_leftImg8bit.png")
            folder = root / "gtFine" / split / image.parent.name
            train_ids = folder / f"{stem}_gtFine_labelTrainIds.png"
            label_ids = folder / f"{stem}_gtFine_labelIds.png"
            if label_ids.exists():
                frames.append(Frame(stem, image, label_ids, "label ids"))
            elif train_ids.exists():
                frames.append(Frame(stem, image, train_ids, "train ids"))
            else:
                unpaired.append(image)
        splits[split] = tuple(frames)
    return splits, unpaired


def _gta5(root: Path) -> tuple[dict[str, tuple[Frame, ...]], list[Path]]:
    """``images/*.png`` with ``labels/*.png``, split as ``split.mat`` says or 80/20 by name."""
    frames: dict[str, Frame] = {}
    unpaired: list[Path] = []
    for image in sorted((root / "images").glob("*")):
        if image.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        label = root / "labels" / f"{image.stem}.png"
        if label.exists():
            frames[image.stem] = Frame(image.stem, image, label, "label ids")
        else:
            unpaired.append(image)
    official = root / "split.mat"
    splits = _official_split(official, frames) if official.exists() else {}
    if not splits:
        ordered = list(frames.values())
        # Every fifth frame, so that both parts hold every time of day.
        splits = {
            "train": tuple(frame for index, frame in enumerate(ordered) if index % 5),
            "val": tuple(ordered[::5]),
        }
    return splits, unpaired


def _official_split(path: Path, frames: Mapping[str, Frame]) -> dict[str, tuple[Frame, ...]]:
    """Reads GTA5's ``split.mat``: ``trainIds``, ``valIds`` and ``testIds`` number the frames."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise DataError(f"{path} needs scipy: pip install 'dabench[gta5]', or remove it") from None
    try:
        numbers = loadmat(path)
        ids = {split: numbers[f"{split}Ids"].ravel() for split in ("train", "val", "test")}
    except (MatReadError, OSError, ValueError, KeyError, NotImplementedError) as error:
        raise DataError(f"{path} is not GTA5's split file: {error}") from error
    return {
        split: tuple(frames[stem] for n in found if (stem := f"{int(n):05d}") in frames)
        for split, found in ids.items()
    }


def _camvid(spec: str, root: Path, prefixes: tuple[str, ...], as_cityscapes: bool) -> Domain:
    """``SPLIT/*.png`` (or ``.jpg``) with ``SPLITannot/*.png`` of the same stem."""
    encoding = "camvid as cityscapes" if as_cityscapes else "camvid"
    splits: dict[str, tuple[Frame, ...]] = {}
    unpaired = []
    for split in ("train", "val", "test"):
        frames = []
        for image in sorted((root / split).glob("*")):
            if image.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if prefixes and not image.name.startswith(prefixes):
                continue
            label = root / f"{split}annot" / f"{image.stem}.png"
            if label.exists():
                frames.append(Frame(image.stem, image, label, encoding))
            else:
                unpaired.append(image)
        splits[split] = tuple(frames)
    classes = CITYSCAPES if as_cityscapes else CAMVID
    # The day sequences have a val split upstream, the dusk one a test split.
    reported = "test" if splits["test"] else "val"
    return _checked(Domain(spec, root, classes, splits, reported, tuple(unpaired)))
