"""The sections of a report that come from training runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.files import slug
from dabench.findings.certainty import IMAGES_RULE
from dabench.findings.claims import summary
from dabench.findings.logs import TrainingLog, published_logs
from dabench.findings.trainings import (
    Comparison,
    TrainingResults,
    compare,
    decision_of,
    published_accuracy,
)
from dabench.plan.methods import method_of
from dabench.records.trainings import EPOCH_PARTS
from dabench.report.audit import COURSES_CAPTION, courses_table
from dabench.report.charts import curves, heat_map, stacked_bars
from dabench.report.methods import ScoredRuns, certainty_table, costs_table, methods_table
from dabench.report.scaling import scaling_table
from dabench.report.text import Writer
from dabench.timing.seeds import looks_up_to
from dabench.training.deciding import in_words, question_of
from dabench.training.health import Sign, signs

_FIRST = (
    "source-only", "augment", "adabn", "control disc", "adversarial disc", "adversarial dw-disc",
    "adversarial diag-disc", "adversarial diag-disc-bias",
)  # fmt: skip
_LAST = ("target",)
_PAPER_EXPERIMENTS = {
    "source-only": "IV, no augmentation",
    "augment": "V, augmentation",
    "adversarial disc": "VI, adversarial",
    "adversarial dw-disc": "VII, depthwise discriminator",
    "adversarial diag-disc": "diagonalwise discriminator (repository)",
    "target": "II, in-domain",
}
_FIGURES = (
    ("loss", "segmentation loss", "Figure 5 of the paper: loss"),
    ("miou", "mIoU", "Figure 6 of the paper: mIoU"),
    ("accuracy", "pixel accuracy", "Figure 7 of the paper: precision"),
    ("disc_loss", "discriminator's loss", "Health of the discriminators, 0.69 is chance: loss"),
)
_LAST_EPOCH = (
    "The last epoch is the result. Batch norm keeps its training statistics, into which target "
    "images enter with all methods that pass them, but `dsbn`'s, whose target has its own."
)
SYNTHETIC = (
    "**Synthetic data.** These frames were drawn by dabench because no dataset root was given. The "
    "scores compare methods with one another on drawn streets; they say nothing about GTA5 or "
    "Cityscapes. The published figures are therefore not beside them; the published curves are, "
    "for their course."
)


def once_each(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with a result, the first of each training and seed."""
    good = runs[runs["status"] == "ok"]
    return good[~good.duplicated(["label", "seed"])]


def sections(out: Writer, loaded: TrainingResults, folder: Path, name: str) -> None:
    """Everything a report says of training runs."""
    seen: Counter[str] = Counter()
    groups = loaded.runs.groupby(["data", "protocol"], sort=False)
    # Adaptation first; what the domains give by themselves follows.
    for (data, protocol), runs in sorted(groups, key=lambda group: _in_domain(str(group[0][0]))):
        title = str(data)
        seen[title] += 1
        # Runs that were trained otherwise are another experiment, with a section of its own.
        prefix = f"{name}-{slug(title)}" + (f"-{seen[title]}" if seen[title] > 1 else "")
        out.heading(f"Accuracy: {title}")
        out.paragraph(f"Settings: {protocol}.")
        if bool(runs["synthetic"].iloc[0]):
            out.paragraph(SYNTHETIC)
        good = once_each(runs)
        if repeated := int((runs["status"] == "ok").sum()) - len(good):
            out.paragraph(f"{repeated} runs repeat a seed and are left out.")
        if not good.empty:
            epochs = loaded.epochs.merge(good[["suite", "run"]])
            scored = ScoredRuns(good, loaded)
            _accuracy(out, good, runs, epochs, title, scored)
            methods_table(out, _by_label(good))
            compared = _verdicts(out, good)
            certainty_table(out, [*compared, *_asked(good, loaded)], scored)
            _decided(out, runs, loaded)
            costs_table(out, good, _by_label(good))
            _health(out, good)
            files = _Files(folder / prefix, title)
            _per_class(out, loaded.classes.merge(good[["suite", "run"]]), good, files)
            _time_per_epoch(out, epochs, files)
            _curves(out, epochs, files)
            _pictures(out, loaded, (title, str(protocol)), folder, prefix)
        _not_done(out, runs)
        _method(out, good, loaded)
    scaling_table(out, loaded)


