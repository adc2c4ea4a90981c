"""Which precisions a machine computes in, and which it only emulates.

An emulated precision runs, many times slower than fp32, without an error: what
is native is read from the processor's flags and the libraries' own limits, never
found out by a trial.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping

# ONEDNN_MAX_CPU_ISA, weakest first, as oneDNN orders what it allows (dnnl_types.h).
_ISAS = (
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16", "AVX10_1_512", "AVX512_CORE_FP16", "AVX10_1_512_AMX", "AVX512_CORE_AMX",
    "AVX10_1_512_AMX_FP16", "AVX512_CORE_AMX_FP16", "ALL",
)  # fmt: skip
_LIMIT_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

# Any of these computes products in the precision; avx_ne_convert, say, only converts.
_X86_FLAGS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
# oneDNN takes AVX10_1_512 and AVX512_CORE_FP16 for the same.
_X86_LEAST = {"bf16": "AVX512_CORE_BF16", "fp16": "AVX10_1_512"}
# Dot products of four bytes, and the least that lets them be used; Arm's.
_X86_INT8 = {
    "avx_vnni": "AVX2_VNNI", "avx512_vnni": "AVX512_CORE_VNNI", "amx_int8": "AVX512_CORE_AMX",
}  # fmt: skip
_ARM_INT8 = {"asimddp", "i8mm"}
_ARM_FLAGS = {"bf16": ("bf16",), "fp16": ()}


def native_on_cpu(
    flags: Collection[str],
    variables: Mapping[str, str] = os.environ,
    machine: str | None = None,
) -> tuple[str, ...]:
    """Precisions that a processor computes in with torch's libraries.

    Args:
        flags: Of ``/proc/cpuinfo``.
        variables: Environment variables; oneDNN's limit is among them.
        machine: `platform.machine`.
    """
    machine = machine or platform.machine()
    if machine.lower() in ("arm64", "aarch64"):
        return ("fp32", *(d for d, any_of in _ARM_FLAGS.items() if set(any_of) & set(flags)))
    level = _level(variables)
    return (
        "fp32",
        *(
            dtype
            for dtype, any_of in _X86_FLAGS.items()
            if set(any_of) & set(flags) and level >= _ISAS.index(_X86_LEAST[dtype])
        ),
    )


def int8_dot_products(
    flags: Collection[str],
    variables: Mapping[str, str] = os.environ,
    machine: str | None = None,
) -> bool:
    """Whether a processor adds up products of bytes at once; arguments as of `native_on_cpu`.

    Others put them together from products of 16 bits, which is no emulation but takes longer.
    """
    machine = machine or platform.machine()
    if machine.lower() in ("arm64", "aarch64"):
        return bool(_ARM_INT8 & set(flags))
    level = _level(variables)
    return any(flag in flags and level >= _ISAS.index(least) for flag, least in _X86_INT8.items())


def _level(variables: Mapping[str, str]) -> int:
    """Place in `_ISAS` of what oneDNN may use."""
    limit = next((variables[name] for name in _LIMIT_VARIABLES if name in variables), "ALL").upper()
    # A name that oneDNN does not know is no limit to it either.
    return _ISAS.index(limit) if limit in _ISAS else len(_ISAS)


def emulates(native: Collection[str], dtype: str) -> bool:
    """Whether a device of these native precisions only emulates another one."""
    return dtype not in native and dtype != "int8"


def native_on_cuda(capability: tuple[int, int]) -> tuple[str, ...]:
    """Precisions of an NVIDIA GPU by its compute capability (CUDA C++ Programming Guide)."""
    found = ["fp32"]
    if capability >= (8, 0):
        found += ["tf32", "bf16"]
    # 6.1 has it at 1/64 of the rate of fp32.
    if capability >= (5, 3) and capability != (6, 1):
        found.append("fp16")
    return tuple(found)


NATIVE_ON_MPS = ("fp32", "fp16")
"""bf16 depends on chip and system, and nothing says so."""
