"""The sections of a report: which rows, which columns, in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dabench.base.files import slug
from dabench.base.units import (
    format_bytes,
    format_count,
    format_interval,
    format_seconds,
    significant,
)
from dabench.findings.audit import impossible_cells
from dabench.findings.proofs import flags
from dabench.findings.tables import Results, paper_timing, ratios, ways_of
from dabench.plan.axes import AXES, EAGER
from dabench.plan.variants import EXPORTED
from dabench.records.measurements import WITHIN_ONE_LAUNCH
from dabench.report.charts import bars_with_intervals
from dabench.report.text import Writer
from dabench.timing.statistics import INTERVAL_RULE
from dabench.timing.verdicts import DELTA
from dabench_models import MODELS

DISCRIMINATORS = tuple(n for n, spec in MODELS.items() if spec.family == "discriminator")
ONE_SAMPLE = "one sample: no interval"
MOST_BARS = 200
"""In one chart."""

_PAPER_TABLES = {
    "cpu": ("CPU and TPU", "(8, 19, 1024, 512) through the discriminator once"),
    "cuda": ("GPU", "(32, 19, 1024, 512) through the discriminator 50 times"),
}


def paper_table(out: Writer, loaded: Results, device: str) -> None:
    """The paper's discriminator timing, the printed columns beside ours."""
    name, what = _PAPER_TABLES[device]
    timing = paper_timing(loaded.measurements, device)
    out.heading(f"The paper's {name} table: {what}")
    measured = list(dict.fromkeys(timing.loc[timing["source"] == "measured", "machine"]))
    printed = list(dict.fromkeys(timing.loc[timing["source"] == "published", "machine"]))
    impossible = {cell: said for cell, said in impossible_cells().items() if cell[0] in printed}
    rows = []
    for mode in ("train", "eval"):
        for model in DISCRIMINATORS:
            here = timing[(timing["mode"] == mode) & (timing["model"] == model)]
            if here.empty:
                continue
            cells = {
                f"{m} (published)": _seconds_of(here, "published", m)
                + (" (impossible)" if (m, model, mode) in impossible else "")
                for m in printed
            }
            cells |= {f"{m} (measured)": _seconds_of(here, "measured", m) for m in measured}
            rows.append({"mode": mode, "model": model, **cells})
    notes = "; ".join(dict.fromkeys(timing["note"].dropna()))
    caption = (
        "Seconds in all, forward only, fp32 unless a column says tf32, protocol `paper`: cold, by "
        "a host clock, never synchronised; `train` is the forward in training mode. Published: "
        f"{notes}. Measured: median over launches [95% interval], number of launches."
    )
    out.table(pd.DataFrame(rows), caption)
    out.bullets(
        [
            f"Impossible: {model}, {mode}, on {machine}: {said}."
            for (machine, model, mode), said in impossible.items()
        ]
    )
    if not measured:
        out.paragraph(
            "No machine has been measured for this table in these runs; "
            f"`dabench sweep paper-{'gpu' if device == 'cuda' else 'cpu'}` adds a column."
        )
    elif device == "cuda":
        _unsynchronised(out, timing)


def _unsynchronised(out: Writer, timing: pd.DataFrame) -> None:
    """How far the paper's clock was from the end of the work, where both were read."""
    both = timing[timing["device_median_s"].notna()]
    rows = []
    # Ratios are of one run and setting, whatever its column above is called.
    setting = ["run_id", "device", "threads", "dtype", "mode"]
    for _, group in both.groupby(setting, sort=False, dropna=False):
        facts = group[["machine", "mode", "model", "seconds", "device_median_s"]].values.tolist()
        rows += [
            (*names, format_seconds(clock), format_seconds(done)) for *names, clock, done in facts
        ]
        times = {model: (clock, done) for _, _, model, clock, done in facts}
        known = [name for name in DISCRIMINATORS if name in times]
        machine, mode, *_ = facts[0]
        for other in known[1:]:
            pairs = zip(times[known[0]], times[other], strict=True)
            quotients = (significant(ours / theirs) for ours, theirs in pairs)
            rows.append((machine, mode, f"{known[0]} / {other}", *quotients))
    columns = ("machine", "mode", "model", "clock stopped, not synchronised", "work finished")
    out.table(
        pd.DataFrame(rows, columns=columns),
        "What the paper's protocol reads, and when the same passes were really done. The first "
        "ends when the last pass was queued: it holds the start of the libraries, queueing, and "
        "waiting where the queue is full. It is not the time of the work, and ratios of it need "
        "not rank the networks.",
    )


