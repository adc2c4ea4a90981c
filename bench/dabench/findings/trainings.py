"""Training runs as frames: a row per run, per epoch, per class; verdicts over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.findings.tables import published
from dabench.plan.methods import METHODS, label_of, method_of
from dabench.records.folder import read_run
from dabench.records.trainings import (
    PICTURES,
    SUITE,
    read_classes,
    read_epochs,
    read_result,
    training_runs,
)
from dabench.timing.seeds import Decision
from dabench.timing.statistics import Interval, mean_interval
from dabench.training.config import TrainConfig
from dabench.training.deciding import answer, question_of

IMAGES, SECONDS = "equal source images", "equal seconds of training"
"""What runs of one budget have in common."""

RUN_COLUMNS = (
    "suite", "run", "data", "synthetic", "protocol", "method", "disc", "label", "seed", "status",
    "reason",
    "miou", "accuracy", "best_miou", "best_epoch", "disc_loss", "disc_at_chance", "disc_accuracy",
    "belief_source", "belief_target", "epochs", "steps", "batch", "size", "evaluation", "split",
    "training_frames", "target_frames", "evaluation_frames", "segmenter_dtype", "disc_dtype",
    "machine", "device", "threads", "processes", "commit", "budget", "settings", "train_s",
    "cpu_s", "weights_of",
)  # fmt: skip
"""``train_s`` is the time of all steps, waiting for data included and evaluation not, ``cpu_s``
what threads worked in it (if nobody knows, all of them all the time); of a run with the weights
of another, that one's. ``threads`` are those of each of the ``processes``; how these share the
work is the protocol's end (`task_of`)."""


@dataclass(frozen=True, slots=True)
class TrainingResults:
    """Training runs, read.

    Attributes:
        suites: The documents of the suites, or of runs on their own.
        runs: A row per run with `RUN_COLUMNS`; fractions, not percent.
        epochs: A row per run and epoch.
        classes: A row per run and class.
        pictures: Data, protocol and label -> the picture of its first seed.
        folders: Suite and run -> its folder.
    """

    suites: list[dict[str, Any]]
    runs: pd.DataFrame
    epochs: pd.DataFrame
    classes: pd.DataFrame
    pictures: dict[tuple[str, str, str], Path]
    folders: dict[tuple[str, str], Path]


_KEY = ("suite", "run", "data", "protocol", "label", "seed")


def load_training(folders: Sequence[Path]) -> TrainingResults:
    """Reads suites.

    Raises:
        UsageError: No run in a folder.
        ResultsError: A damaged file, named with its line.
    """
    suites, runs, epochs, classes = [], [], [], []
    pictures: dict[tuple[str, str, str], Path] = {}
    run_folders: dict[tuple[str, str], Path] = {}
    names: Counter[str] = Counter()
    for folder in dict.fromkeys(path.resolve() for path in folders):
        suite = read_run(folder)
        names[suite["run_id"]] += 1
        if names[suite["run_id"]] > 1:
            # Suites of the same name must not be mixed.
            suite["run_id"] += f" ({names[suite['run_id']]})"
        suites.append(suite)
        for path in training_runs(folder):
            document = read_run(path)
            row = _run_row(suite["run_id"], path, document)
            runs.append(row)
            run_folders[row["suite"], row["run"]] = path
            key = {name: row[name] for name in _KEY}
            for epoch in read_epochs(path):
                values = {name: getattr(epoch, name) for name in epoch.__slots__}
                epochs.append({**key, **values, "batch": row["batch"]})
            trained = path.parent / row["weights_of"] if row["weights_of"] else path
            trained_in = read_epochs(trained)
            row["train_s"] = sum(epoch.seconds for epoch in trained_in)
            row["cpu_s"] = sum(
                row["threads"] * epoch.seconds if epoch.cpu_s is None else epoch.cpu_s
                for epoch in trained_in
            )
            classes += [{**key, **item} for item in read_classes(path)]
            if (path / PICTURES).exists():
                pictures.setdefault((row["data"], row["protocol"], row["label"]), path / PICTURES)
        if suite.get("kind") == SUITE:
            begun = {row["run"] for row in runs if row["suite"] == suite["run_id"]}
            spared = spared_seeds(suite, pd.DataFrame(runs))
            runs += [
                _pending(suite, name, config)
                for name, config in suite["runs"].items()
                if name not in begun and config["seed"] not in spared
            ]
    return TrainingResults(
        suites,
        pd.DataFrame(runs, columns=list(RUN_COLUMNS)),
        pd.DataFrame(epochs),
        pd.DataFrame(classes),
        pictures,
        run_folders,
    )


