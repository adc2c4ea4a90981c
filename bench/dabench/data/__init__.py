"""Datasets: where they lie, what their labels mean, how they reach a network."""

from dabench.data.domain import Domain, Frame, open_domain
from dabench.data.labels import CAMVID, CITYSCAPES, IGNORE, Classes

__all__ = ["CAMVID", "CITYSCAPES", "IGNORE", "Classes", "Domain", "Frame", "open_domain"]