def _seconds_of(rows: pd.DataFrame, source: str, machine: str) -> str:
    found = rows[(rows["source"] == source) & (rows["machine"] == machine)]
    if found.empty:
        return "-"
    row = found.iloc[-1]
    if source == "published":
        return f"{row['seconds']:.2f}"
    interval = f"[{significant(row['ci_low_s'])}, {significant(row['ci_high_s'])}]"
    if row["ci_scope"] == WITHIN_ONE_LAUNCH:
        interval = f"[{ONE_SAMPLE}]"
    return f"{significant(row['seconds'])} {interval}, {row['launches']}"


def speed_tables(out: Writer, loaded: Results) -> None:
    """Time, throughput and memory of everything measured steadily."""
    good = _plain(loaded.measurements)
    if good.empty:
        return
    out.heading("Speed and memory")
    for (machine, family), rows in good.groupby(["machine", "family"], sort=False):
        table = pd.DataFrame(
            {
                "model": rows["model"],
                **_setting_columns(rows),
                "median": rows["median_s"].map(format_seconds),
                "95% interval": [interval(row) for _, row in rows.iterrows()],
                "images/s": rows["images_per_s"].map(significant),
                "GFLOP/s": (rows["flops_per_s"] / 1e9).map(lambda v: "-" if v != v else f"{v:.0f}"),
                "peak memory": rows["peak_bytes"].astype("float64").map(format_bytes),
                **_joules(rows),
                "n": [f"{row['n']} / {row['launches']}" for _, row in rows.iterrows()],
                "ended": rows["stop"],
                "flags": flags(rows),
            }
        )
        out.table(
            table,
            f"{str(family).capitalize()}s on {machine}; n is samples / launches; GFLOP/s from "
            "executed operations; peak memory includes weights and input; flags are explained "
            "under 'How this was measured'.",
        )


def _plain(measurements: pd.DataFrame) -> pd.DataFrame:
    """What one process measured pass by pass."""
    good = measurements[measurements["status"] == "ok"]
    return good[(good["protocol"] == "steady") & (good["concurrency"] == 1)]


def loads_tables(out: Writer, loaded: Results) -> None:
    """Streams, passes queued back to back, and several processes at once."""
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    streams = good[good["protocol"] == "stream"]
    others = good[(good["protocol"] == "throughput") | (good["concurrency"] > 1)]
    if streams.empty and others.empty:
        return
    out.heading("Under load")
    for machine, rows in streams.groupby("machine", sort=False):
        table = pd.DataFrame(
            {
                "model": rows["model"],
                **{name: cells for name, cells in _setting_columns(rows).items() if name != "rate"},
                "frames/s": rows["rate"].map("{:g}".format),
                "latency from arrival": rows["median_s"].map(format_seconds),
                "95% interval": [interval(row) for _, row in rows.iterrows()],
                "pass by itself": rows["alone_s"].map(format_seconds),
                "on time": rows["on_time"].map(lambda v: "-" if v != v else f"{v:.1%}"),
                "overruns": rows["overruns"].astype("string").fillna("-"),
                "queue at the end": rows["queue"].astype("string").fillna("-"),
                "n": [f"{row['n']} / {row['launches']}" for _, row in rows.iterrows()],
                "flags": flags(rows),
            }
        )
        out.table(
            table,
            f"Streams on {machine}: frames arrive at a constant rate whether the last is done or "
            "not; on time: done before the next arrives; overruns: passes that by themselves take "
            "longer than the period; n is frames / launches.",
        )
    for machine, rows in others.groupby("machine", sort=False):
        table = pd.DataFrame(
            {
                "model": rows["model"],
                **_setting_columns(rows),
                "time per pass": rows["median_s"].map(format_seconds),
                "95% interval": [interval(row) for _, row in rows.iterrows()],
                "images/s": rows["images_per_s"].map(significant),
                "1 / latency": rows["latency_images_per_s"].map(
                    lambda value: "-" if value != value else significant(value)
                ),
                "n": [f"{row['n']} / {row['launches']}" for _, row in rows.iterrows()],
                "flags": flags(rows),
            }
        )
        out.table(
            table,
            f"Throughput on {machine}: images/s of all processes at once; 1 / latency: images/s of "
            "passes that are synchronised one by one; n is samples / launches.",
        )