def _accuracy(
    out: Writer,
    good: pd.DataFrame,
    runs: pd.DataFrame,
    epochs: pd.DataFrame,
    data: str,
    scored: ScoredRuns,
) -> None:
    rows = []
    begun = runs.groupby("label")["seed"].nunique()
    for label, group in _by_label(good):
        images = scored.over_images(label, group["seed"].astype(int))
        rows.append(
            {
                "run": label,
                "the paper's table": _paper_table(data, label),
                "mIoU %": _spread(group["miou"]),
                "seeds": _each_seed(group, int(begun[label])),
                **({} if images is None else {"± over images": f"{100 * images:.1f}"}),
                "pixel accuracy %": _spread(group["accuracy"]),
                "best mIoU % (selected on target labels)": _spread(group["best_miou"]),
                "flags": _flags(epochs.merge(group[["suite", "run"]])),
                **published_accuracy(data, label),
            }
        )
    evaluation = ", ".join(dict.fromkeys(good["evaluation"]))
    out.table(
        pd.DataFrame(rows).fillna("-"),
        f"Mean and standard deviation over seeds of the last epoch, at {good['budget'].iloc[0]}; "
        f"{evaluation} mIoU at full label resolution on the {good['split'].iloc[0]} split; the "
        "mIoU of each seed beside it. "
        "`control` is the adversarial path with lambda = 0; `adabn` recomputes batch-norm "
        "statistics on target images after training with augmentation; `target` trains on the "
        "target's own labels."
        + (f" {IMAGES_RULE.capitalize()}." if any("± over images" in row for row in rows) else "")
        + (
            " Published columns: pixel accuracy / mIoU."
            if any(published_accuracy(data, label) for label in good["label"])
            else ""
        ),
    )


def _each_seed(group: pd.DataFrame, begun: int) -> str:
    """The scores of a training's seeds, and how many seeds have none."""
    scores = ", ".join(f"{100 * value:.1f}" for value in group.sort_values("seed")["miou"])
    missing = begun - len(group)
    return f"{scores} ({missing} of {begun} without a score)" if missing else scores


def _in_domain(data: str) -> bool:
    """Whether a pair's title names one domain twice."""
    source, _, target = data.partition(" -> ")
    return source == target


def _paper_table(data: str, label: str) -> str:
    """Which table of the paper a run repeats, on its own data or another pair's."""
    if _in_domain(data):
        return "III, in-domain" if label in ("augment", "target") else "-"
    return _PAPER_EXPERIMENTS.get(label, "-")


def _spread(values: pd.Series[Any]) -> str:
    known = 100 * values.dropna().astype(float)
    if known.empty:
        return "-"
    if len(known) == 1:
        return f"{known.iloc[0]:.1f}"
    return f"{known.mean():.1f} ± {known.std():.1f}"


def _flags(epochs: pd.DataFrame) -> str:
    """What is wrong with the adversaries of some runs, and with how many."""
    runs = [run for _, run in epochs.groupby(["suite", "run"], sort=False)]
    found = Counter(sign.flag for run in runs for sign in _signs_of(run))
    return "; ".join(f"{flag} in {count} of {len(runs)}" for flag, count in found.items())


def _signs_of(epochs: pd.DataFrame) -> list[Sign]:
    """Of one run that is done (`dabench.training.health`)."""
    losses = epochs[["adversarial_loss", "disc_loss"]].astype(float)
    fooling, telling = (
        [None if value != value else value for value in losses[name]] for name in losses
    )
    return signs(fooling, telling, fewest=1)


