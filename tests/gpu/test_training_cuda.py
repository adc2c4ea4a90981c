"""Training on a real GPU."""

import pytest
import torch

from dabench.data.roots import PAIRS, Places
from dabench.data.standin import write_standin
from dabench.training.config import TrainConfig
from dabench.training.scene import set_scene
from dabench.training.train import start

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU"),
]


class Nobody:
    """An observer who looks away."""

    def preparing(self, *_):
        pass

    step = epoch = note = preparing


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    gta5, cityscapes = write_standin(tmp_path_factory.mktemp("drawn") / "d", scale=0.05)
    return set_scene("gta2city", Places({"gta5": gta5, "cityscapes": cityscapes}, PAIRS))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "auto"])
def test_adversarial_training(dtype, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("DABENCH_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(
        pair="gta2city", method="adversarial", steps=4, height=64, width=128, batch=2,
        device="cuda", segmenter_dtype=dtype, disc_dtype=dtype, workers=1,
    )  # fmt: skip
    document = {"run_id": "x", "created": "", "command": "", "environment": {}}
    result = start(
        config, scene, folder=tmp_path / "run", document=document, split=None, observer=Nobody()
    )
    assert result["status"] == "ok"
    assert 0 <= result["miou"] <= 1
