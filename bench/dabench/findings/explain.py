"""Why one network is, or is not, as much faster than another as its operations promise.

Plain words made from a profile's numbers; every sentence names the rows of a
table that it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dabench.base.errors import DabenchError
from dabench.base.units import format_bytes, format_count, format_seconds, significant
from dabench.findings.trials import Trial, changed
from dabench.profiling.roofline import COMPUTE, LAUNCH, MEMORY, SLOW, SLOW_FRACTION, format_roof
from dabench.records.measurements import SYSTEM_LIMIT
from dabench.records.profiles import REMAINDER, LayerRow, ModelRow

BASE = "fp32 nchw"
"""The setting an explanation starts from: torch's defaults, and the paper's."""

NAMED_LAYERS = 4
CLEAR_GAIN = 1.05

EVIDENCE_COLUMNS = (
    "row", "network", "setting", "what", "time", "FLOP", "bytes", "of the roof", "bound",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One network in one setting: all its phases together."""

    model: str
    setting: str
    rows: tuple[ModelRow, ...]
    layers: tuple[LayerRow, ...]

    @property
    def seconds(self) -> float:
        return sum(row.median_s or 0.0 for row in self.rows)

    @property
    def low_s(self) -> float:
        return sum(row.ci_low_s or 0.0 for row in self.rows)

    @property
    def high_s(self) -> float:
        return sum(row.ci_high_s or 0.0 for row in self.rows)

    @property
    def roof_s(self) -> float:
        return sum(row.roof_s or 0.0 for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops or 0 for row in self.rows)

    @property
    def executed_flops(self) -> int:
        return sum(row.executed_flops or 0 for row in self.rows)

    @property
    def moved_bytes(self) -> int:
        return sum(row.moved_bytes or 0 for row in self.rows)

    def bound_s(self, bound: str) -> float:
        """Time in layers with this bound."""
        return sum(layer.median_s for layer in self.layers if layer.bound == bound)


@dataclass(slots=True)
class Explanation:
    """The text and the table it rests on.

    Attributes:
        sentences: In order; numbers in brackets are rows of the evidence.
        evidence: Rows of `EVIDENCE_COLUMNS`.
    """

    sentences: list[str] = field(default_factory=list)
    evidence: list[tuple[str, ...]] = field(default_factory=list)

    def say(self, text: str, *rows: int) -> None:
        """Adds a sentence with its rows."""
        self.sentences.append(f"{text} [{', '.join(map(str, dict.fromkeys(rows)))}]")

    def whole(self, run: Run) -> int:
        """The row of a network as a whole; returns its number."""
        bounds = {row.bound or "-" for row in run.rows}
        interval = f"{format_seconds(run.low_s)} to {format_seconds(run.high_s)}"
        flops = format_count(run.flops)
        if run.executed_flops != run.flops:
            flops += f" ({format_count(run.executed_flops)} executed)"
        work = (flops, format_bytes(run.moved_bytes))
        what = f"whole pass ({interval})"
        return self._row(run, what, run.seconds, work, run.roof_s, ", ".join(sorted(bounds)))

    def part(self, run: Run, what: str, layers: Sequence[LayerRow]) -> int:
        """The row of some layers added up; returns its number."""
        bounds = {layer.bound for layer in layers if layer.bound}
        roof_s = sum(layer.roof_s or 0.0 for layer in layers)
        seconds = sum(layer.median_s for layer in layers)
        flops = sum(layer.executed_flops or 0 for layer in layers)
        moved = sum(layer.moved_bytes or 0 for layer in layers)
        work = (format_count(flops) if flops else "-", format_bytes(moved) if moved else "-")
        return self._row(run, what, seconds, work, roof_s, ", ".join(sorted(bounds)))

    def trial(self, trial: Trial, base: str) -> int:
        """The row of whole passes with one thing changed; returns its number."""
        interval = f"{format_seconds(trial.low_s)} to {format_seconds(trial.high_s)}"
        compiling = "" if trial.compile_s is None else f", compiled in {trial.compile_s:.0f} s"
        setting = ", ".join(filter(None, (base, trial.change)))
        share = trial.system_share
        system = "" if share is None else f", {share:.0%} the system's"
        what = f"one image, without hooks ({interval}{compiling}{system})"
        seconds = format_seconds(trial.seconds)
        return self._cells((trial.model, setting, what, seconds, "-", "-", "-", "-"))

    def _row(
        self, run: Run, what: str, seconds: float, work: tuple[str, str], roof_s: float, bound: str
    ) -> int:
        roof = format_roof(roof_s / seconds) if seconds > 0 and roof_s else "-"
        cells = (run.model, run.setting, what, format_seconds(seconds), *work, roof, bound or "-")
        return self._cells(cells)

    def _cells(self, cells: tuple[str, ...]) -> int:
        for row in self.evidence:
            if row[1:] == cells:
                return int(row[0])
        self.evidence.append((str(len(self.evidence) + 1), *cells))
        return len(self.evidence)