def verdicts(good: pd.DataFrame) -> tuple[list[str], list[Comparison]]:
    """Whether each method helps, a line each, and the comparisons that this rests on.

    Args:
        good: Rows of runs with a result, of one pair of domains and one protocol.
    """
    rested: list[Comparison] = []
    groups = {label: str(group["method"].iloc[0]) for label, group in _by_label(good)}
    controls = [label for label, method in groups.items() if method == "control"]
    lines = []
    for label in (name for name, method in groups.items() if _is_judged(method)):
        stuck = good[(good["label"] == label) & good["disc_at_chance"].eq(True)]
        others = [*controls, "adabn", "augment"]
        found = [c for other in others if (c := compare(good, label, other)) is not None]
        if not found:
            continue
        rested += found
        against = "; ".join(
            f"{c.against} {_points(c.difference.estimate)}{_interval(c.difference)}: {c.verdict}"
            for c in found
        )
        fools = method_of(groups[label]).fools
        # Only what passes target images has batch norm's part in it, which the control shows.
        needed = {"control", "adabn"} if fools else {"augment", "adabn"}
        judged = [c for c in found if c.against.partition(" ")[0] in needed]
        helps = _helps(judged, stuck=not stuck.empty, needed=needed)
        missing = needed - {c.against.partition(" ")[0] for c in judged}
        if missing and helps == "undecided":
            helps += f" (not run: {', '.join(sorted(missing))})"
        if not stuck.empty:
            helps += f" (its discriminator stayed at chance in {len(stuck)} runs)"
        asked = f"Does the adversary help with {label}?" if fools else f"Does {label} help?"
        lines.append(f"{asked} **{helps}**. Against {against}.")
    return lines, rested


def _verdicts(out: Writer, good: pd.DataFrame) -> list[Comparison]:
    """Says whether each method helps; returns the comparisons that this rests on."""
    lines, rested = verdicts(good)
    if lines:
        adversaries = [line.startswith("Does the adversary") for line in lines]
        rules = ["The adversary helps only if it beats both the control and AdaBN."]
        others = ["Another method helps only if it beats `augment` and AdaBN."]
        said = rules * any(adversaries) + others * (not all(adversaries))
        out.paragraph(
            f"{' '.join(said)} Differences of mIoU in points, paired by seed, with 95% intervals "
            "over seeds (Student's t):"
        )
        out.bullets(lines)
    return rested


def _asked(good: pd.DataFrame, loaded: TrainingResults) -> list[Comparison]:
    """The pairs that suites were to decide, where both sides are among these runs."""
    questions = [question for suite in loaded.suites if (question := question_of(suite))]
    found = [compare(good, question.better, question.than) for question in questions]
    return [comparison for comparison in found if comparison is not None]


def _decided(out: Writer, runs: pd.DataFrame, loaded: TrainingResults) -> None:
    """What came of claims that seeds were added for."""
    for suite in loaded.suites:
        question = question_of(suite)
        if question is not None and suite["run_id"] in set(runs["suite"]):
            looks = ", ".join(map(str, looks_up_to(len(question.seeds), question.first)))
            out.paragraph(
                f"Asked, with looks after {looks} seeds: "
                f"{in_words(question, decision_of(suite, runs))}."
            )


def _is_judged(method: str) -> bool:
    """Whether the question is if it helps: not of what it is compared with."""
    known = method_of(method)
    return known.needs_target and not known.on_target and method not in ("control", "adabn")


def _helps(
    judged: Sequence[Comparison], *, stuck: bool, needed: Iterable[str] = ("control", "adabn")
) -> str:
    """Yes needs all opponents beaten, by a discriminator that learnt something if there is one."""
    if any(c.verdict == "worse" for c in judged):
        return "no"
    opponents = {c.against.partition(" ")[0] for c in judged if c.verdict == "better"}
    return "yes" if opponents == set(needed) and not stuck else "undecided"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(difference: Any) -> str:
    if difference.high == float("inf"):
        return " (one seed)"
    return f" [{_points(difference.low)}, {_points(difference.high)}]"


def _health(out: Writer, good: pd.DataFrame) -> None:
    with_disc = good[good["disc_loss"].notna()]
    if with_disc.empty:
        return
    out.table(
        pd.DataFrame(
            {
                "run": with_disc["label"],
                "seed": with_disc["seed"].astype(str),
                "loss": with_disc["disc_loss"].map("{:.3f}".format),
                "accuracy %": with_disc["disc_accuracy"].map(lambda v: f"{100 * v:.0f}"),
                "belief on source": with_disc["belief_source"].map("{:.2f}".format),
                "belief on target": with_disc["belief_target"].map("{:.2f}".format),
                "at chance": with_disc["disc_at_chance"].map(lambda v: "yes" if v else "no"),
            }
        ),
        "Health of the discriminators in the last epoch. Belief is the mean answer, 1 for source. "
        "A discriminator that cannot tell has a loss of 0.693; one whose loss never fell to 0.68 "
        "in any epoch stayed at chance, and its run is the control under another name.",
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """Where charts of a pair of domains go, and what it is called."""

    prefix: Path
    data: str

    def stem(self, name: str) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}-{name}")


