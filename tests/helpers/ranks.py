"""What one of two processes does in the tests of training together: ``python ranks.py FOLDER``.

Each writes what it found to ``FOLDER/RANK.json``. In double precision, since batch norm on a few
images makes of fp32's rounding a tenth of a weight within ten steps.
"""

import io
import json
import os
import sys
from pathlib import Path

import torch
from slim import slim

from dabench.base.errors import UsageError
from dabench.base.started import Started
from dabench.data.labels import IGNORE
from dabench.scoring.evaluate import Evaluated, FrameCounts
from dabench.scoring.metrics import ConfusionMatrix
from dabench.timing.clock import host_clock
from dabench.training import evaluate
from dabench.training.config import TrainConfig
from dabench.training.learners import segmenter_of
from dabench.training.losses import ohem_cross_entropy
from dabench.training.methods.build import parts_of
from dabench.training.step import Trainer
from dabench.training.stopwatch import Stopwatch
from dabench.training.world import ALONE, OtherProcessError, World, joined

CLASSES, BATCH, SIZE = 5, 4, (32, 64)
CPU = torch.device("cpu")


def weights_after(world, norm, steps):
    """Both networks' weights and statistics after steps on this process's share of batches."""
    config = TrainConfig(
        pair="", method="adversarial", steps=steps, height=SIZE[0], width=SIZE[1], batch=BATCH,
        device="cpu", segmenter_dtype="fp32", disc_dtype="fp32", batch_norm=norm,
        processes=world.size, disc="dw-disc", lr=1e-3, memory_format="nchw",
    )  # fmt: skip
    trainer = Trainer(
        segmenter_of(config, CLASSES, CPU, world),
        parts_of(config, CLASSES, CPU),
        passes_target=True,
        watch=Stopwatch(host_clock),
        world=world,
        ohem=False,
        detail=False,
    )
    trainer.train()
    random = torch.Generator().manual_seed(3)
    for step in range(steps):
        images, target = (
            torch.randint(0, 256, (BATCH, 3, *SIZE), generator=random, dtype=torch.uint8)
            for _ in range(2)
        )
        labels = torch.randint(0, CLASSES, (BATCH, *SIZE), generator=random)
        # As unequal as labels are: one process has fewer pixels to learn from.
        labels[0, :20] = IGNORE
        part = world.part(BATCH)
        trainer.step(images[part], labels[part], target[part], step)
    return {
        f"{name}.{key}": value.clone()
        for name, learner in trainer.learners.items()
        for key, value in learner.network.state_dict().items()
    }


def furthest(ours, theirs):
    """The largest difference, by network."""
    found = {}
    for name, value in ours.items():
        network = name.partition(".")[0]
        difference = (value.double() - theirs[name].double()).abs().max().item()
        found[network] = max(found.get(network, 0.0), difference)
    return found


def together(world, norm, steps):
    """How far both networks are from those of one process, which the first has trained too."""
    ours = weights_after(world, norm, steps)
    theirs = world.share_bytes(lambda: saved(weights_after(ALONE, norm, steps)))
    return furthest(ours, torch.load(io.BytesIO(theirs), weights_only=True))


def saved(weights):
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def ohem(world, share):
    """The loss of hard pixels of one batch, and its gradient, as this process has its part."""
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(BATCH, CLASSES, 8, 8, generator=random) * share
    labels = torch.randint(0, CLASSES, (BATCH, 8, 8), generator=random)
    labels[0] = IGNORE
    part = world.part(BATCH)
    own = logits[part].clone().requires_grad_()
    loss = ohem_cross_entropy(own, labels[part], world)
    loss.backward()
    return loss.detach(), own.grad / world.size, part


def compared_ohem(world):
    """How far the mean over processes is from one process's, with few and many hard pixels."""
    worst = 0.0
    for share in (0.01, 100.0):
        whole, gradient, _ = ohem(ALONE, share)
        loss, own, part = ohem(world, share)
        worst = max(
            worst,
            (world.mean(loss) - whole).abs().item(),
            (own - gradient[part]).abs().max().item(),
        )
    return worst


class Labels(list):
    """Label maps that pass for prepared frames."""

    def part(self, some):
        return Labels(self[some])


def next_class(logits, labels, *, classes, **_):
    """An evaluation that takes each pixel for one of the class after its own."""
    matrix = ConfusionMatrix(classes)
    every = [matrix.add(label, (label + 1) % classes) for label in labels]
    return Evaluated(matrix.counts, tuple(map(FrameCounts.of, every)))


def evaluated(world):
    """Whether all processes find together in three frames what one finds."""
    evaluate.evaluate = next_class
    random = torch.Generator().manual_seed(1)
    labels = Labels(torch.randint(0, CLASSES, (3, 4, 4), generator=random))
    arguments = {"classes": CLASSES, "device": CPU, "normalised": True}
    both, one = (
        evaluate.confusion_on(torch.nn.Identity(), labels, **arguments, world=each)
        for each in (world, ALONE)
    )
    return bool((both.counts == one.counts).all()) and both.frames == one.frames


def refused(world):
    """What each hears when the first cannot do what it does for all."""

    def fail():
        raise UsageError("no such folder")

    try:
        world.share(fail)
    except UsageError as error:
        return str(error)
    except OtherProcessError as error:
        return str(error)


def main(folder):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    # What brings inputs and logits to fp32, wherever they come from less.
    torch.Tensor.float = torch.Tensor.double
    with slim(), joined(Started.of(os.environ)) as world:
        found = {"rank": world.rank}
        for norm in ("sync", "frozen"):
            found[norm] = together(world, norm, 10)
        averaging = World.averaging
        World.averaging = lambda self, parameters: lambda: None
        ours = weights_after(world, "frozen", 2)
        means = {name: world.mean(value.double()) for name, value in ours.items()}
        found["apart"] = furthest(ours, means)
        World.averaging = averaging
        found["ohem"] = compared_ohem(world)
        found["evaluated"] = evaluated(world)
        found["shared"] = world.share(lambda: {"rank": world.rank})
        found["refused"] = refused(world)
        found["bytes"] = len(world.share_bytes(lambda: b""))
        found["means"] = world.means({"a": world.rank, "b": 3.0})
        found["clock"] = world.clock()
        norm = torch.nn.BatchNorm2d(1)
        norm.running_mean.fill_(world.rank)
        world.average_buffers(norm)
        found["buffer"] = norm.running_mean.item()
    Path(folder, f"{found['rank']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