def runs_of(models: Sequence[ModelRow], layers: Sequence[LayerRow]) -> dict[tuple[str, str], Run]:
    """Runs by (model, setting) of the cases that were profiled in full."""
    cases: dict[str, list[ModelRow]] = {}
    for row in models:
        cases.setdefault(row.case_id, []).append(row)
    found = {}
    for case_id, rows in cases.items():
        if all(row.status == "ok" for row in rows):
            run = Run(
                rows[0].model,
                setting_of(rows[0]),
                tuple(rows),
                tuple(layer for layer in layers if layer.case_id == case_id),
            )
            found[run.model, run.setting] = run
    return found


def setting_of(row: ModelRow) -> str:
    """What differs between the settings compared, such as ``fp32 nchw``."""
    return f"{row.dtype} {row.memory_format}"


def explain(
    first: str,
    second: str,
    runs: Mapping[tuple[str, str], Run],
    base: str,
    trials: Sequence[Trial] = (),
) -> Explanation:
    """Explains the times of two networks.

    Args:
        first: The network that is compared with, such as ``disc``.
        second: The one that should be faster, such as ``dw-disc``.
        runs: Both in the base setting, and in any others.
        base: The setting the explanation starts from.
        trials: Whole passes in the base setting with one thing changed.

    Raises:
        DabenchError: The operations of one of them were not counted.
    """
    a, b = runs[first, base], runs[second, base]
    for run in (a, b):
        if not (run.flops and run.executed_flops and run.roof_s):
            why = "; ".join(dict.fromkeys(row.reason for row in run.rows if row.reason))
            raise DabenchError(
                f"the operations of {run.model} in {run.setting} were not counted in full"
                f"{f' ({why})' if why else ''}: there is nothing to hold its time against"
            )
    text = Explanation()
    _promise(text, a, b)
    _bounds(text, a, b)
    _unseen(text, a, b)
    _slowest(text, b, runs)
    _settings(text, first, second, runs, base)
    _trials(text, first, second, trials, base)
    return text


def _promise(text: Explanation, a: Run, b: Run) -> None:
    """Operations against time, and what the roofs would give."""
    expected, measured = a.flops / b.flops, a.seconds / b.seconds
    low, high = a.low_s / b.high_s, a.high_s / b.low_s
    rows = (text.whole(a), text.whole(b))
    says = f"{b.model} is {_times(measured)} as fast as {a.model}"
    if low <= 1 <= high:
        says = f"the measurement does not decide which of {a.model} and {b.model} is faster"
    share = f"1/{significant(expected)} of" if expected >= 1 else _times(1 / expected)
    text.say(
        f"By operations {b.model} should take {share} {a.model}'s time "
        f"({format_count(b.flops)}FLOP against {format_count(a.flops)}FLOP for {_input(a)}); in "
        f"{a.setting} {says} "
        f"(ratio {significant(measured)}, {significant(low)} to {significant(high)} from the "
        "intervals of both).",
        *rows,
    )
    executed = a.executed_flops / b.executed_flops
    if executed != expected:
        only = "only " if executed < expected else ""
        text.say(
            f"Of what the kernels carry out, zeros of masks included, the ratio is {only}"
            f"{significant(executed)} ({format_count(a.executed_flops)}FLOP against "
            f"{format_count(b.executed_flops)}FLOP).",
            *rows,
        )
    at_roof = a.roof_s / b.roof_s
    text.say(
        f"{b.model} moves {format_bytes(b.moved_bytes)} against {format_bytes(a.moved_bytes)}: "
        f"with every layer at its roof on this machine the ratio would be {significant(at_roof)}, "
        f"not {significant(executed)}; so of the promise {_factor(executed / at_roof)} memory "
        f"traffic that operations do not count, and {_factor(at_roof / measured)} how far each "
        "network runs from its roof.",
        *rows,
    )


