"""What of the machine and of what is installed on it keeps the services from running, or from running well."""

import importlib.metadata
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

from doctor.findings import Finding, fail, not_checked, ok, warn
from embedder_svc.network.arithmetic import CPUINFO, has_dot_products
from svckit import wheels
from svckit.cli import CommandError
from svckit.extras import install

GPUS = Path("/proc/driver/nvidia/gpus")
"""Has a folder for each GPU, where NVIDIA's driver is loaded."""
_PAIRS = (("faiss-cpu", "faiss-gpu"), ("onnxruntime", "onnxruntime-gpu"))


def versions() -> Finding:
    """Compare the versions of the two distributions."""
    services, client = (importlib.metadata.version(name) for name in ("vmmr-services", "vmmr"))
    text = f"vmmr-services {services}, vmmr {client}, Python {platform.python_version()}"
    if services != client:
        return fail("versions", text, "install both of one release: pip install ./client '.[cpu]'")
    return ok("versions", text)


def wheel(cpu: str, gpu: str) -> Finding:
    """Look for two wheels that overwrite each other, or none."""
    name = f"wheels: {cpu}"
    try:
        wheels.check_one_of(cpu, gpu)
    except CommandError as error:
        text, _, way_out = str(error).partition(": ")
        return fail(name, text, way_out)
    for wheel_ in (cpu, gpu):
        if wheels.installed(wheel_):
            return ok(name, f"{wheel_} {importlib.metadata.version(wheel_)} alone")
    return warn(name, f"neither {cpu} nor {gpu} is installed", install("cpu"))


def instructions(cpuinfo: Path = CPUINFO) -> Finding:
    """Say whether the CPU is quick at int8, the precision of the model that ships."""
    if has_dot_products(cpuinfo):
        return ok(
            "instructions", "the CPU multiplies and adds bytes in one instruction (VNNI, or ARM's): int8 is quick"
        )
    text = "the CPU has no VNNI: an int8 model answers the same, at more than twice the time"
    return warn("instructions", text, "serve on a CPU with VNNI, or export a model with --precision fp32 and compare")


def gpu(devices: Path = GPUS) -> Finding:
    """Say whether a GPU is there that nothing installed can use."""
    try:
        there = sorted(path.name for path in devices.iterdir())
    except FileNotFoundError:
        return ok("GPU", "none, or without NVIDIA's driver: the services run on the CPU")
    except OSError as error:
        return not_checked("GPU", f"{devices}: {error.strerror}")
    unused = [cpu for cpu, gpu in _PAIRS if not wheels.installed(gpu)]
    if there and unused:
        text = f"{len(there)} there, and {' and '.join(unused)} cannot use it"
        return warn("GPU", text, f"{install('gpu')}, in place of the extra cpu; then serve with --device cuda")
    return ok("GPU", f"{len(there)} there")


def every() -> dict[str, Callable[[], Finding]]:
    """Return the checks, by name."""
    pairs = {f"wheels: {cpu}": partial(wheel, cpu, gpu_) for cpu, gpu_ in _PAIRS}
    return {"versions": versions, **pairs, "instructions": instructions, "GPU": gpu}
