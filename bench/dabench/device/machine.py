"""The machine and its software, as a record beside every measurement."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import dabench_models
from dabench.base.cores import usable_cores
from dabench.base.files import slug
from dabench.device.processor import cpu_flags, cpu_model

VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "GOMP_CPU_AFFINITY",
    "KMP_BLOCKTIME", "LD_PRELOAD", "MALLOC_CONF", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE",
    "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ENABLE_MPS_FALLBACK",
    "DABENCH_PRETRAINED",
)  # fmt: skip

# What else may run or make a network.
_PACKAGES = (
    "torchvision", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "timm",
    "segmentation-models-pytorch",
)  # fmt: skip

_MATRIX_FLAGS = (
    "amx_fp16", "amx_bf16", "amx_tile", "avx512_fp16", "avx512_bf16", "avx512f", "avx2", "bf16",
    "amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm",
)  # fmt: skip
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")

MACHINE = (
    "cpu", "logical_cores", "usable_cores", "cpu_capability", "gpus", "driver", "cuda", "cudnn",
    "torch", "variables",
)  # fmt: skip
"""What decides how fast this machine can be."""

FINGERPRINT = (*MACHINE, "python", "threads", "dabench", "commit", "packages")
"""What must be equal for two records to be of one machine, software and setting."""


HARDWARE = ("cpu", "logical_cores", "usable_cores", "gpus")
"""Facts in which two machines must agree for their times to be compared at all."""

SOFTWARE = (
    "torch", "cuda", "cudnn", "driver", "cpu_capability", "variables", "packages", "python",
    "threads", "governor",
)  # fmt: skip
"""Facts in which they must agree for a difference to be the networks' own."""


def machine_key(environment: Mapping[str, Any]) -> str:
    """A machine's identity, fit for a file name.

    Of nothing that changes with its clock rate, its load, a reboot or an upgrade.
    """
    facts = {name: environment.get(name) or None for name in HARDWARE}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    name = facts["gpus"][0] if facts["gpus"] else facts["cpu"]
    return f"{slug(str(name))[:40]}-{digest[:8]}"


def processor(environment: Mapping[str, Any]) -> str:
    """The name of a machine's processor; of what another tool measured it may not be known."""
    return str(environment.get("cpu") or "unknown processor")


def differing(one: Mapping[str, Any], other: Mapping[str, Any], facts: Sequence[str]) -> str | None:
    """The first fact in which two machines differ, in words; what one does not know is none."""
    for name in facts:
        if name in one and name in other and one[name] != other[name]:
            return f"{name} {json.dumps(one[name])} and {json.dumps(other[name])}"
    return None


def describe_host() -> dict[str, Any]:
    """The machine without its accelerators; imports neither torch nor pandas."""
    return {
        "cpu": cpu_model() or platform.machine(),
        "cpu_flags": [flag for flag in _MATRIX_FLAGS if flag in cpu_flags()],
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": psutil.virtual_memory().available,
        "load_1min": round(psutil.getloadavg()[0], 2),
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "dabench": version_of("dabench"),
        "commit": git_commit(),
        "packages": {name: version_of(name) for name in _PACKAGES if version_of(name)},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def describe_torch() -> dict[str, Any]:
    """Torch and the devices it sees; call it in a worker, since it may touch a GPU."""
    import torch

    from dabench.device.registry import available_devices, open_device

    gpus = []
    driver = None
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        driver = _nvidia_driver()
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "cuda": torch.version.cuda if gpus else None,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "driver": driver,
        "gpus": gpus,
        "devices": available_devices(),
        "native": {kind: list(open_device(kind).native_dtypes()) for kind in available_devices()},
    }


def difference(
    then: Mapping[str, Any], now: Mapping[str, Any], facts: Sequence[str] = FINGERPRINT
) -> str | None:
    """The first fact in which two machines differ, in words; None if they are the same."""
    for name in facts:
        if then.get(name) != now.get(name):
            return (
                f"{name} was {json.dumps(then.get(name))}, here it is {json.dumps(now.get(name))}"
            )
    return None


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the checkout this code runs from, ``-dirty`` if changed."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        try:
            shown = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False
            )
        except OSError:
            return ""
        return shown.stdout.strip()

    # An installed copy may lie inside a checkout of something else.
    if not git("ls-files", here.name):
        return None
    return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or None


def source_digest() -> str:
    """Of the files of dabench and its networks, as they are installed here."""
    digest = hashlib.sha256()
    here = Path(__file__).parents[1]
    for package in (here, Path(dabench_models.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def advice(host: dict[str, Any]) -> list[str]:
    """What would make timings on this host steadier or faster, one line each."""
    lines = []
    governor = host["governor"]
    if governor not in (None, "performance"):
        lines.append(
            f"CPU governor is {governor!r}: clocks follow the load; "
            "set it with 'cpupower frequency-set -g performance'"
        )
    cores = host["logical_cores"] or 1
    if host["load_1min"] > 0.2 * cores:
        lines.append(
            f"load is {host['load_1min']} on {cores} cores: other programs are running; "
            "stop them or expect wide intervals"
        )
    if host["usable_cores"] < cores:
        lines.append(
            f"only {host['usable_cores']} of {cores} cores are usable here (affinity); "
            "name --threads so that reports say the same"
        )
    lines += [
        f"{name}={host['variables'][name]} sets the threads; --threads overrides"
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        if name in host["variables"]
    ]
    if "hypervisor" in cpu_flags():
        lines.append(
            "this is a virtual machine: neighbours may take time unseen; "
            "use --launches 6 or more and compare within one run"
        )
    return lines


def _nvidia_driver() -> str | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