def _input(run: Run) -> str:
    row = run.rows[0]
    images = f"{row.batch} image{'s' if row.batch > 1 else ''}"
    return f"{images} of {row.channels}x{row.height}x{row.width}"


def _bounds(text: Explanation, a: Run, b: Run) -> None:
    """How the time of each divides over what holds it back."""
    for run in (a, b):
        shares, rows = [], []
        for bound in (COMPUTE, MEMORY, SLOW, LAUNCH):
            if run.bound_s(bound):
                layers = [layer for layer in run.layers if layer.bound == bound]
                rows.append(text.part(run, f"layers bound by {bound}", layers))
                shares.append(f"{run.bound_s(bound) / run.seconds:.0%} in {_BOUND_WORDS[bound]}")
        if rows:
            text.say(f"{run.model} spends {_listed(shares)}.", *rows)


_BOUND_WORDS = {
    COMPUTE: "layers near the compute roof",
    MEMORY: "layers near the memory roof",
    SLOW: f"kernels below {SLOW_FRACTION:.0%} of both roofs",
    LAUNCH: "layers that cost little more than calling them",
}


def _unseen(text: Explanation, a: Run, b: Run) -> None:
    """What no count of multiply-adds sees: activations, upsampling, the rest."""
    said, rows = [], []
    for run in (a, b):
        unseen = [r for r in run.layers if r.macs == 0]
        upsampling = [r for r in run.layers if r.stage == "upsampling"]
        between = [r for r in run.layers if r.macs is None and r.layer != REMAINDER]
        left = [r for r in run.layers if r.layer == REMAINDER]
        for what, layers in (
            ("layers without multiply-adds, such as LeakyReLU", unseen),
            ("upsampling", upsampling),
            ("between layers: calls, and memory given back", between),
            ("what no layer accounts for", left),
        ):
            if layers:
                rows.append(text.part(run, what, layers))
        share = sum(r.median_s for r in unseen) / run.seconds
        up = sum(r.median_s for r in upsampling) / run.seconds
        said.append(f"{share:.0%} of {run.model}'s time (and upsampling {up:.1%})")
    text.say(f"Layers without multiply-adds, such as LeakyReLU, take {' and '.join(said)}.", *rows)


def _slowest(text: Explanation, run: Run, runs: Mapping[tuple[str, str], Run]) -> None:
    """The layers that lose most against their roof, and where they would not."""
    losing = sorted(
        (layer for layer in run.layers if layer.bound in (SLOW, MEMORY) and layer.roof_s),
        key=lambda layer: (layer.roof_s or 0.0) - layer.median_s,
    )
    others = [other for (model, _), other in runs.items() if model == run.model]
    for layer in losing[:NAMED_LAYERS]:
        rows = [text.part(run, f"{layer.layer} ({layer.phase})", [layer])]
        best_run, best = min(
            ((o, m) for o in others for m in o.layers if _same(m, layer)),
            key=lambda pair: pair[1].median_s,
        )
        where = "no other setting measured is faster"
        if best_run.setting != run.setting and layer.median_s > CLEAR_GAIN * best.median_s:
            rows.append(text.part(best_run, f"{best.layer} ({best.phase})", [best]))
            where = (
                f"in {best_run.setting} it takes {format_seconds(best.median_s)} "
                f"({best.roof_fraction or 0:.0%} of that roof)"
            )
        state = "is memory-bound" if layer.bound == MEMORY else "runs far below both roofs"
        text.say(
            f"{run.model}'s {layer.layer} ({layer.kind}, {layer.phase}) {state}: "
            f"{format_seconds(layer.median_s)}, {layer.median_s / run.seconds:.0%} of the pass, at "
            f"{layer.roof_fraction or 0:.0%} of its roof; {where}.",
            *rows,
        )


def _same(other: LayerRow, layer: LayerRow) -> bool:
    return (other.layer, other.phase) == (layer.layer, layer.phase) and other.median_s > 0


