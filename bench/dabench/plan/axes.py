"""The axes of a sweep: the one table that grids, cases, options, columns and tables are made from.

An axis is an entry here, a field of `Grid`, of `Case` and of
`dabench.records.measurements.Measurement`, and what it does in
`dabench.network.workload`; a test holds these together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, get_args

from dabench.base.errors import bad_value, check_choice
from dabench.base.units import parse_shape, parse_size
from dabench.plan.references import FORMS
from dabench.plan.trained import is_trained

if TYPE_CHECKING:
    from dabench.plan.cases import Case

Mode = Literal["train", "eval"]
Dtype = Literal["fp32", "tf32", "bf16", "fp16", "int8"]
MemoryFormat = Literal["nchw", "nhwc"]
Protocol = Literal["steady", "paper", "stream", "throughput"]
Phase = Literal["forward", "backward", "optimizer", "total"]
Compile = Literal["off", "default", "reduce-overhead", "max-autotune", "freeze"]
Fuse = Literal["off", "on"]
Runtime = Literal["eager", "cuda-graph", "onnxruntime", "openvino", "tensorrt"]
Input = Literal["device", "host"]
Allocator = Literal["default", "keep"]

MODES: tuple[str, ...] = get_args(Mode)
DTYPES: tuple[str, ...] = get_args(Dtype)
MEMORY_FORMATS: tuple[str, ...] = get_args(MemoryFormat)
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
PHASES: tuple[str, ...] = get_args(Phase)
COMPILES: tuple[str, ...] = get_args(Compile)
FUSES: tuple[str, ...] = get_args(Fuse)
RUNTIMES: tuple[str, ...] = get_args(Runtime)
INPUTS: tuple[str, ...] = get_args(Input)
ALLOCATORS: tuple[str, ...] = get_args(Allocator)
DEVICE_KINDS = ("auto", "cpu", "cuda", "mps", "xla")

OPTIONAL = "?"
"""Ends a dtype that is left out where the device would only emulate it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        key: Its name in grid files, cases and records.
        field: Name of the field of `Grid` that holds its values.
        help: Help text of its command-line option.
        choices: The values allowed, where they can be listed.
        usual: Default values; empty leaves the default to the network or to torch.
        plain: The value of a case that a variant does not name; the first usual one, as a rule.
        required: Whether the user must give a value.
        form: The values allowed in words, where they cannot be listed; for error messages.
        read: Parses a value from text; raises ValueError.
        choice: Maps a value to the one of ``choices`` it must be, such as ``cuda:1`` to ``cuda``.
        ok: Whether a parsed value is allowed.
        written: A value as the user would write it.
        part: Maps a case to this axis's part of its id; None leaves the axis out of the id.
        variant: Whether it changes how a network is run and not what it computes.
        columns: Names of its columns in the records.
        heading: Heading of its column in printed tables.
        cell: Maps a row of the measurements to the text in that column.
        unsaid: What that says where there is nothing to say.
    """

    key: str
    field: str
    help: str
    choices: tuple[str, ...] = ()
    usual: tuple[Any, ...] = ()
    plain: Any = None
    required: bool = False
    form: str = ""
    read: Callable[[str], Any] = str
    choice: Callable[[Any], str] = str
    ok: Callable[[Any], bool] = lambda value: True
    written: Callable[[Any], object] = lambda value: value
    part: Callable[[Case], str | None]
    variant: bool = False
    columns: tuple[str, ...]
    heading: str
    cell: Callable[[Any], str]
    unsaid: str = ""

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return "--" + self.key.replace("_", "-")

    def parse(self, value: object) -> Any:
        """Reads one value, from text or from TOML.

        Raises:
            UsageError: The text is none of this axis.
        """
        try:
            return self.read(str(value).strip())
        except ValueError:
            raise bad_value(self.option, value, self.form) from None

    def check(self, value: Any) -> None:
        """Checks one value.

        Raises:
            UsageError: It will not do; the message says what will.
        """
        if self.choices:
            check_choice(self.option, self.choice(value), self.choices)
        if not self.ok(value):
            raise bad_value(self.option, self.written(value), self.form)


def _axis(key: str, field: str, text: str, **rest: Any) -> Axis:
    """An axis whose values are written, recorded and shown as they are."""
    usual: dict[str, Any] = {
        "plain": next(iter(rest.get("usual", ())), None),
        "part": lambda case: str(getattr(case, key)),
        "columns": (key,),
        "heading": key,
        "cell": lambda row: str(getattr(row, key)),
    }
    return Axis(key=key, field=field, help=text, **{**usual, **rest})


def _variant(key: str, field: str, text: str, **rest: Any) -> Axis:
    """A way of running a network; as usual it is not named."""

    def part(case: Case) -> str | None:
        value = getattr(case, key)
        return None if value == axis.plain else f"{key}={value}"

    axis = _axis(
        key, field, text, **rest, variant=True, part=part, heading="variant", cell=variant_of
    )
    return axis


def _switch(off: str, on: str) -> Callable[[str], str]:
    """Reads TOML's booleans as two of the choices."""
    return lambda text: {"true": on, "false": off}.get(text.lower(), text)


