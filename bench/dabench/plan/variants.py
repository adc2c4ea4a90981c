"""Ways to run a network that change its speed and not its function: which go together, and why not.

Torch-free, so that a plan can say what is impossible before anything is built;
`dabench.network.runtimes` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

from dabench.plan.axes import DYNAMIC, EAGER, INT8, KEEP, variant_of

if TYPE_CHECKING:
    from dabench.plan.cases import Case

ONNX = ("onnx", "onnxscript")
"""What exporting a network needs."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs a network in torch's place.

    Attributes:
        dtypes: Device -> dtypes it runs there; on others it is not offered.
        extra: The extra of dabench that installs it; None comes with torch.
            What has one runs an exported file.
        package: What is imported.
    """

    dtypes: Mapping[str, tuple[str, ...]]
    extra: str | None = None
    package: str = ""


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        "cuda-graph": Runtime({"cuda": ("fp32", "tf32", "bf16", "fp16")}),
        "onnxruntime": Runtime(
            {"cpu": ("fp32", "int8"), "cuda": ("fp32", "tf32")}, "onnxruntime", "onnxruntime"
        ),
        "openvino": Runtime({"cpu": ("fp32", "bf16", "int8")}, "openvino", "openvino"),
        "tensorrt": Runtime({"cuda": ("fp32", "tf32", "fp16")}, "onnxruntime", "onnxruntime"),
    }
)
"""All but ``eager``."""

EXPORTED = tuple(name for name, runtime in RUNTIMES.items() if runtime.extra)
"""Runtimes that run an exported file, not the module."""


QUANTISED = tuple(
    name
    for name, runtime in RUNTIMES.items()
    if any(INT8 in dtypes for dtypes in runtime.dtypes.values())
)
"""Runtimes that run an exported network in int8."""

ALLOWED_DIFFERENCE: Mapping[str, float] = MappingProxyType(
    {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2, "bf16": 1e-1, "int8": 5e-1}
)
"""Largest relative L2 difference from the plain network in fp32, by dtype."""

VARIANT_RULE = (
    "before a variant is timed its outputs are compared with those of the plain network in "
    "fp32, same weights (batch norms with random statistics) and input; a relative L2 difference "
    "(over the spread of the output) above "
    + ", ".join(f"{limit:g} in {dtype}" for dtype, limit in ALLOWED_DIFFERENCE.items())
    + " is a failed row; compile time is that of the case's first launch, caches empty, "
    "export, quantising and first pass included, imports and torch's trial of the machine's "
    "own compiler apart"
)


Installed = Callable[[str], bool]
"""Whether a package is installed where something runs."""

PACKAGES = tuple(
    dict.fromkeys([*ONNX, *(each.package for each in RUNTIMES.values() if each.package), "nncf"])
)
"""All that a variant may need."""


def is_installed(package: str) -> bool:
    """Whether a package is installed here."""
    return find_spec(package) is not None


def why_impossible(case: Case, installed: Installed = is_installed) -> str | None:
    """Why a case's variant cannot be had in its setting, or None.

    Args:
        case: The case.
        installed: Of the machine that it is to run on.
    """
    name = variant_of(case)
    if case.dtype == INT8 and case.runtime == "eager":
        return f"torch runs nothing in int8: networks are quantised for {' and '.join(QUANTISED)}"
    if name == EAGER:
        return None
    if case.allocator == KEEP and (case.device != "cpu" or case.runtime != "eager"):
        who = case.runtime if case.device == "cpu" else case.device
        return f"--allocator is of torch's kernels on a CPU, not of {who}; leave it out"
    if case.protocol == "paper":
        return f"the paper's protocol is of the plain forward, not of {name!r}"
    if case.mode == "train" and (
        case.fuse == "on" or case.runtime != "eager" or case.input == "host"
    ):
        return f"{name!r} is a way of inference; use --mode eval"
    if case.mode == "train" and case.compile == "freeze":
        return "frozen weights cannot be trained; use --mode eval"
    runtime = case.runtime
    if runtime == "eager":
        return None
    if case.compile != "off":
        return f"torch.compile compiles for torch, not for {runtime}; leave one out"
    elsewhere = _elsewhere(runtime, case.device.partition(":")[0], case.dtype)
    if elsewhere or runtime not in EXPORTED:
        return elsewhere
    if case.fuse == "on":
        return f"{runtime} folds batch norm by itself; leave --fuse off"
    if case.memory_format != "nchw":
        return f"{runtime} chooses its layouts by itself; use --memory-format nchw"
    if runtime == "openvino" and case.calibration == DYNAMIC:
        return "openvino finds no ranges in each pass; calibrate on images, or use onnxruntime"
    needed = dict.fromkeys((RUNTIMES[runtime].package, *ONNX), RUNTIMES[runtime].extra)
    if case.dtype == INT8:
        # What folds batch norms away before either quantiser.
        needed["onnxruntime"] = "onnxruntime"
    if case.dtype == INT8 and runtime == "openvino":
        needed["nncf"] = "nncf"
    missing = [package for package in needed if not installed(package)]
    if missing:
        return f"{missing[0]} is not installed; pip install 'dabench[{needed[missing[0]]}]'"
    return None


def _elsewhere(runtime: str, device: str, dtype: str) -> str | None:
    known = RUNTIMES[runtime].dtypes
    if device not in known:
        return f"{runtime} runs on {' and '.join(known)}, not on {device}"
    if dtype not in known[device]:
        return f"{runtime} is offered in {', '.join(known[device])} on {device}, not in {dtype}"
    return None
