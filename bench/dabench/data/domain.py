"""A domain: the frames of one dataset, or part of one, by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dabench.base.errors import DataError, UsageError, bad_value
from dabench.data.labels import (
    CAMVID,
    CITYSCAPES,
    IGNORE,
    Classes,
    look_like_train_ids,
    read_label,
    stored_values,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

DAY, DUSK = ("0006R0", "0016E5"), ("0001TP",)
_CAMVID_PARTS = {"day": DAY, "dusk": DUSK}
DATASETS = ("cityscapes", "gta5", "camvid")
TRAIN_IDS = "train-ids"
"""Part of a domain's name that declares its label maps to hold train ids."""
SAMPLED = 20
"""Label maps looked at to tell what a split's labels are."""
DRAWN = "SYNTHETIC.txt"
"""Lies in the root of frames that dabench drew, so that they never pass for real ones."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An image and its label map.

    Attributes:
        name: Of the frame, without a suffix.
        image: Path of the image.
        label: Path of the label map.
        encoding: How the label map is read: a key of `dabench.data.labels.ENCODINGS`.
    """

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
    if dataset not in DATASETS or (part and dataset != "camvid" and part != TRAIN_IDS):
        allowed = (
            f"choices: {', '.join(DATASETS)}, camvid:day, camvid:dusk, camvid:PREFIX+PREFIX, "
            f"gta5:{TRAIN_IDS}, cityscapes:{TRAIN_IDS}"
        )
        raise bad_value("domain", spec, allowed)


def open_domain(spec: str, root: Path, *, as_cityscapes: bool = False) -> Domain:
    """Finds the frames of a domain below a root.

    Args:
        spec: ``cityscapes``, ``gta5``, ``camvid`` or part of it: ``camvid:day``,
            ``camvid:dusk``, ``camvid:0006R0+0016E5``; ``gta5:train-ids`` where label
            maps were converted.
        root: The dataset's folder, laid out as its authors publish it.
        as_cityscapes: Read CamVid's labels as the Cityscapes classes that match.

    Returns:
        The domain; its name says so if the frames are the stand-in's.

    Raises:
        UsageError: An unknown domain or a missing root.
        DataError: No image with a label there, or a ``split.mat`` that is not GTA5's.
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
    if part == TRAIN_IDS:
        splits = {
            split: tuple(replace(frame, encoding="train ids") for frame in frames)
            for split, frames in splits.items()
        }
    reported = "test" if synthetic and splits.get("test") else "val"
    return _checked(Domain(name, root, CITYSCAPES, splits, reported, tuple(unpaired), synthetic))


def check_labels(domain: Domain, split: str) -> None:
    """Checks that a split's labels say something, and are what they are taken for.

    Looks at a few frames spread over the split.

    Raises:
        DataError: All are void, as those that authors keep to themselves, or
            they are train ids where ids are expected.
    """
    frames = spread(domain.frames(split), SAMPLED)
    suspicious = train_ids_instead(frames)
    if suspicious:
        raise DataError(f"{domain.name} at {domain.root}, {split}: {suspicious}")
    for frame in frames:
        if (read_label(frame.label, frame.encoding) != IGNORE).any():
            return
    others = ", ".join(name for name, found in domain.splits.items() if found and name != split)
    raise DataError(
        f"the labels of {domain.name}'s {split!r} split are void (every pixel is ignored): nothing "
        f"can be scored on it; choose another split: {others or 'there is none'}"
    )


def train_ids_instead(frames: Sequence[Frame]) -> str:
    """What is wrong where labels that are said to be ids look like train ids, else nothing."""
    if "label ids" not in {frame.encoding for frame in frames}:
        return ""
    found = [stored_values(frame.label, frame.encoding) for frame in frames]
    values = [each for each in found if each is not None]
    if len(values) < len(found) or not look_like_train_ids(values):
        return ""
    return (
        "the labels hold 0 to 18 and 255 only: they look like train ids, not ids; declare them as "
        f"such by the domain's name, such as gta5:{TRAIN_IDS}, or take the original files"
    )


def spread(frames: Sequence[Frame], most: int | None) -> Sequence[Frame]:
    """At most so many frames, spread over all of them."""
    if most is None or most >= len(frames):
        return frames
    return [frames[index * len(frames) // most] for index in range(most)]


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
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        numbers = loadmat(path)
        ids = {split: numbers[f"{split}Ids"].ravel() for split in ("train", "val", "test")}
    except (MatReadError, OSError, ValueError, LookupError, NotImplementedError) as error:
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
