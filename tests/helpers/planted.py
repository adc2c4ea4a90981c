"""Writes tests/unit/planted.csv: twelve adversarial trainings, six with the wrong label.

``python tests/helpers/planted.py CAMVID_ROOT``: day to dusk at the default settings of `dabench
train`, shortened to 200 steps; three discriminators, two sizes; half an hour on one core. In half
of them the adversarial term labels the target as target, as the paper's repository does.
"""

import csv
import sys
import tempfile
from pathlib import Path

from dabench.data.roots import find_places
from dabench.records.trainings import EpochRow, read_epochs
from dabench.training.config import TrainConfig
from dabench.training.defaults import defaults_for
from dabench.training.methods import adversarial
from dabench.training.scene import set_scene
from dabench.training.train import start

PLANTED = Path(__file__).parents[1] / "unit" / "planted.csv"
SIZES = ((32, 64), (64, 96))
DISCRIMINATORS = ("disc", "dw-disc", "diag-disc")
DOCUMENT = {"run_id": "planted", "created": "", "command": "", "environment": {}}


class Silent:
    """Hears of everything and says nothing."""

    def __getattr__(self, name: str):
        return lambda *_: None


def train(scene, size, disc, folder: Path, *, wrong: bool) -> list[EpochRow]:
    """The epochs of one training."""
    fields = {**defaults_for(scene), "height": size[0], "width": size[1], "steps": 200}
    config = TrainConfig(
        pair="day2dusk", method="adversarial", disc=disc, segmenter_dtype="fp32",
        disc_dtype="fp32", device="cpu", threads=1, **fields,
    )  # fmt: skip
    adversarial.FOOLED = adversarial.TARGET if wrong else adversarial.SOURCE
    start(config, scene, folder=folder, document=DOCUMENT, split=None, observer=Silent())
    return read_epochs(folder)


def main() -> None:
    scene = set_scene("day2dusk", find_places({"camvid": Path(sys.argv[1])}))
    with tempfile.TemporaryDirectory() as folder, PLANTED.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("run", "epoch", "adversarial_loss", "disc_loss"))
        for size in SIZES:
            for disc in DISCRIMINATORS:
                for wrong in (False, True):
                    name = f"{'wrong' if wrong else 'right'}-{disc}-{size[0]}x{size[1]}"
                    for row in train(scene, size, disc, Path(folder) / name, wrong=wrong):
                        table.writerow((name, row.epoch, row.adversarial_loss, row.disc_loss))


if __name__ == "__main__":
    main()
