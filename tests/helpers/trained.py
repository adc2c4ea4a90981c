"""A run of ``dabench train`` that nothing trained."""

import json
from dataclasses import asdict

import torch

from dabench.network import checkpoint
from dabench.training.config import TrainConfig
from dabench_models import build

CONFIG = TrainConfig(pair="day2dusk", method="augment", height=32, width=64, batch=2, steps=1)


def new_state(names):
    """A checkpoint of new weights, for classes of these names."""
    torch.manual_seed(3)
    network = build(CONFIG.model, num_classes=len(names))
    return {
        "segmenter": {"network": network.state_dict()},
        "config": asdict(CONFIG),
        "classes": list(names),
    }


def write_run(folder, state, *weights):
    """A run's folder with its weights under these names."""
    folder.mkdir(parents=True)
    document = {
        "schema": 4, "kind": "train", "run_id": folder.name, "created": "2026-11-27T00:00:00+00:00",
        "command": "dabench train", "environment": {}, "config": asdict(CONFIG),
        "data": {"classes": state["classes"]},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
    for name in weights:
        checkpoint.write(folder / name, state)
    return folder