def decision_of(suite: dict[str, Any], runs: pd.DataFrame) -> Decision | None:
    """What the seeds of a suite say of its claim; None if it has none, or too few seeds.

    Args:
        suite: Its document.
        runs: Rows of `TrainingResults.runs`.
    """
    question = question_of(suite)
    if question is None or runs.empty:
        return None
    good = runs[(runs["suite"] == suite["run_id"]) & (runs["status"] == "ok")]
    scores = {
        str(label): {int(seed): float(miou) for seed, miou in group[["seed", "miou"]].values}
        for label, group in good.groupby("label")
    }
    mine = runs[runs["suite"] == suite["run_id"]]
    over = set(suite["runs"]) <= set(mine.loc[mine["status"].isin(("ok", "failed")), "run"])
    return answer(question, scores, over=over)


def spared_seeds(suite: dict[str, Any], runs: pd.DataFrame) -> frozenset[int]:
    """Seeds that a suite need not run, since its claim was decided before."""
    question, decision = question_of(suite), decision_of(suite, runs)
    if question is None or decision is None or decision.verdict == "undecided":
        return frozenset()
    return frozenset(question.seeds[max(decision.seeds, question.first) :])


def _run_row(suite: str, path: Path, document: dict[str, Any]) -> dict[str, Any]:
    result = read_result(path) or {"status": "pending", "reason": "not finished"}
    environment = document["environment"]
    return {
        **_config_columns(suite, path.name, document["config"], document["data"]),
        **{name: document["data"].get(name) for name in RUN_COLUMNS if name.endswith("_frames")},
        **{name: result.get(name) for name in RUN_COLUMNS if name in result},
        "status": result["status"],
        "reason": result.get("reason", ""),
        "threads": document["config"]["threads"] or environment["threads"],
        "machine": f"{environment['cpu']}, {environment['logical_cores']} cores",
        "commit": environment.get("commit"),
        "weights_of": document.get("weights_of", ""),
    }


def _pending(suite: dict[str, Any], name: str, config: dict[str, Any]) -> dict[str, Any]:
    row = _config_columns(suite["run_id"], name, config, suite["data"])
    return {**row, "status": "pending", "reason": "not begun"}


