"""The sections of a profile: models against their roofs, stages, layers, and charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.files import slug
from dabench.base.units import (
    format_bytes,
    format_count,
    format_interval,
    format_seconds,
    format_threads,
    significant,
)
from dabench.counting.forms import CONVOLUTION, GROUPED_CONVOLUTION
from dabench.findings.explain import BASE, EVIDENCE_COLUMNS, Explanation, Run, explain, runs_of
from dabench.findings.profiles import CASE, Profiles
from dabench.findings.trials import read_trials
from dabench.plan.axes import KEEP, KEPT
from dabench.profiling.roofline import BEYOND, Ceilings, format_roof
from dabench.records.profiles import LayerRow, ModelRow
from dabench.report.charts import roofline, stacked_bars
from dabench.report.sections import left_out
from dabench.report.text import Writer

TOP_LAYERS = 15


def sections(out: Writer, profiles: Profiles, folder: Path, name: str) -> None:
    """All sections of some profile runs."""
    good = profiles.models[profiles.models["status"] == "ok"]
    out.heading("Where the time goes")
    if good.empty:
        out.paragraph("No case could be profiled.")
    else:
        for run in profiles.runs:
            _explanation(out, profiles, run["run_id"])
        _models(out, good)
        _beyond(out, profiles.layers)
        _pictures(out, profiles, good, folder, name)
        for row in good.to_dict("records"):
            mine = (profiles.layers[CASE] == [row[key] for key in CASE]).all(axis=1)
            _layers(out, pd.Series(row), profiles.layers[mine])
    bad = profiles.models[profiles.models["status"] != "ok"]
    if not bad.empty:
        out.table(bad[["case_id", "phase", "status", "reason"]], "Cases that gave no profile.")
    ceilings_table(out, [each for _, each in profiles.ceilings])
    _method(out, profiles)


def _explanation(out: Writer, profiles: Profiles, run_id: str) -> None:
    """In words, where a run holds two networks in several settings."""
    models = [ModelRow(**row) for row in _rows(profiles.models, run_id)]
    layers = [LayerRow(**row) for row in _rows(profiles.layers, run_id)]
    for _, same in groupby(sorted(models, key=_circumstances), key=_circumstances):
        runs = runs_of(list(same), layers)
        in_base = sorted((r for (_, setting), r in runs.items() if setting == BASE), key=_flops)
        if len(in_base) != 2 or len(runs) <= 2 or not in_base[0].flops:
            continue
        light, heavy = in_base
        trials = read_trials(profiles.folders[run_id], heavy.model, light.model)
        text = explain(heavy.model, light.model, runs, BASE, trials)
        first = light.rows[0]
        where = f"{first.device_name or first.device}, {_circumstances_of(first)}"
        out.heading(f"Why {light.model} is as fast as it is: {where}", level=3)
        explanation(out, text)


def _circumstances_of(row: ModelRow) -> str:
    size = f"{row.batch}x{row.height}x{row.width}"
    return f"{row.mode}, {size}, {format_threads(row.threads)}{_kept(row.allocator)}"


def _kept(allocator: str) -> str:
    """What is said of memory that stays with the process."""
    return f", {KEPT}" if allocator == KEEP else ""


def explanation(out: Writer, text: Explanation) -> None:
    """Sentences and the table they rest on."""
    out.bullets(text.sentences)
    out.table(
        pd.DataFrame(text.evidence, columns=list(EVIDENCE_COLUMNS)),
        "What the sentences rest on; numbers in brackets are rows.",
    )


def _circumstances(row: ModelRow) -> tuple[Any, ...]:
    """What must be equal for two networks to be compared, but for dtype and layout."""
    return row.device, row.batch, row.height, row.width, row.mode, row.threads, row.allocator


def _rows(frame: pd.DataFrame, run_id: str) -> list[dict[str, Any]]:
    """One run's rows, empty cells as None."""
    mine = frame[frame["run_id"] == run_id].drop(columns="run_id").to_dict("records")
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in mine]


def _flops(run: Run) -> int:
    return run.flops


def _models(out: Writer, models: pd.DataFrame) -> None:
    out.table(
        pd.DataFrame(
            {
                "model": models["model"],
                "setting": _settings(models),
                "phase": models["phase"],
                "median": models["median_s"].map(format_seconds),
                "95% interval": [
                    format_interval(low, high)
                    for low, high in models[["ci_low_s", "ci_high_s"]].values
                ],
                "at the roof": models["roof_s"].map(format_seconds),
                "of the roof": models["roof_fraction"].map(format_roof),
                "mostly": models["bound"].fillna("-"),
                "not in layers": (models["remainder_s"] / models["median_s"]).map("{:.1%}".format),
                "hooks": models["disturbance"].map("{:+.1%}".format),
                "n": [f"{n} / {k}" for n, k in models[["passes", "launches"]].values],
            }
        ),
        "Whole passes without hooks; at the roof: the sum over layers of the larger of operations "
        "over the compute ceiling and bytes over the bandwidth; n is passes / launches; hooks: by "
        "how much they lengthened the pass.",
    )
    notes = models.loc[models["reason"].fillna("") != "", ["model", "reason"]].drop_duplicates()
    out.bullets([f"{model}: {reason}." for model, reason in notes.values])


