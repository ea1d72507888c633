"""int8 on this CPU: which arithmetic onnxruntime runs, whether its sums need help to be exact, and whether it is quick.

Its kernels multiply unsigned activations by signed weights. Without instructions made for that (VNNI) they add pairs of
products up in 16 bits, which overflow; `session.x64quantprecision` makes onnxruntime use other kernels, with exact sums, that
take more than twice the time. It does so on every x86 CPU, also where the sums are exact anyway, so it must be set only where
they are not. All of that can go when onnxruntime's own choice of kernels has exact sums on every x86 CPU.

onnxruntime chooses the kernels from the CPU's features (`MLAS_PLATFORM` in onnxruntime/core/mlas/lib/platform.cpp, read at
1.32): with AVX-512 (F, BW, DQ, VL) those of AVX512-VNNI if there is that, else ones that overflow, whatever AVX-VNNI says;
without AVX-512 those of AVX-VNNI, else ones that overflow. AMX takes the place of the matrix product alone: convolutions stay
with the others, so AMX does not count by itself (every CPU that has it has AVX512-VNNI).
"""

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Arithmetic = Literal["avx512-vnni", "avx-vnni", "widened", "native"]
"""How int8 is multiplied and summed: by VNNI, by slower exact kernels of x86, or by another architecture's own kernels."""

CPUINFO = Path("/proc/cpuinfo")

VNNI: frozenset[Arithmetic] = frozenset({"avx512-vnni", "avx-vnni"})

_X86 = frozenset({"x86_64", "amd64"})
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
_ARM_DOT_PRODUCTS = frozenset({"asimddp", "i8mm"})
# The line of /proc/cpuinfo that lists a processor's features: on x86, and on ARM.
_FEATURE_LINES = frozenset({"flags", "Features"})


def int8_arithmetic(cpuinfo: Path = CPUINFO, machine: str = "") -> Arithmetic:
    """Return how int8 products are summed here; exactly, in each case. An x86 CPU whose features are not known has no VNNI."""
    if (machine or platform.machine()).lower() not in _X86:
        return "native"
    features = _features(cpuinfo)
    if features >= _AVX512:
        return "avx512-vnni" if "avx512_vnni" in features else "widened"
    return "avx-vnni" if "avx_vnni" in features else "widened"


def has_dot_products(cpuinfo: Path = CPUINFO, machine: str = "") -> bool:
    """Return whether onnxruntime multiplies and adds bytes in one instruction here, without which int8 is hardly quicker than fp32.

    On x86 that is VNNI. An ARM CPU whose features are not known is Apple's, which all have such instructions.
    """
    machine = machine or platform.machine()
    if (runs := int8_arithmetic(cpuinfo, machine)) != "native":
        return runs in VNNI
    if not cpuinfo.exists():
        return machine == "arm64"
    return not _ARM_DOT_PRODUCTS.isdisjoint(_features(cpuinfo))


def _features(cpuinfo: Path) -> frozenset[str]:
    """Return the features that all processors have; none where there is no such file (only Linux has it)."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return _common(line.partition(":")[2].split() for line in lines if line.partition(":")[0].strip() in _FEATURE_LINES)


def _common(found: Iterable[Iterable[str]]) -> frozenset[str]:
    sets = [frozenset(each) for each in found]
    return frozenset.intersection(*sets) if sets else frozenset()