def _per_class(out: Writer, done: pd.DataFrame, good: pd.DataFrame, files: _Files) -> None:
    if done.empty:
        return
    names = list(dict.fromkeys(done["name"]))
    rows: dict[str, list[str]] = {"class": names}
    fields = []
    for label, _ in _by_label(good):
        mean = done[done["label"] == label].groupby("name")["iou"].mean()
        rows[label] = [
            "-" if pd.isna(mean.get(name)) else f"{100 * mean[name]:.1f}" for name in names
        ]
        fields += [
            {"row": name, "column": label, "value": 100 * mean[name]}
            for name in names
            if pd.notna(mean.get(name))
        ]
    first = done[(done["suite"] == done["suite"].iloc[0]) & (done["run"] == done["run"].iloc[0])]
    share = first.set_index("name")["pixels"] / max(first["pixels"].sum(), 1)
    rows["share of pixels %"] = [f"{100 * share[name]:.2f}" for name in names]
    out.table(pd.DataFrame(rows), "IoU per class in %, mean over seeds.")
    if fields:
        title = f"{files.data}: IoU per class, mean over seeds"
        chart = heat_map(pd.DataFrame(fields), unit="IoU %", title=title)
        out.chart(chart, files.stem("classes"), title)


def _time_per_epoch(out: Writer, epochs: pd.DataFrame, files: _Files) -> None:
    rows, bars = [], []
    rare = ("teacher", "exchange")
    parts = [part for part in EPOCH_PARTS if part not in rare or epochs[f"{part}_s"].any()]
    for label, group in _by_label(epochs):
        whole = group.groupby(["suite", "run"])["images"].transform("max") == group["images"]
        full = group[whole]
        seconds = full["seconds"].mean()
        rest = seconds - sum(full[f"{part}_s"].mean() for part in parts)
        means = {**{part: full[f"{part}_s"].mean() for part in parts}, "rest": rest}
        bars += [{"label": label, "part": part, "value": each} for part, each in means.items()]
        share = (full["discriminator_s"] + full["adversarial_s"]) / full["seconds"]
        rows.append(
            {
                "run": label,
                "epoch s": f"{seconds:.1f}",
                **{part: f"{full[f'{part}_s'].mean():.2f}" for part in parts},
                "rest": f"{rest:.2f}",
                "adversary's share": "-" if share.max() == 0 else f"{share.mean():.0%}",
                "images/s": f"{(full['images'] / full['seconds']).median():.1f}",
                "evaluation s": f"{full['eval_s'].mean():.1f}",
                "epochs": str(len(full)),
            }
        )
    teacher = "the teacher's passes and its update, " if "teacher" in parts else ""
    exchange = (
        ", averaging gradients over the processes, waiting for the slowest included"
        if "exchange" in parts
        else ""
    )
    if rows:
        out.table(
            pd.DataFrame(rows),
            "Time per whole epoch taken apart, seconds, mean over epochs and seeds: reading and "
            "augmenting data, the segmenter on source and on target (forward and, but for the "
            "adversarial term, backward), that term (forward through the discriminator, backward "
            f"through both networks), the discriminator's own step, {teacher}the "
            f"optimisers{exchange}. "
            "Evaluation is apart. "
            "Where source and target passed side by side, the time until both were done is shared "
            "out in proportion to what each part took, with what one took over from the other. "
            "The adversary's share is that of the adversarial term and the discriminator's step. "
            "With one pass after the other a lighter discriminator can save no more than that, and "
            "less, since the term's backward through the segmenter stays.",
        )
        title = f"{files.data}: time per whole epoch taken apart"
        chart = stacked_bars(pd.DataFrame(bars), unit="s per epoch", title=title)
        out.chart(chart, files.stem("epochs"), f"{title}, mean over epochs and seeds")


