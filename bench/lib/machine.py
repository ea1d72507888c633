"""Describe the machine and the versions that figures were measured with, for their JSON."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LIBRARIES = ("numpy", "pillow", "onnxruntime", "faiss-cpu", "grpcio", "protobuf")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def describe(libraries: Iterable[str] = LIBRARIES) -> dict[str, Any]:
    """Return the CPU, the cores that this process may use, its instructions for int8, memory, and versions."""
    about = _fields(Path("/proc/cpuinfo"))
    return {
        "cpu": about.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in about.get("flags", "").split()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
    }


def line(about: dict[str, Any]) -> str:
    """Return the description as a line for people."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['cores']} cores of {about['cpu']} ({', '.join(about['flags'])}), load {about['load_before']}; {versions}"


def pin(cores: int) -> None:
    """Keep this process, and those it starts, to the first `cores` cores it has."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in path.read_text().splitlines()) if path.exists() else ()
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