def _config_columns(
    suite: str, run: str, config: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    task = _protocol(config, data["evaluated_split"])
    return {
        "suite": suite,
        "run": run,
        "data": data["title"],
        "synthetic": data["synthetic"],
        "protocol": _SHARED.join([task, *_sharing(config)]),
        "processes": config.get("processes", 1),
        "method": config["method"],
        "disc": config["disc"] if method_of(config["method"]).judged else "",
        "label": label_of(config["method"], config["disc"]),
        "seed": config["seed"],
        "batch": config["batch"],
        "size": f"{config['height']}x{config['width']}",
        "evaluation": config["evaluation"],
        "split": data["evaluated_split"],
        "segmenter_dtype": config["segmenter_dtype"],
        "disc_dtype": config["disc_dtype"],
        "device": config["device"],
        "budget": SECONDS if config.get("seconds") else IMAGES,
        "settings": _settings(config),
    }


def _settings(config: dict[str, Any]) -> str:
    """The settings that are the method's own, ``field value`` each, with semicolons."""
    known = {each.name: config.get(each.name, each.default) for each in fields(TrainConfig)}
    named = {name: known[name] for name in method_of(config["method"]).settings}
    return "; ".join(f"{name} {value}" for name, value in named.items() if value is not None)


def _protocol(config: dict[str, Any], split: str) -> str:
    """All settings that runs must share to be compared, in words."""
    length = f"{config['steps']} steps" if config["steps"] else f"{config['epochs']} epochs"
    budget = f"{IMAGES}: {length}"
    if config.get("seconds"):
        budget = f"{SECONDS}: {config['seconds']:g}"
    parts = [
        config["model"], f"{config['height']}x{config['width']}", f"batch {config['batch']}",
        budget, f"lr {config['lr']:g}", f"discriminator's lr {config['disc_lr']:g}",
        f"lambda {config['adversarial_weight']:g}", f"{config['disc_input']} to the discriminator",
        f"{config['recipe']} recipe", f"{config['evaluation']} mIoU on {split}",
    ]  # fmt: skip
    crop = config["crop"]
    if crop:
        parts.append(f"crop {crop[0]}x{crop[1]}")
    kinds = [kind for kind in config["augment"] if kind != "crop" or crop]
    parts.append(f"augmentation {'+'.join(kinds) or 'none'}")
    parts += [name for name in ("ohem", "detail") if config[name]]
    if not config.get("normalise", True):
        parts.append("not normalised")
    if config["clip"]:
        parts.append(f"clip {config['clip']:g}")
    if config["limit"]:
        parts.append(f"at most {config['limit']} frames per split")
    if config["backbone_weights"]:
        parts.append("pretrained backbone")
    parts += [
        f"{name.replace('_', ' ')} {value:g}"
        for name, default in _OWN_SETTINGS.items()
        if (value := config.get(name, default)) != default
    ]
    return ", ".join(parts)


_SHARED = "; "


def _sharing(config: dict[str, Any]) -> list[str]:
    """How processes share the work, in words; nothing where one does it all as usual."""
    many, norm = config.get("processes", 1), config.get("batch_norm", "local")
    words = {"local": "batch norm of each process's images", "sync": "synchronised batch norm"}
    if norm == "frozen":
        words[norm] = "frozen batch norm"
    if many > 1:
        return [f"{many} processes, {words[norm]}"]
    return [words[norm]] if norm == "frozen" else []


def task_of(protocol: str) -> str:
    """A protocol but for how processes share its work."""
    return protocol.partition(_SHARED)[0]


def sharing_of(protocol: str) -> str:
    """How processes share a protocol's work; nothing where one does it all as usual."""
    return protocol.partition(_SHARED)[2]


_ALWAYS_SAID = ("adversarial_weight", "disc_input", "disc_lr")
_OWN_SETTINGS = {
    each.name: each.default
    for each in fields(TrainConfig)
    if any(each.name in method.settings for method in METHODS.values())
    and each.name not in _ALWAYS_SAID
}
"""Settings that some methods have -> their default."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One label against another over the seeds both have.

    Attributes:
        difference: Of the mIoU, paired by seed, in fractions.
        verdict: ``better``, ``worse`` or ``undecided``.
        by_seed: Seed -> difference.
    """

    label: str
    against: str
    seeds: int
    difference: Interval
    verdict: str
    by_seed: Mapping[int, float] = field(default_factory=dict)


def compare(runs: pd.DataFrame, label: str, against: str) -> Comparison | None:
    """Compares two labels by the mIoU of the seeds that both have; None if there are none.

    Args:
        runs: Rows of `TrainingResults.runs` of one pair of domains and one protocol.
        label: The label that is judged, such as ``adversarial disc``.
        against: The label it is compared with, such as ``control disc``.
    """
    good = runs[runs["status"] == "ok"]
    ours, theirs = (
        good[good["label"] == name].drop_duplicates("seed").set_index("seed")["miou"]
        for name in (label, against)
    )
    difference = (ours - theirs).dropna()
    if difference.empty:
        return None
    interval = mean_interval([float(value) for value in difference])
    verdict = "undecided"
    if interval.low > 0:
        verdict = "better"
    elif interval.high < 0:
        verdict = "worse"
    by_seed = {int(str(seed)): float(value) for seed, value in difference.items()}
    return Comparison(label, against, len(difference), interval, verdict, by_seed)


def published_accuracy(data: str, label: str) -> dict[str, str]:
    """The paper's figures for a run: table -> ``accuracy / mIoU``; only for its own data.

    The paper's tables disagree with each other: each is named.
    """
    return {
        table: f"{values['pixel accuracy']:g} / {values['mIoU']:g}"
        for table, values in _published_tables(data, label)
    }


def published_miou(data: str, label: str) -> dict[str, str]:
    """The paper's mIoU for a run, in percent: table -> figure as printed there."""
    return {table: f"{values['mIoU']:g}" for table, values in _published_tables(data, label)}


def _published_tables(data: str, label: str) -> Iterator[tuple[str, pd.Series[Any]]]:
    name = _PAPER_NAMES.get((data, label))
    printed = published()
    for table, group in printed[printed["method"] == name].groupby("table", sort=False):
        yield str(table), group.set_index("quantity")["value"]


_PAPER_NAMES = {
    ("cityscapes -> cityscapes", "augment"): "target: Cityscapes -> Cityscapes",
    ("gta5 -> cityscapes", "target"): "target: Cityscapes -> Cityscapes",
    ("gta5 -> gta5", "augment"): "target: GTA5 -> GTA5",
    ("gta5 -> cityscapes", "source-only"): "source-only: GTA5 -> Cityscapes, no augmentation",
    ("gta5 -> cityscapes", "augment"): "augment: GTA5 -> Cityscapes, augmentation",
    ("gta5 -> cityscapes", "adversarial disc"): (
        "adversarial disc: GTA5 -> Cityscapes, adversarial"
    ),
    ("gta5 -> cityscapes", "adversarial dw-disc"): (
        "adversarial dw-disc: GTA5 -> Cityscapes, adversarial, depthwise discriminator"
    ),
    ("gta5 -> cityscapes", "adversarial diag-disc"): (
        "adversarial diag-disc: GTA5 -> Cityscapes, adversarial, diagonalwise discriminator"
    ),
}