def _curves(out: Writer, epochs: pd.DataFrame, files: _Files) -> None:
    data = files.data
    logs = [log for log in published_logs() if _in_domain(log.group) == _in_domain(data)]
    beside = ", ".join(dict.fromkeys(log.group for log in logs))
    for column, title, caption in _FIGURES:
        known = epochs[epochs[column].notna()]
        if known["epoch"].nunique() < 2:
            continue
        by_epoch = known.groupby(["label", "epoch"], sort=False)[column]
        over = {"mean": "value", "min": "low", "max": "high"}
        mean = by_epoch.agg(list(over)).rename(columns=over)
        mean = (mean * (1 if column.endswith("loss") else 100)).reset_index()
        unit = title if column.endswith("loss") else f"{title} (%)"
        printed = _points_of(logs, column)
        chart = curves(
            mean,
            unit=unit,
            title=f"{data}: {title} per epoch",
            beside=(f"as published, {beside}: one run each", printed),
        )
        out.chart(
            chart,
            files.stem(column),
            f"{caption} per epoch, mean over seeds ({data}), of few trainings with the band they "
            "span" + ("" if printed.empty else f"; right: as published ({beside})"),
        )
    out.table(
        courses_table([summary(log) for log in logs]),
        f"The published runs by their own logs, {beside}, read like ours. {COURSES_CAPTION}",
    )


def _points_of(logs: Sequence[TrainingLog], column: str) -> pd.DataFrame:
    """Published curves as points of a figure, epochs counted from 1 as ours are."""
    scale = 1 if column.endswith("loss") else 100
    return pd.DataFrame(
        {"label": f"{log.name}: {log.label}", "epoch": point + 1, "value": scale * value}
        for log in logs
        if column in log.curves
        for point, value in zip(log.curves[column].points, log.curves[column].values, strict=True)
    )


def _pictures(
    out: Writer, loaded: TrainingResults, of: tuple[str, str], folder: Path, prefix: str
) -> None:
    for (data, protocol, label), picture in loaded.pictures.items():
        if (data, protocol) == of:
            what = f"{label} ({data}): input, truth, prediction, errors in red"
            out.photo(picture, folder / f"{prefix}-{slug(label)}.png", what)


def _not_done(out: Writer, runs: pd.DataFrame) -> None:
    bad = runs[runs["status"] != "ok"]
    if not bad.empty:
        out.table(bad[["run", "status", "reason"]].astype(str), "Runs without a result, and why.")


def _method(out: Writer, good: pd.DataFrame, loaded: TrainingResults) -> None:
    if good.empty:
        return
    suites = [s for s in loaded.suites if s["run_id"] in set(good["suite"])]
    first = good.iloc[0]
    lines = [f"Command: `{suite['command']}` ({suite['created']})." for suite in suites]
    target = good["target_frames"].dropna()
    unlabelled = f", {int(target.iloc[0])} unlabelled target frames" if len(target) else ""
    seeds = ", ".join(str(seed) for seed in sorted(set(good["seed"])))
    frames = (
        f"{int(first['training_frames'])} source frames{unlabelled}, "
        f"{int(first['evaluation_frames'])} evaluated frames; {first['size']} pixels, batch "
        f"{int(first['batch'])}, {_range_of(good['steps'])} steps; seeds {seeds}. An epoch is one "
        "pass over the training frames: `target` has its own number of them."
    )
    dtypes = "; ".join(
        f"{label} {group['segmenter_dtype'].iloc[0]}"
        + (f", discriminator {group['disc_dtype'].iloc[0]}" if group["disc"].any() else "")
        for label, group in _by_label(good)
    )
    lines += [
        frames,
        f"Precision of the segmenter's training: {dtypes}.",
        f"Machine: {first['machine']}, {_workers(first)}; commit {first['commit']}.",
        _LAST_EPOCH,
    ]
    out.bullets(lines)


def _workers(run: pd.Series[Any]) -> str:
    threads = f"{run['threads']} threads"
    return f"{run['processes']} processes of {threads}" if run["processes"] > 1 else threads


def _range_of(numbers: pd.Series[Any]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return str(low) if low == high else f"{low} to {high}"


def _by_label(frame: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Groups in the order in which a reader compares them."""
    labels = dict.fromkeys(frame["label"])
    others = [label for label in labels if label not in (*_FIRST, *_LAST)]
    for label in (*_FIRST, *others, *_LAST):
        if label in labels:
            yield label, frame[frame["label"] == label]
