"""Ways to run a network by name: ``nhwc+fuse``, ``openvino+bf16``, ``compile=freeze``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from dabench.base.errors import bad_value
from dabench.plan.axes import (
    AXES,
    COMPILES,
    DTYPES,
    KEEP,
    MEMORY_FORMATS,
    OPTIONAL,
    RUNTIMES,
    usual_calibration,
)

if TYPE_CHECKING:
    from dabench.plan.cases import Case

PLAIN = "plain"
"""torch as it is, in fp32 and NCHW."""

AXES_OF_WAYS = (
    "runtime", "compile", "memory_format", "fuse", "dtype", "calibration", "keep_float",
    "allocator",
)  # fmt: skip
"""Keys of axes that make a way, in the order of its name."""

COMPUTING = AXES_OF_WAYS[:-1]
"""Of them those on which it depends what is computed, and so how right it is."""

USUAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cpu": (
            PLAIN, "nhwc", "fuse", "nhwc+fuse", "nhwc+fuse+keep", "nhwc+fuse+bf16?", "onnxruntime",
            "openvino", "openvino+bf16?", "onnxruntime+int8", "openvino+int8",
        ),
        "cuda": (
            PLAIN, "nhwc", "nhwc+tf32", "nhwc+fp16", "cuda-graph", "cuda-graph+nhwc+fp16",
            "compile+nhwc+fp16", "tensorrt+fp16",
        ),
        "mps": (PLAIN, "nhwc", "nhwc+fp16"),
        "xla": (PLAIN, "bf16"),
    }
)  # fmt: skip
"""Kind of device -> ways that are tried there; torch.compile takes a CPU minutes a network."""


def usual_ways(kind: str, *, keeps: bool) -> tuple[str, ...]:
    """The ways that are tried where nobody names any.

    Args:
        kind: Of device.
        keeps: Whether freed memory can be kept there.
    """
    return tuple(way for way in USUAL[kind] if keeps or KEEP not in way.split("+"))


_FORM = (
    f"it takes {PLAIN}, or words joined by +: a runtime ({', '.join(RUNTIMES[1:])}), compile or "
    f"compile=MODE ({', '.join(COMPILES[1:])}), a layout ({', '.join(MEMORY_FORMATS)}), fuse, a "
    f"precision ({', '.join(DTYPES)}; with a ? only where it is native), calibration=N "
    f"and keep-float=LAYERS of int8, or {KEEP} (freed memory stays with the process)"
)


_VALUED = {AXES[key].option.lstrip("-"): key for key in ("calibration", "keep_float")}
"""Words of ways that have a value behind them -> axis."""


def parse_way(text: str) -> dict[str, str]:
    """Axis -> value of a way; what it does not name is as usual.

    Raises:
        UsageError: No such way.
    """
    found: dict[str, str] = {}
    for word in [] if text == PLAIN else text.split("+"):
        axis, value = _read(word)
        if not axis or axis in found:
            raise bad_value("--ways", text, _FORM)
        found[axis] = value
    return found


def _read(word: str) -> tuple[str, str]:
    """The axis that a word is of, and its value; two empty texts for none."""
    name, _, mode = word.partition("=")
    if name == "compile" and (mode or "default") in COMPILES[1:] and word != "compile=":
        return "compile", mode or "default"
    if mode and name in _VALUED:
        return _VALUED[name], mode
    known: dict[str, Sequence[str]] = {
        "runtime": RUNTIMES[1:],
        "memory_format": MEMORY_FORMATS,
        "dtype": (*DTYPES, *(dtype + OPTIONAL for dtype in DTYPES)),
        "allocator": (KEEP,),
    }
    if word == "fuse":
        return "fuse", "on"
    return next(((axis, word) for axis, words in known.items() if word in words), ("", ""))


def way_name(case: Case) -> str:
    """The name of the way in which a case runs its network."""
    words = []
    for key in AXES_OF_WAYS:
        value = getattr(case, key)
        as_usual = key == "calibration" and value == usual_calibration(case.model)
        if value != AXES[key].plain and not as_usual:
            words.append(_named(key, value))
    return "+".join(words) or PLAIN


def _named(key: str, value: str) -> str:
    """The word of a way for a value that is not the plain one."""
    if key == "compile" and value != "default":
        return f"compile={value}"
    if key in _VALUED.values():
        return f"{AXES[key].option.lstrip('-')}={value}"
    return key if key in ("compile", "fuse") else value
