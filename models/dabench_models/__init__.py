"""Real-time segmenters and domain-adaptation discriminators, as published.

``MODELS`` is the registry, ``build`` makes one network of it and
``load_weights`` reads the published checkpoints. Importing this package does
not import torch; building does.
"""

from dabench_models.registry import MODELS, ModelSpec, UnknownModelError, build, resolve
from dabench_models.weights import LoadReport, WeightsError, load_weights

__all__ = [
    "MODELS",
    "LoadReport",
    "ModelSpec",
    "UnknownModelError",
    "WeightsError",
    "build",
    "load_weights",
    "resolve",
]
