"""What is known of a network by its name, and what identifies it; imports no code of others."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from dabench.base.errors import UsageError
from dabench.plan.references import FORMS, LIBRARIES, Reference, is_reference
from dabench_models import ModelSpec, UnknownModelError, resolve


def spec_of(name: str) -> ModelSpec:
    """What is known of a network before it is built; imports no code of others.

    Raises:
        UsageError: Not in the registry, and no reference whose source is there.
    """
    if is_reference(name):
        reference = Reference.of(name)
        reference.check()
        library = LIBRARIES.get(reference.source)
        height, width = library.size if library else (512, 1024)
        return ModelSpec(
            name=reference.name,
            family="other",
            builder=f"{reference.source}:{reference.factory}",
            options=dict(reference.arguments),
            height=height,
            width=width,
            outputs=(),
            summary="a network from outside of dabench",
            source=reference.source,
        )
    try:
        return resolve(name)
    except UnknownModelError as error:
        raise UsageError(f"--model: {error}; or {FORMS}") from None


def identities(names: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """What identifies each network from outside among some (`identity_of`)."""
    found = {name: identity_of(name) for name in dict.fromkeys(names)}
    return {name: identity for name, identity in found.items() if identity is not None}


def identity_of(name: str) -> dict[str, str | None] | None:
    """What tells one version of a network of others from another; None for the registry's.

    Raises:
        UsageError: Its source is not there.
    """
    if not is_reference(name):
        return None
    reference = Reference.of(name)
    reference.check()
    library = LIBRARIES.get(reference.source)
    if library is not None:
        return {"version": metadata.version(library.distribution)}
    if not reference.is_file:
        return {"module": reference.source}
    path = Path(reference.source)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"sha256": digest, "commit": _commit(path.resolve().parent)}


def _commit(folder: Path) -> str | None:
    """The commit of the checkout a folder is in, ``-dirty`` if changed."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return shown.stdout.strip() or None