def _size(rows: pd.DataFrame) -> pd.Series[str]:
    """Height and width, and channels where they differ."""
    size = rows["height"].astype(str) + "x" + rows["width"].astype(str)
    return rows["channels"].astype(str) + "x" + size if rows["channels"].nunique() > 1 else size


def _joules(rows: pd.DataFrame) -> dict[str, pd.Series[str]]:
    joules = rows["joules_per_image"]
    shown = joules.map(lambda value: "-" if value != value else significant(value))
    return {"J/image": shown} if joules.notna().any() else {}


def _setting_columns(rows: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """The axes that vary, or that a reader cannot do without."""
    columns = {
        axis.heading: _CELLS[axis.heading](rows)
        if axis.heading in _CELLS
        else rows[axis.key].astype(str)
        for axis in AXES.values()
        if axis.key != "model"
    } | {"run": rows["run_id"]}
    always = ("batch", "size", "mode", "dtype", "layout")
    return {k: v for k, v in columns.items() if k in always or v.nunique() > 1}


def _dtype(rows: pd.DataFrame) -> pd.Series[str]:
    how = rows["precision"].map(lambda p: "" if p == "as is" else f" ({p})")
    return rows["dtype"] + how


def variant_column(rows: pd.DataFrame) -> pd.Series[str]:
    """The ways the networks were run, in words."""
    return pd.Series(ways_of(rows), index=rows.index, dtype="str")


# Heading -> column, where it is not the axis as recorded.
_CELLS: dict[str, Callable[[pd.DataFrame], pd.Series[str]]] = {
    "size": _size,
    "dtype": _dtype,
    "variant": variant_column,
}


def interval(row: Mapping[Any, Any] | pd.Series[Any]) -> str:
    """A measurement's interval in words, with its scope where that is one launch."""
    text = format_interval(float(row["ci_low_s"]), float(row["ci_high_s"]))
    return text if row["ci_scope"] != WITHIN_ONE_LAUNCH else f"{text} ({WITHIN_ONE_LAUNCH})"


def operations_table(out: Writer, counts: pd.DataFrame) -> None:
    """Parameters, operations and bytes per model and batch.

    Args:
        out: Where to.
        counts: As of `Results`.
    """
    if counts.empty:
        return
    keys = ["model", "batch", "channels", "height", "width", "mode"]
    one_image = (counts["batch"] == 1).all()
    # Two runs may mean different networks by one name: then their counts differ.
    counts = counts.drop_duplicates([*keys, "params", "macs", "min_bytes"]).sort_values(
        keys, kind="stable", key=lambda column: column.map(_registry_order(column))
    )
    out.heading(f"Operations, parameters and bytes of one {'image' if one_image else 'pass'}")
    out.table(
        pd.DataFrame(
            {
                "model": counts["model"],
                **({} if one_image else {"batch": counts["batch"]}),
                "size": [
                    f"{c}x{h}x{w}" for c, h, w in counts[["channels", "height", "width"]].values
                ],
                "graph": counts["mode"].map(_GRAPHS),
                "parameters": counts["params"].map("{:,}".format),
                "forward MACs": counts["macs"].map(format_count),
                "executed": counts["executed_macs"].map(format_count),
                "backward MACs": _backward(counts, "backward_macs"),
                "executed backward": _backward(counts, "executed_backward_macs"),
                "activations": counts["activations"].map(format_count),
                "least bytes": counts["min_bytes"].map(format_bytes),
                "bytes layer by layer": counts["bytes_moved"].map(format_bytes),
            }
        ),
        "1 MAC = 2 FLOPs. Upsampling, pooling and batch norm are counted, activations such as ReLU "
        "are not. Executed operations differ from algorithmic ones where a layer multiplies by the "
        "zeros of a mask. Bytes are those of the fp32 forward: input, parameters and output once; "
        "and the sum of what each operator reads and writes. `diag-disc` is as published, without "
        "biases; `diag-disc-bias` has them and is the same function as `dw-disc`.",
    )
    for column, sentence in _OUTSIDE.items():
        calls = counts.reindex(columns=[*keys, column, "time_shares"]).itertuples(index=False)
        lines = [
            f"`{model}` {height}x{width} ({_GRAPHS[mode]}): {_calls(found, shares)}"
            for model, _, _, height, width, mode, found, shares in calls
            if isinstance(found, Mapping) and found
        ]
        if lines:
            out.paragraph(
                f"{sentence}, by calls; where it was measured, with their share of a forward "
                "pass's time (fp32, NCHW, on the CPU of the run):"
            )
            out.bullets(lines)


_OUTSIDE = {
    "without": "Operators without multiply-adds",
    "uncounted": "Operators whose arithmetic is not counted, so that totals are lower bounds",
}


def _calls(calls: Mapping[str, int], shares: Mapping[str, float] | float | None) -> str:
    """Calls per operator, with the share of the time where it was measured."""
    known = shares if isinstance(shares, Mapping) else {}
    return ", ".join(
        f"{name} x{n} ({known[name]:.1%})" if name in known else f"{name} x{n}"
        for name, n in calls.items()
    )


_GRAPHS = {"eval": "main output", "train": "all heads"}


def _registry_order(column: pd.Series[Any]) -> dict[Any, Any]:
    """Models in the order of the registry; anything else by itself."""
    order = {name: index for index, name in enumerate(MODELS)}
    return order if column.name == "model" else {value: value for value in column}


def _backward(counts: pd.DataFrame, column: str) -> list[str]:
    return ["-" if not value else format_count(value) for value in counts[column]]


def ratio_table(out: Writer, loaded: Results) -> None:
    """Standard against depthwise against diagonalwise, with intervals and verdicts."""
    table = ratios(loaded, DISCRIMINATORS)
    if table.empty:
        return
    table = table.sort_values(["protocol", "mode", "dtype", "memory_format"], kind="stable")
    out.heading("Ratios of the discriminators' times")
    out.table(
        pd.DataFrame(
            {
                "compared": table["numerator"] + " / " + table["denominator"],
                "machine": table["machine"],
                "protocol": table["protocol"],
                **_ratio_setting(table),
                "ratio": table["ratio"].map(significant),
                "95% interval": [ratio_range(row) for row in table.to_dict("records")],
                "launches": table["launches"].astype(str),
                "verdict": [
                    verdict if verdict == "undecided" else f"{name} is {verdict}"
                    for name, verdict in table[["numerator", "verdict"]].values
                ],
            }
        ),
        "Ratio of median times, the first over the second, in the same run and setting; of the "
        "time after which the work was done, under protocol `paper` too. `faster` and `slower` "
        f"need the whole interval outside of 1 +- {DELTA:.0%}, `same` all of it inside.",
    )


def ratio_range(row: Mapping[Any, Any]) -> str:
    """The interval of a ratio of `dabench.findings.tables.compared`, in words."""
    if row["samples"] == 1:
        return ONE_SAMPLE
    within = f" ({WITHIN_ONE_LAUNCH})" if row["launches"] == 1 else ""
    return f"{significant(row['ratio_low'])} to {significant(row['ratio_high'])}{within}"


def _ratio_setting(table: pd.DataFrame) -> dict[str, pd.Series[str]]:
    return {
        "batch": table["batch"].astype(str),
        "mode": table["mode"],
        "phase": table["phase"],
        "dtype": table["dtype"],
        "layout": table["memory_format"],
        **({"variant": ways} if (ways := variant_column(table)).nunique() > 1 else {}),
    }


def pictures(out: Writer, loaded: Results, folder: Path, name: str) -> None:
    """Charts of what was measured steadily: a PNG per machine and family."""
    good = _plain(loaded.measurements)
    if good.empty:
        return
    out.heading("Charts")
    for (machine, family), rows in good.groupby(["machine", "family"], sort=False):
        if len(rows) > MOST_BARS:
            out.paragraph(
                f"{len(rows)} bars of {family}s on {machine} are more than anybody can read: none "
                "is drawn; name fewer runs, or filter the CSV."
            )
            continue
        frame = pd.DataFrame(
            {
                "label": rows["model"] + _label(rows) + _way(rows),
                "group": rows["dtype"] + " " + rows["memory_format"],
                "panel": rows["mode"] + " " + rows["phase"],
                "value": rows["median_s"] * 1e3,
                "low": rows["ci_low_s"] * 1e3,
                "high": rows["ci_high_s"] * 1e3,
            }
        )
        title = f"{str(family).capitalize()}s on {machine}: median time and 95% interval"
        if (rows["ci_scope"] == WITHIN_ONE_LAUNCH).any():
            title += f" (some {WITHIN_ONE_LAUNCH})"
        chart = bars_with_intervals(frame, unit="ms per pass", title=title)
        out.chart(chart, folder / f"{name}-{family}-{slug(str(machine))}", title)


def _way(rows: pd.DataFrame) -> pd.Series[str]:
    return variant_column(rows).map(lambda name: "" if name == EAGER else f", {name}")


def _label(rows: pd.DataFrame) -> pd.Series[str]:
    batch = ", batch " + rows["batch"].astype(str)
    label = batch
    for name in ("height", "width", "threads", "device", "run_id"):
        if rows[name].nunique() > 1:
            label = label + f", {name} " + rows[name].astype(str)
    return label


def failures(out: Writer, loaded: Results) -> None:
    """Every case without a number, and why."""
    bad = loaded.measurements[loaded.measurements["status"] != "ok"]
    if bad.empty:
        return
    out.heading("Not measured")
    out.table(
        bad[["machine", "case_id", "phase", "status", "reason"]].rename(
            columns={"case_id": "case"}
        ),
        "Cases that gave no number, and why.",
    )


_LAUNCHES = (
    "Each case runs in fresh worker processes (launches), which are the replicates, since "
    "processes differ by more than the passes within one. The median is that of the launches' "
    "medians."
)
_RULES = {
    "interval": "Interval",
    "launches": "Launches",
    "warmup": "Warm-up",
    "flags": "Flags",
    "variants": "Other ways to run a network",
    "loads": "Loads",
}
_STEADY = (
    "Protocol `steady`: random inputs and weights made outside the timed region, garbage "
    "collection off, device synchronised before and after each pass; warm-up passes kept apart."
)


def left_out(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was asked for and not measured, since the machine only emulates it."""
    return [
        f"Not measured in `{r['run_id']}`: {line}." for r in runs for line in r.get("left_out", ())
    ]


def method(out: Writer, loaded: Results) -> None:
    """How this was measured, from the records."""
    out.heading("How this was measured")
    good = loaded.measurements[loaded.measurements["status"] == "ok"]
    lines = [
        _LAUNCHES,
        _STEADY,
        "Protocol `paper`: what the paper did; cold, no warm-up, one clock around all passes.",
    ]
    for topic, title in _RULES.items():
        stated = [run["rules"] for run in loaded.runs if topic in run.get("rules", {})]
        lines += [f"{title}: {rule}." for rule in dict.fromkeys(rules[topic] for rules in stated)]
    lines.append(f"Intervals of ratios, whenever measured: {INTERVAL_RULE}.")
    lines += _asked(loaded)
    lines += left_out(loaded.runs)
    from_loss = good[good["phase"].isin(["backward", "total"])]
    losses = sorted({loss for loss in from_loss["loss"] if loss})
    if losses:
        lines.append(f"Backward passes start from the family's loss: {'; '.join(losses)}.")
    if (good["precision"] == "cast").any():
        lines.append("bf16 and fp16 in eval: weights and input are cast (`cast`).")
    if (good["precision"] == "autocast").any():
        lines.append("bf16 and fp16 in train: autocast over fp32 weights (`autocast`).")
    lines += _variants_and_energy(good)
    lines += _device_settings(loaded)
    lines.append(
        "Peak memory on a CPU: the worker's resident size above that before the network was built."
    )
    out.bullets(lines)
    out.table(_environments(loaded), "The machines and software, one column per run.")


def _variants_and_energy(good: pd.DataFrame) -> list[str]:
    lines = []
    if good["runtime"].isin(EXPORTED).any() or (good["compile"] != "off").any():
        lines.append(
            "Peak memory of compiled and exported networks is not given on a CPU, where a "
            "compiler's cannot be told from the network's."
        )
    if (good["input"] == "host").any():
        lines.append(
            "Input on host: a pass copies the fp32 image to the device (on a CPU there is nothing "
            "to copy), brings it into dtype and layout, runs the forward and takes the argmax over "
            "the classes there."
        )
    told = sorted({text for text in good["energy"] if text})
    if told:
        lines.append(
            f"Energy ({'; '.join(told)}): joules while samples were taken, divided by their "
            "number; an idle machine's draw is included."
        )
    return lines


def _asked(loaded: Results) -> list[str]:
    """What the user asked for, a line per distinct settings."""
    lines = []
    for run in loaded.runs:
        for item in run["plan"]:
            s = item["settings"]
            wanted = [] if s["repeat"] is None else [f"{s['repeat']} samples per launch"]
            if s["target_ci"] is not None:
                wanted.append(f"an interval within {s['target_ci']:.1%}")
            if s["max_time_s"] is not None:
                wanted.append(f"at most {s['max_time_s']:g} s per case")
            if item["case"]["protocol"] == "paper":
                wanted = ["one sample per launch"]
            wanted.append(f"{s['launches'] or 'three or more'} launches")
            wanted.append(f"{s['order']} in random order, seed {s['seed']}")
            lines.append(f"Asked of `{item['case']['protocol']}`: {', '.join(wanted)}.")
    return list(dict.fromkeys(lines))


def _device_settings(loaded: Results) -> list[str]:
    """What the workers said of cuDNN and TF32, a line per device and setting."""
    said = {
        f"{facts['device_name']}: cuDNN autotuning {_on(facts['cudnn_benchmark'])}, "
        f"TF32 {_on(facts['tf32'])} (cuDNN {facts['cudnn']}, CUDA {facts['cuda']})."
        for facts in loaded.launches["device"]
        if "cudnn_benchmark" in facts
    }
    return sorted(said)


def _on(setting: bool) -> str:
    return "on" if setting else "off"


_ENVIRONMENT = {
    "created": "measured", "command": "command", "dabench": "dabench", "commit": "commit",
    "cpu": "CPU", "cpu_flags": "CPU features", "logical_cores": "logical cores",
    "physical_cores": "physical cores", "usable_cores": "usable cores", "memory_bytes": "memory",
    "gpus": "GPUs", "driver": "GPU driver", "cuda": "CUDA", "cudnn": "cuDNN", "os": "system",
    "python": "Python", "torch": "torch", "threads": "default threads",
    "cpu_capability": "torch CPU kernels", "governor": "CPU governor",
    "load_1min": "load before (1 min)", "variables": "environment variables",
    "packages": "packages",
}  # fmt: skip


def _environments(loaded: Results) -> pd.DataFrame:
    columns: dict[str, Sequence[str]] = {"": list(_ENVIRONMENT.values())}
    for run in loaded.runs:
        facts = {**run["environment"], "created": run["created"], "command": f"`{run['command']}`"}
        columns[run["run_id"]] = [_fact(key, facts.get(key)) for key in _ENVIRONMENT]
    return pd.DataFrame(columns)


def _fact(key: str, value: object) -> str:
    if value in (None, [], {}, ""):
        return "-"
    if key == "memory_bytes":
        return format_bytes(float(str(value)))
    if isinstance(value, dict):
        return ", ".join(f"{name}={setting}" for name, setting in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
