"""Which int8 arithmetic onnxruntime runs on this CPU, and whether its sums need help to be exact.

Its kernels multiply unsigned activations by signed weights. Without instructions made for that (VNNI) they add pairs of
products up in 16 bits, which overflow; `session.x64quantprecision` makes onnxruntime use other kernels, with exact sums, that
take more than twice the time. It has that effect on every x86 CPU, also where the sums are exact anyway: so it must be asked for
only where they are not.

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
"""How int8 is multiplied and summed: by VNNI, by slower exact kernels of x86, or by another architecture's own."""

CPUINFO = Path("/proc/cpuinfo")

VNNI: frozenset[Arithmetic] = frozenset({"avx512-vnni", "avx-vnni"})

_X86 = frozenset({"x86_64", "amd64"})
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})


def int8_arithmetic(cpuinfo: Path = CPUINFO, machine: str = "") -> Arithmetic:
    """Return how int8 products are to be summed here, exactly in each case. An x86 CPU that nothing is known of has no VNNI."""
    if (machine or platform.machine()).lower() not in _X86:
        return "native"
    flags = _flags(cpuinfo)
    if flags >= _AVX512:
        return "avx512-vnni" if "avx512_vnni" in flags else "widened"
    return "avx-vnni" if "avx_vnni" in flags else "widened"


def _flags(cpuinfo: Path) -> frozenset[str]:
    """Return the features that all processors have, none where there is no such file (it is Linux's)."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return _common(line.partition(":")[2].split() for line in lines if line.partition(":")[0].strip() == "flags")


def _common(found: Iterable[Iterable[str]]) -> frozenset[str]:
    sets = [frozenset(each) for each in found]
    return frozenset.intersection(*sets) if sets else frozenset()
