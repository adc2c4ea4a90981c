"""Domains by name, wherever their datasets are; the stand-in where two of them are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dabench.base.errors import UsageError, named_as
from dabench.data.domain import Domain, check_domain, open_domain
from dabench.data.labels import CLASSES
from dabench.data.roots import find_places


def domain_of(data: str, roots: Mapping[str, Path | None], classes: tuple[str, ...]) -> Domain:
    """The domain of a name, its labels read as the classes where they can be.

    Raises:
        UsageError: An unknown domain, no root for it, one of another dataset, or other classes.
    """
    with named_as("--data", "domain"):
        check_domain(data)
    dataset = data.partition(":")[0]
    if others := [name for name, root in roots.items() if root is not None and name != dataset]:
        raise UsageError(f"--{others[0]}-root: --data {data} takes nothing from there")
    places = find_places(dict(roots))
    if dataset in places.roots:
        root = places.roots[dataset]
    elif dataset == "camvid":
        raise UsageError("--camvid-root: needed; nothing stands in for CamVid")
    else:
        from dabench.data.standin import cached_standin

        root = dict(zip(("gta5", "cityscapes"), cached_standin(), strict=True))[dataset]
    as_cityscapes = classes == CLASSES["cityscapes"].names
    domain = open_domain(data, root, as_cityscapes=as_cityscapes)
    if domain.classes.names != classes:
        known = (each.name for each in CLASSES.values() if each.names == classes)
        raise UsageError(
            f"--data: {domain.name} has {len(domain.classes)} classes of {domain.classes.name}, "
            f"the checkpoint {len(classes)} of {next(known, 'no dataset that dabench knows')}"
        )
    return domain