def _settings(
    text: Explanation, first: str, second: str, runs: Mapping[tuple[str, str], Run], base: str
) -> None:
    """What the other settings do for each network, and which is best."""
    for model in (first, second):
        mine = {setting: run for (name, setting), run in runs.items() if name == model}
        start = mine[base]
        others = [run for setting, run in mine.items() if setting != base]
        if not others:
            continue
        others.sort(key=lambda run: run.seconds)
        rows = [text.whole(start), *(text.whole(run) for run in others)]
        listed = _listed(
            [
                f"{_times(start.seconds / run.seconds)} "
                f"{_range(start.low_s / run.high_s, start.high_s / run.low_s)} as fast in "
                f"{run.setting}"
                for run in others
            ]
        )
        text.say(f"{model}, against itself in {base}: {listed}; {_advice(start, others)}.", *rows)
    ratios, rows = [], []
    for name, setting in runs:
        if name == first and (second, setting) in runs:
            a, b = runs[first, setting], runs[second, setting]
            ratios.append(f"{significant(a.seconds / b.seconds)} in {setting}")
            rows += [text.whole(a), text.whole(b)]
    text.say(f"The ratio {first} / {second} is {_listed(ratios)}.", *rows)


def _advice(start: Run, others: Sequence[Run]) -> str:
    """What to try first: the same precision before a lower one, and only what clearly helps.

    Args:
        start: In the base setting.
        others: The same network in other settings, fastest first.
    """
    clear = [run for run in others if start.low_s > CLEAR_GAIN * run.high_s]
    if not clear:
        return f"none of them clearly beats {start.setting}"
    precision = start.setting.partition(" ")[0]
    same = [run for run in clear if run.setting.startswith(f"{precision} ")]
    if not same:
        return f"try {clear[0].setting} where that precision will do; none helps in {precision}"
    if clear[0] is same[0]:
        return f"try {same[0].setting} first"
    return f"try {same[0].setting} first, and {clear[0].setting} where that precision will do"


def _trials(text: Explanation, first: str, second: str, trials: Sequence[Trial], base: str) -> None:
    """What changes of another kind do, one at a time."""
    as_it_is = {trial.model: trial for trial in trials if not trial.change}
    for model in (first, second):
        mine = changed(trials, model)
        if not mine:
            continue
        rows = [text.trial(trial, base) for trial in (as_it_is[model], *mine)]
        listed = _listed(
            [f"{_times(t.gain[0])} {_range(*t.gain[1:])} with {t.change}" for t in mine]
        )
        clear = [t for t in mine if t.gain[1] > CLEAR_GAIN]
        best = max(clear, key=lambda t: t.gain[0], default=None)
        advice = f"{best.change} helps most" if best else "none of these clearly helps"
        text.say(
            f"{model} in {base} with one thing changed, in images per second: {listed}; {advice}.",
            *rows,
        )
        _handed_out(text, as_it_is[model], mine, base)
    ratios, rows = [], []
    for trial in (t for t in trials if t.against):
        assert trial.against is not None
        partner = [t for t in trials if (t.model, t.change) == (first, trial.change)]
        rows += [text.trial(t, base) for t in (*partner, trial)]
        ratio, low, high = trial.against
        how = f"with {trial.change}" if trial.change else "as it is"
        ratios.append(f"{significant(ratio)} {_range(low, high)} {how}")
    if ratios:
        text.say(f"The ratio {first} / {second} of these is {_listed(ratios)}.", *rows)


def _handed_out(text: Explanation, as_it_is: Trial, others: Sequence[Trial], base: str) -> None:
    """What the operating system takes for memory that is given back and taken anew."""
    kept = next((trial for trial in others if trial.keeps_memory), None)
    before, after = as_it_is.system_share, None if kept is None else kept.system_share
    if kept is None or before is None or after is None or kept.gain[1] <= CLEAR_GAIN:
        return
    if before <= SYSTEM_LIMIT or after > before / 2:
        return
    text.say(
        f"Of {as_it_is.model}'s processor time in {base} the operating system takes {before:.0%}, "
        f"and {after:.0%} with memory kept: the C library gives large blocks back when a layer is "
        "done, and every page of the next one is handed out anew.",
        text.trial(as_it_is, base),
        text.trial(kept, base),
    )


def _range(low: float, high: float) -> str:
    return f"({significant(low)} to {significant(high)})"


def _factor(lost: float) -> str:
    """A factor of a promise: lost where it is above one, else gained."""
    if lost >= 1:
        return f"a factor of {significant(lost)} is lost to"
    return f"a factor of {significant(1 / lost)} is gained through"


def _times(ratio: float) -> str:
    return f"{significant(ratio)} times"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
