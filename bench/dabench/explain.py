"""Why one network is, or is not, as much faster than another as its operations promise.

Plain words made from a profile's numbers; every sentence names the rows of a
table that it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dabench.errors import DabenchError
from dabench.profile_records import REMAINDER, LayerRow, ModelRow
from dabench.roofline import COMPUTE, LAUNCH, MEMORY, SLOW, SLOW_FRACTION
from dabench.units import format_bytes, format_count, format_seconds, significant

BASE = "fp32 nchw"
"""The setting an explanation starts from: torch's defaults, and the paper's."""

NAMED_LAYERS = 4
CLEAR_GAIN = 1.05

EVIDENCE_COLUMNS = ("row", "network", "setting", "what", "time", "of the roof", "bound")


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
        return self._row(
            run, f"whole pass ({interval})", run.seconds, run.roof_s, ", ".join(sorted(bounds))
        )

    def part(self, run: Run, what: str, layers: Sequence[LayerRow]) -> int:
        """The row of some layers added up; returns its number."""
        bounds = {layer.bound for layer in layers if layer.bound}
        roof_s = sum(layer.roof_s or 0.0 for layer in layers)
        seconds = sum(layer.median_s for layer in layers)
        return self._row(run, what, seconds, roof_s, ", ".join(sorted(bounds)))

    def _row(self, run: Run, what: str, seconds: float, roof_s: float, bound: str) -> int:
        roof = f"{roof_s / seconds:.0%}" if seconds > 0 and roof_s else "-"
        cells = (run.model, run.setting, what, format_seconds(seconds), roof, bound or "-")
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


def explain(first: str, second: str, runs: Mapping[tuple[str, str], Run], base: str) -> Explanation:
    """Explains the times of two networks.

    Args:
        first: The network that is compared with, such as ``disc``.
        second: The one that should be faster, such as ``dw-disc``.
        runs: Both in the base setting, and in any others.
        base: The setting the explanation starts from.

    Raises:
        DabenchError: The operations of one of them were not counted.
    """
    a, b = runs[first, base], runs[second, base]
    for run in (a, b):
        if not (run.flops and run.executed_flops and run.roof_s):
            raise DabenchError(
                f"the operations of {run.model} in {run.setting} were not counted: "
                "there is nothing to hold its time against"
            )
    text = Explanation()
    _promise(text, a, b)
    _bounds(text, a, b)
    _unseen(text, a, b)
    _slowest(text, b, runs)
    _settings(text, first, second, runs, base)
    return text


def _promise(text: Explanation, a: Run, b: Run) -> None:
    """Operations against time, and what the roofs would give."""
    expected, measured = a.flops / b.flops, a.seconds / b.seconds
    low, high = a.low_s / b.high_s, a.high_s / b.low_s
    rows = (text.whole(a), text.whole(b))
    says = f"{b.model} is {_times(measured)} as fast as {a.model}"
    if low <= 1 <= high:
        says = f"the measurement does not decide which of {a.model} and {b.model} is faster"
    text.say(
        f"By operations {b.model} should take 1/{significant(expected)} of {a.model}'s time "
        f"({format_count(b.flops)}FLOP against {format_count(a.flops)}FLOP); in {a.setting} {says} "
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
        unseen = [r for r in run.layers if not r.macs and r.layer != REMAINDER]
        upsampling = [r for r in run.layers if r.stage == "upsampling"]
        left = [r for r in run.layers if r.layer == REMAINDER]
        for what, layers in (
            ("layers without multiply-adds, such as LeakyReLU", unseen),
            ("upsampling", upsampling),
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
        gains = []
        for setting, run in mine.items():
            if setting != base:
                gain = start.seconds / run.seconds
                gains.append((gain, setting, text.whole(run)))
        if not gains:
            continue
        ordered = sorted(gains, reverse=True)
        listed = _listed([f"{_times(gain)} as fast in {setting}" for gain, setting, _ in ordered])
        best, setting, _ = max(gains)
        advice = (
            f"try {setting} first" if best > CLEAR_GAIN else f"none of them clearly beats {base}"
        )
        rows = [text.whole(start), *(row for *_, row in gains)]
        text.say(f"{model}, against itself in {base}: {listed}; {advice}.", *rows)
    ratios, rows = [], []
    for name, setting in runs:
        if name == first and (second, setting) in runs:
            a, b = runs[first, setting], runs[second, setting]
            ratios.append(f"{significant(a.seconds / b.seconds)} in {setting}")
            rows += [text.whole(a), text.whole(b)]
    text.say(f"The ratio {first} / {second} is {_listed(ratios)}.", *rows)


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
