"""Where datasets, their pairs and the cache are: options, environment, configuration file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError, named_as
from dabench.data.domain import DATASETS, check_domain

CONFIG_VARIABLE = "DABENCH_CONFIG"
CONFIG_FILE = "dabench.toml"


@dataclass(frozen=True, slots=True)
class Pair:
    """Source and target of an adaptation; equal domains train in-domain."""

    name: str
    source: str
    target: str

    @property
    def crosses(self) -> bool:
        """Whether source and target differ."""
        return self.source != self.target


PAIRS = {
    pair.name: pair
    for pair in (
        Pair("gta2city", "gta5", "cityscapes"),
        Pair("city2city", "cityscapes", "cityscapes"),
        Pair("gta2gta", "gta5", "gta5"),
        Pair("day2dusk", "camvid:day", "camvid:dusk"),
        Pair("day2day", "camvid:day", "camvid:day"),
        Pair("dusk2dusk", "camvid:dusk", "camvid:dusk"),
        Pair("gta2camvid", "gta5", "camvid"),
    )
}

# What stands for the paper's pairs where only real CamVid images are to be had.
CAMVID_INSTEAD = {"gta2city": "day2dusk", "city2city": "dusk2dusk", "gta2gta": "day2day"}


@dataclass(frozen=True, slots=True)
class Places:
    """Roots by dataset and pairs by name, from everywhere they can be given."""

    roots: Mapping[str, Path]
    pairs: Mapping[str, Pair]

    def pair(self, name: str) -> Pair:
        """Looks a pair up.

        Raises:
            UsageError: Unknown; the choices are listed.
        """
        if name not in self.pairs:
            raise UsageError(f"unknown pair {name!r}; choices: {', '.join(self.pairs)}")
        return self.pairs[name]


def find_places(options: Mapping[str, Path | None]) -> Places:
    """Gathers roots and pairs: options win over environment variables, those over the file.

    Variables are ``DABENCH_GTA5_ROOT`` and so on. The file is ``dabench.toml``
    in the current folder, or what ``DABENCH_CONFIG`` names::

        [roots]
        gta5 = "/data/gta5"

        [pairs.rain]
        source = "cityscapes"
        target = "camvid:dusk"

    Raises:
        UsageError: The file cannot be read or says something unknown.
    """
    path = Path(os.environ.get(CONFIG_VARIABLE, CONFIG_FILE))
    document = _read(path) if CONFIG_VARIABLE in os.environ or path.exists() else {}
    roots: dict[str, Path] = {}
    for dataset in DATASETS:
        configured = document.get("roots", {}).get(dataset)
        value = options.get(dataset) or os.environ.get(f"DABENCH_{dataset.upper()}_ROOT")
        if value or configured:
            roots[dataset] = Path(value) if value else path.parent / configured
    pairs = dict(PAIRS)
    for name, ends in document.get("pairs", {}).items():
        if set(ends) != {"source", "target"}:
            raise UsageError(f"{path}: pair {name!r} takes exactly source and target")
        for domain in ends.values():
            with named_as(f"{path}: pair {name!r}", "domain"):
                check_domain(domain)
        pairs[name] = Pair(name, ends["source"], ends["target"])
    return Places(roots, pairs)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    unknown = set(document) - {"roots", "pairs"}
    unknown |= {f"roots.{name}" for name in set(document.get("roots", {})) - set(DATASETS)}
    if unknown:
        raise UsageError(f"{path}: unknown key {min(unknown)!r}; it takes [roots] and [pairs.NAME]")
    return document