def _beyond(out: Writer, layers: pd.DataFrame) -> None:
    """Says how often a ceiling was too low."""
    held = layers[layers["roof_fraction"].notna()]
    beyond = held[held["roof_fraction"] > BEYOND]
    if not beyond.empty:
        share = beyond["median_s"].sum() / layers["median_s"].sum()
        out.paragraph(
            f"{len(beyond)} of {len(held)} layer rows, {share:.1%} of the time, ran over "
            f"{BEYOND - 1:.0%} faster than their roof: for these the ceilings are too low."
        )


def _settings(rows: pd.DataFrame) -> pd.Series[str]:
    size = rows["height"].astype(str) + "x" + rows["width"].astype(str)
    setting = rows["mode"] + " " + rows["dtype"] + " " + rows["memory_format"]
    threads = rows["threads"].astype(int).map(format_threads) + rows["allocator"].map(_kept)
    return rows["batch"].astype(str) + "x" + size + " " + setting + ", " + threads


def _layers(out: Writer, model: pd.Series[str], layers: pd.DataFrame) -> None:
    first = layers.sort_values("median_s", ascending=False).head(TOP_LAYERS)
    setting = _settings(pd.DataFrame([model])).iloc[0]
    out.table(
        pd.DataFrame(
            {
                "layer": first["layer"],
                "stage": first["stage"],
                "kind": first["kind"].fillna(""),
                "time": first["median_s"].map(format_seconds),
                "range": [format_interval(*pair) for pair in first[["low_s", "high_s"]].values],
                "share": first["share"].map("{:.1%}".format),
                "MACs": first["macs"].map(format_count),
                "executed FLOPs": first["executed_flops"].map(format_count),
                "bytes": first["moved_bytes"].map(format_bytes),
                "FLOP/byte": first["intensity"].map(significant),
                "GFLOP/s": (first["flops_per_s"] / 1e9).map(significant),
                "GB/s": (first["bytes_per_s"] / 1e9).map(significant),
                "of the roof": first["roof_fraction"].map(format_roof),
                "bound": first["bound"].fillna("-"),
            }
        ),
        f"{model['model']}, {setting}, {model['phase']}: the {len(first)} longest of "
        f"{len(layers)} rows; layers.csv has all. Range: of the launches' medians.",
    )


def _pictures(out: Writer, profiles: Profiles, good: pd.DataFrame, folder: Path, name: str) -> None:
    labels = good["model"] + ", " + _settings(good) + ", " + good["phase"] + _apart(good)
    label_of = dict(zip(good[CASE].itertuples(index=False, name=None), labels, strict=True))

    def labelled(frame: pd.DataFrame) -> list[str]:
        return [label_of[key] for key in frame[CASE].itertuples(index=False, name=None)]

    bars = pd.DataFrame(
        {
            "label": labelled(profiles.layers),
            "part": profiles.layers["stage"],
            "name": profiles.layers["layer"],
            "value": 1e3 * profiles.layers["median_s"],
        }
    )
    title = "Time per layer, coloured by stage"
    out.chart(
        stacked_bars(bars, unit="ms per pass", title=title),
        folder / f"{name}-layers",
        f"{title}: each segment is a layer, in the order they run",
    )
    machines = {c.device_name for _, c in profiles.ceilings}
    for ceilings, layers in _under_each_roof(profiles):
        if layers.empty:
            continue
        points = pd.DataFrame(
            {
                "label": labelled(layers),
                "name": layers["layer"],
                "intensity": layers["intensity"],
                "rate": layers["flops_per_s"] / 1e9,
                "share": layers["share"],
            }
        )
        where = f"-{slug(ceilings.device_name)}" if len(machines) > 1 else ""
        threads = format_threads(ceilings.threads)
        title = f"{ceilings.device_name}, {ceilings.dtype}, {threads}: roofline"
        out.chart(
            roofline(points, _roof_line(ceilings, points), title=title),
            folder / f"{name}-roofline{where}-{ceilings.dtype}-{ceilings.threads}t",
            f"{title}; a point per layer, its size the share of the time",
        )


