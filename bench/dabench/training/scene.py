"""What a pair stands for on this machine: its two domains, real or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError
from dabench.data.domain import Domain, open_domain
from dabench.data.roots import CAMVID_INSTEAD, Pair, Places
from dabench.data.standin import cached_standin


@dataclass(frozen=True, slots=True)
class Scene:
    """A pair with its domains.

    Attributes:
        asked: The pair the user named.
        pair: The pair that stands for it.
        synthetic: Whether the frames are the stand-in's.
    """

    asked: str
    pair: Pair
    source: Domain
    target: Domain
    synthetic: bool

    @property
    def title(self) -> str:
        """As banners and tables print it."""
        return f"{self.source.name} -> {self.target.name}"

    @property
    def slug(self) -> str:
        """For names of files and folders."""
        return f"synthetic-{self.pair.name}" if self.synthetic else self.pair.name

    def describe(self, split: str | None) -> dict[str, Any]:
        """What a record says of the data."""
        return {
            "asked": self.asked,
            "pair": self.pair.name,
            "title": self.title,
            "synthetic": self.synthetic,
            "source": self.source.name,
            "target": self.target.name,
            "classes": list(self.target.classes.names),
            "evaluated_split": split or self.target.reported,
        }


def set_scene(asked: str, places: Places) -> Scene:
    """Decides what a pair stands for.

    The datasets of the pair if their roots are known; else, for the paper's
    pairs, CamVid by day and dusk if that is; else the synthetic stand-in.

    Raises:
        UsageError: Unknown pair, a root that is missing, or only one of two.
        DataError: A root without frames.
    """
    pair = places.pair(asked)
    needed = list(dict.fromkeys(end.partition(":")[0] for end in (pair.source, pair.target)))
    missing = [dataset for dataset in needed if dataset not in places.roots]
    if not missing:
        return _scene(asked, pair, places.roots)
    if len(missing) < len(needed):
        raise UsageError(
            f"--{missing[0]}-root: {asked} needs {' and '.join(needed)}, only one of them is given"
        )
    if asked in CAMVID_INSTEAD and "camvid" in places.roots:
        return _scene(asked, places.pair(CAMVID_INSTEAD[asked]), places.roots)
    if "camvid" in needed:
        raise UsageError(f"--camvid-root: {asked} needs it; nothing stands in for CamVid")
    gta5, cityscapes = cached_standin()
    return _scene(asked, pair, {"gta5": gta5, "cityscapes": cityscapes})


def _scene(asked: str, pair: Pair, roots: Mapping[str, Path]) -> Scene:
    datasets = {end.partition(":")[0] for end in (pair.source, pair.target)}
    source, target = (
        open_domain(end, roots[end.partition(":")[0]], as_cityscapes=len(datasets) > 1)
        for end in (pair.source, pair.target)
    )
    return Scene(asked, pair, source, target, source.synthetic or target.synthetic)
