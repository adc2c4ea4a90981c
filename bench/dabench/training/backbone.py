"""ImageNet weights of backbones: a published file, or torchvision's by name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch

from dabench.base.errors import UsageError, bad_value
from dabench.plan.networks import RESNET18

PATIENCE_S = 30.0
"""With a server that does not answer."""


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Limits the wait for an answer, which torch's download does not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def backbone_file(weights: str) -> Path:
    """The file of a backbone's weights; torchvision's is downloaded once.

    Args:
        weights: A path, or `RESNET18`.

    Raises:
        UsageError: No such file, or it cannot be downloaded here.
    """
    path = Path(weights)
    if path.is_file():
        return path
    if weights != RESNET18:
        raise bad_value("--backbone-weights", weights, "it takes an existing file")
    from torchvision.models import ResNet18_Weights

    url: str = ResNet18_Weights.IMAGENET1K_V1.url
    kept: Path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not kept.is_file():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            # Its name holds the beginning of its digest.
            digest = kept.stem.rpartition("-")[2]
            with _patience(PATIENCE_S):
                torch.hub.download_url_to_file(url, str(kept), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError, HTTPException) as error:
            raise UsageError(
                f"--backbone-weights: {RESNET18} cannot be downloaded here ({error}); get {url} "
                "where it can be, and give the file"
            ) from error
    return kept