def _apart(models: pd.DataFrame) -> pd.Series[str]:
    """What tells cases of the same setting apart: the machine, then the run."""
    setting = ["case_id", "phase"]
    device = models["device_name"].fillna(models["device"])
    by_machine = ", " + device if device.nunique() > 1 else pd.Series("", index=models.index)
    again = models.assign(device_name=device).duplicated([*setting, "device_name"], keep=False)
    return by_machine + (", " + models["run_id"]).where(again, "")


def _under_each_roof(profiles: Profiles) -> Iterator[tuple[Ceilings, pd.DataFrame]]:
    """Each machine's ceilings of a dtype and threads, with the layers held against them."""
    devices = profiles.models[["run_id", "case_id", "device"]].drop_duplicates()
    layers = profiles.layers.merge(devices, on=["run_id", "case_id"])
    layers = layers[(layers["intensity"] > 0) & layers["flops_per_s"].notna()]
    groups: dict[tuple[str, str, int], list[tuple[str, Ceilings]]] = {}
    for run_id, ceilings in profiles.ceilings:
        key = (ceilings.device_name, ceilings.dtype, ceilings.threads)
        groups.setdefault(key, []).append((run_id, ceilings))
    for (_, dtype, threads), known in groups.items():
        runs = {run_id for run_id, _ in known}
        # Measured more than once: the last one's line is drawn.
        last = max((ceilings for _, ceilings in known), key=lambda c: c.measured)
        mine = layers["run_id"].isin(runs) & (layers["device"] == last.device)
        yield last, layers[mine & (layers["dtype"] == dtype) & (layers["threads"] == threads)]


def _roof_line(ceilings: Ceilings, points: pd.DataFrame) -> pd.DataFrame:
    """The roof over the intensities there are, with the bandwidth beyond the caches."""
    low, high = points["intensity"].min() / 2, points["intensity"].max() * 2
    ridge = ceilings.flops_per_s / ceilings.memory_bytes_per_s
    xs = sorted({low, min(max(ridge, low), high), high})
    reached = [min(ceilings.flops_per_s, x * ceilings.memory_bytes_per_s) / 1e9 for x in xs]
    return pd.DataFrame({"intensity": xs, "rate": reached})


def ceilings_table(out: Writer, ceilings: Sequence[Ceilings]) -> None:
    """What the machines can reach at best, a row per setting."""
    if not ceilings:
        return
    out.heading("The machine's ceilings")
    known = {(c.device_name, c.dtype, c.threads, c.measured): c for c in ceilings}
    out.table(
        pd.DataFrame(
            [
                {
                    "device": c.device_name,
                    "dtype": c.dtype,
                    "threads": format_threads(c.threads),
                    "compute": f"{c.flops_per_s / 1e9:.0f} GFLOP/s",
                    "by": c.best_kernel,
                    "fastest stream": f"{c.bytes_per_s(1) / 1e9:.1f} GB/s",
                    "largest": f"{c.memory_bytes_per_s / 1e9:.1f} GB/s ({c.streams[-1][2]})",
                    "operator": format_seconds(c.launch_s),
                    "convolution": _floor(c, CONVOLUTION),
                    "grouped convolution": _floor(c, GROUPED_CONVOLUTION),
                    "measured": c.measured,
                }
                for c in known.values()
            ]
        ),
        "Best of what was tried. Bandwidths count bytes read and written, of the fastest of a "
        f"copy, work in place, reading and writing, at {_sizes(ceilings)}; layers are held against "
        "that of as many bytes as they move. Operator and convolutions (in eval): seconds with "
        "next to nothing to do, when the ceilings were measured.",
    )


def _sizes(ceilings: Sequence[Ceilings]) -> str:
    """The smallest and the largest amount that was streamed."""
    sizes = [size for each in ceilings for size, *_ in each.streams]
    return f"{format_bytes(min(sizes))} to {format_bytes(max(sizes))}"


def _floor(ceilings: Ceilings, form: str) -> str:
    known = ceilings.floors.get("eval forward", {})
    return format_seconds(known.get(form))


_BYTES = (
    "Bytes: each operator's inputs, weights and outputs once, at the item size of the dtype; "
    "allocation and giving memory back happen inside the layers' times."
)


def _method(out: Writer, profiles: Profiles) -> None:
    rules = dict.fromkeys(rule for run in profiles.runs for rule in run["rules"].values())
    out.heading("How the layers were timed")
    out.bullets(
        [
            *(f"{rule[0].upper()}{rule[1:]}." for rule in rules),
            _BYTES,
            *left_out(profiles.runs),
            *(
                f"`{run['command']}` on {run['environment']['cpu']}, "
                f"torch {run['environment']['torch']}, {run['created']}, commit "
                f"{run['environment']['commit'] or '-'}."
                for run in profiles.runs
            ),
        ]
    )
