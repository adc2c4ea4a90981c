"""A small training suite with fixed numbers, for golden files and tables."""

from dataclasses import replace
from pathlib import Path

from dabench.records.folder import RunFolder
from dabench.records.trainings import SUITE, EpochRow, TrainRecord
from dabench.training.config import TrainConfig
from dabench.training.suite import plan_suite

ENVIRONMENT = {"cpu": "Test CPU", "logical_cores": 4, "threads": 2, "commit": "abc"}
MIOU = {
    "source-only": 0.20, "augment": 0.30, "adabn": 0.33, "control disc": 0.32,
    "adversarial disc": 0.36, "adversarial dw-disc": 0.31, "target": 0.50,
}  # fmt: skip
METHODS = ("source-only", "augment", "adabn", "control", "adversarial", "target")


def write_suite(
    root: Path,
    name: str = "20260102-030405-suite",
    *,
    synthetic: bool = True,
    seeds=(0, 1, 2),
    unfinished: str = "",
    steps: int = 20,
    processes: int = 1,
    norm: str = "sync",
    epoch_s: float = 4.0,
    batch: int = 2,
) -> Path:
    """Writes a suite of every method; ``dw-disc`` stays at chance."""
    drawn = "synthetic " if synthetic else ""
    data = {
        "asked": "gta2city", "pair": "gta2city", "synthetic": synthetic,
        "title": f"{drawn}gta5 -> {drawn}cityscapes", "source": f"{drawn}gta5",
        "target": f"{drawn}cityscapes", "classes": ["road", "sky"], "evaluated_split": "test",
    }  # fmt: skip
    base = TrainConfig(
        pair="gta2city", method="augment", steps=steps, height=32, width=64, batch=batch,
        segmenter_dtype="fp32", disc_dtype="fp32", processes=processes,
        batch_norm="local" if processes == 1 else norm,
    )  # fmt: skip
    plan = plan_suite(base, METHODS, ("disc", "dw-disc"), seeds)
    common = {
        "created": "2026-01-02T03:04:05+00:00",
        "command": "dabench train gta2city",
        "environment": ENVIRONMENT,
    }
    folder = root / name
    runs = {planned.name: planned.config.to_dict() for planned in plan}
    RunFolder.create(folder, SUITE, data=data, split=None, runs=runs, **common).close()
    for planned in plan:
        if planned.name != unfinished:
            _write_run(folder / planned.name, planned.config, common,
                       {**data, "training_frames": 20, "target_frames": 10,
                        "evaluation_frames": 5}, epoch_s)  # fmt: skip
    return folder


def _write_run(folder, config, document, data, epoch_s):
    record = TrainRecord.create(folder, {**document, "config": config.to_dict(), "data": data})
    miou = MIOU[config.label] + 0.01 * config.seed * (1 if config.method != "augment" else -1)
    sees = config.method in ("adversarial", "control")
    for epoch in (1, 2):
        row = _row(epoch, config, miou - 0.05 * (2 - epoch), sees)
        exchange_s = 0.0 if config.processes == 1 else epoch_s / 10
        record.epoch(replace(row, seconds=epoch_s, exchange_s=exchange_s))
    at_chance = config.disc == "dw-disc" if sees else None
    record.finish(
        {
            "status": "ok", "reason": "", "miou": miou, "accuracy": miou + 0.4, "epochs": 2,
            "steps": 20, "seconds": 8.0, "best_miou": miou, "best_epoch": 2,
            "disc_loss": (0.69 if at_chance else 0.5) if sees else None,
            "disc_at_chance": at_chance,
            "disc_accuracy": 0.6 if sees else None, "belief_source": 0.55 if sees else None,
            "belief_target": 0.45 if sees else None,
        },
        ("road", "sky"), (miou + 0.1, None if config.seed else miou - 0.1), (300, 100),
    )  # fmt: skip


def _row(epoch, config, miou, sees):
    return EpochRow(
        epoch=epoch, step=10 * epoch, images=20, seconds=4.0, data_s=0.5, source_s=2.0,
        target_s=0.5 if sees else 0.0, adversarial_s=0.25 if sees else 0.0,
        discriminator_s=0.25 if sees else 0.0, optimizers_s=0.25, eval_s=1.0, lr=0.01,
        disc_lr=1e-4 if sees else None, loss=3.0 / epoch, adversarial_loss=0.7 if sees else None,
        disc_loss=(0.69 if config.disc == "dw-disc" else 0.5) if sees else None,
        belief_source=0.5 if sees else None, belief_target=0.5 if sees else None,
        disc_accuracy=0.5 if sees else None, miou=miou, accuracy=miou + 0.4,
    )  # fmt: skip