def _kind(name: str) -> str:
    return name.partition(":")[0]


def _positive(value: int) -> bool:
    return value >= 1


def _images(text: str) -> str:
    return str(int(text)) if text.isdecimal() else text


def _calibrates(value: str) -> bool:
    return value == DYNAMIC or (value.isdecimal() and int(value) >= 1)


def _input(text: str) -> Any:
    return parse_shape(text) if text[:1].isdecimal() else text


def _shape(values: Any) -> str:
    return f"{values.channels}x{values.height}x{values.width}"


INT8, NO_CALIBRATION, DYNAMIC, ALL = "int8", "none", "dynamic", "none"
"""The dtype of what is quantised; values of `calibration` where nothing is, and where each pass
finds its own ranges; that of ``keep_float`` where every layer is quantised."""
BY_DEFAULT, KEEP = ALLOCATORS
"""Values of ``allocator``: whether the C library gives freed memory back to the system, or not."""

KEPT = "memory kept"
"""What `KEEP` is called where ways are named."""
CALIBRATION, RANDOM = "32", "4"
"""Images that calibrate where nobody says how many: of a trained network's target, and random ones,
of which more say no more."""


def variant_name(
    compile_mode: str,
    fuse: str,
    runtime: str,
    source: str,
    calibration: str = NO_CALIBRATION,
    keep_float: str = ALL,
    allocator: str = BY_DEFAULT,
) -> str:
    """A variant in words: ``eager``, ``fused``, ``compile default, fused``, ``openvino``.

    Args:
        compile_mode: Of `Case`, as the others.
        fuse: Likewise.
        runtime: Likewise.
        source: ``device`` or ``host``, where the input lies.
        calibration: ``none`` where it is not to be named.
        keep_float: Layers that stay in fp32.
        allocator: What becomes of freed memory.
    """
    parts = [] if compile_mode == "off" else [f"compile {compile_mode}"]
    parts += ["fused"] if fuse == "on" else []
    parts += [] if runtime == "eager" else [runtime]
    if calibration == DYNAMIC:
        parts.append("dynamic ranges")
    elif calibration != NO_CALIBRATION:
        parts.append(f"calibrated on {calibration}")
    parts += [] if keep_float == ALL else [f"{keep_float} in fp32"]
    parts += [KEPT] if allocator == KEEP else []
    name = ", ".join(parts) or EAGER
    return name if source == "device" else f"{name}, input on host"


def variant_of(row: Any) -> str:
    """The variant of a case or of a row of the measurements, in words.

    A calibration is named where it is not as usual.
    """
    as_usual = row.calibration == usual_calibration(row.model)
    return variant_name(
        row.compile,
        row.fuse,
        row.runtime,
        row.input,
        NO_CALIBRATION if as_usual else row.calibration,
        row.keep_float,
        row.allocator,
    )


def variant_in(row: Mapping[Any, Any], **instead: str) -> str:
    """`variant_of` a row that is a mapping; what it lacks is plain."""
    return variant_of(SimpleNamespace(**{"model": "", **VARIANT_AXES, **row, **instead}))


def usual_calibration(model: str) -> str:
    """How many images calibrate a network where nobody says it."""
    return CALIBRATION if is_trained(model) else RANDOM


EAGER = "eager"
"""The variant that torch runs as it is."""

