"""Ways to run a network by name: ``nhwc+fuse``, ``openvino+bf16``, ``compile=freeze``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from dabench.base.errors import bad_value
from dabench.plan.axes import AXES, COMPILES, DTYPES, MEMORY_FORMATS, OPTIONAL, RUNTIMES

if TYPE_CHECKING:
    from dabench.plan.cases import Case

PLAIN = "plain"
"""torch as it is, in fp32 and NCHW."""

AXES_OF_WAYS = ("runtime", "compile", "memory_format", "fuse", "dtype")
"""Keys of axes that make a way, in the order of its name."""

USUAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cpu": (
            PLAIN, "nhwc", "fuse", "nhwc+fuse", "nhwc+fuse+bf16?", "onnxruntime", "openvino",
            "openvino+bf16?",
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

_FORM = (
    f"it takes {PLAIN}, or words joined by +: a runtime ({', '.join(RUNTIMES[1:])}), compile or "
    f"compile=MODE ({', '.join(COMPILES[1:])}), a layout ({', '.join(MEMORY_FORMATS)}), fuse, a "
    f"precision ({', '.join(DTYPES)}; with a ? only where it is native)"
)


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
    known: dict[str, Sequence[str]] = {
        "runtime": RUNTIMES[1:],
        "memory_format": MEMORY_FORMATS,
        "dtype": (*DTYPES, *(dtype + OPTIONAL for dtype in DTYPES)),
    }
    if word == "fuse":
        return "fuse", "on"
    return next(((axis, word) for axis, words in known.items() if word in words), ("", ""))


def way_name(case: Case) -> str:
    """The name of the way in which a case runs its network."""
    words = []
    for key in AXES_OF_WAYS:
        value = getattr(case, key)
        if value != AXES[key].usual[0]:
            word = {"fuse": "fuse", "compile": f"compile={value}"}.get(key, value)
            words.append("compile" if word == "compile=default" else word)
    return "+".join(words) or PLAIN