AXES: Mapping[str, Axis] = MappingProxyType(
    {
        axis.key: axis
        for axis in (
            _axis("model", "models", f"Names of 'dabench models', or {FORMS}.", required=True),
            _axis(
                "device",
                "devices",
                "auto (the best there is), cpu, cuda[:N], mps, xla.",
                usual=("auto",),
                choices=DEVICE_KINDS,
                choice=_kind,
            ),
            _axis(
                "batch",
                "batches",
                "Images per pass. Default 1.",
                usual=(1,),
                read=int,
                ok=_positive,
                form="it takes whole numbers of at least 1",
                part=lambda case: f"b{case.batch}",
            ),
            _axis(
                "size",
                "sizes",
                "HxW of the input. Default: the model's own.",
                read=parse_size,
                ok=lambda size: min(size) >= 1,
                written=lambda size: "x".join(map(str, size)),
                form="it takes HxW, such as 512x1024; no side may be below 1",
                part=_shape,
                columns=("channels", "height", "width"),
                cell=_shape,
            ),
            _axis("mode", "modes", "Default eval.", usual=("eval",), choices=MODES),
            _axis(
                "phase",
                "phases",
                "Default: all of the mode.",
                choices=PHASES,
                part=lambda case: None,
            ),
            _axis(
                "dtype",
                "dtypes",
                "With a ?: only if native. Default fp32.",
                usual=("fp32",),
                choices=DTYPES,
                choice=lambda name: name.removesuffix(OPTIONAL),
            ),
            _axis(
                "memory_format",
                "memory_formats",
                "Default nchw.",
                usual=("nchw",),
                choices=MEMORY_FORMATS,
                heading="layout",
            ),
            _axis(
                "threads",
                "threads",
                "Threads of CPU kernels. Default: torch's.",
                read=int,
                ok=lambda threads: 1 <= threads <= 4096,
                form="it takes whole numbers from 1 to 4096",
                part=lambda case: f"t{case.threads}" if case.threads else "tdefault",
                cell=lambda row: f"{row.threads} threads",
            ),
            _variant(
                "compile",
                "compiles",
                "torch.compile; compiling is not timed. Default off.",
                usual=("off",),
                choices=COMPILES,
                read=_switch("off", "default"),
            ),
            _variant(
                "fuse",
                "fuses",
                "Fold batch norm into convolutions. Default off.",
                usual=("off",),
                choices=FUSES,
                read=_switch("off", "on"),
            ),
            _variant(
                "runtime",
                "runtimes",
                "What runs the network. Default eager.",
                usual=("eager",),
                choices=RUNTIMES,
            ),
            _variant(
                "input",
                "inputs",
                "host: the copy to the device and the argmax belong to the pass. Default device. "
                "CxHxW: the input's shape.",
                usual=("device",),
                choices=INPUTS,
                read=_input,
                form="it takes device, host or CxHxW, such as 3x512x1024",
            ),
            _variant(
                "calibration",
                "calibrations",
                "Images that int8's ranges are found on: of a trained network's target, else "
                f"random. {DYNAMIC}: in each pass. Default {CALIBRATION}, random ones {RANDOM}.",
                plain=NO_CALIBRATION,
                unsaid=NO_CALIBRATION,
                read=_images,
                ok=_calibrates,
                form=f"it takes a number of images, such as {CALIBRATION}, or {DYNAMIC}",
            ),
            _variant(
                "keep_float",
                "keep_floats",
                "Layers that int8 leaves in fp32: heads (the last ones), or a module's name. "
                f"Default {ALL}.",
                usual=(ALL,),
                ok=bool,
                form="it takes heads, or the name of a module, such as conv_out",
            ),
            _variant(
                "allocator",
                "allocators",
                "keep: a CPU's freed memory stays with the process, which glibc by default gives "
                f"back and takes anew in each pass. Default {BY_DEFAULT}.",
                usual=(BY_DEFAULT,),
                choices=ALLOCATORS,
            ),
            _axis("protocol", "protocols", "Default steady.", usual=("steady",), choices=PROTOCOLS),
            _axis(
                "rate",
                "rates",
                "Frames per second of --protocol stream.",
                read=float,
                ok=lambda rate: 0 < rate < math.inf,
                form="it takes frames per second, such as 30",
                part=lambda case: f"{case.rate!r}hz".replace(".0hz", "hz") if case.rate else None,
                cell=lambda row: f"{row.rate:.9g} Hz" if row.rate else "-",
                unsaid="-",
            ),
            _axis(
                "concurrency",
                "concurrencies",
                "Processes that share the device at once. Default 1.",
                usual=(1,),
                read=int,
                ok=lambda count: 1 <= count <= 256,
                form="it takes whole numbers from 1 to 256",
                part=lambda case: f"x{case.concurrency}" if case.concurrency > 1 else None,
                heading="at once",
                unsaid="1",
            ),
        )
    }
)
"""By key, in the order of case ids, options and columns of tables."""

VARIANT_AXES: Mapping[str, str] = MappingProxyType(
    {axis.key: axis.plain for axis in AXES.values() if axis.variant}
)
"""Axis -> its plain value, which names nothing in a case's id or a table."""


def columns_of(*left_out: str) -> list[str]:
    """Columns of records that hold the axes, but for some of these."""
    return [name for axis in AXES.values() if axis.key not in left_out for name in axis.columns]
