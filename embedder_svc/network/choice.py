"""Which of a model's precisions this machine is best served with.

A bundle is one graph with one fingerprint, and embeddings of two precisions do not mix: an index belongs to one of them. So a
folder of bundles is a choice made once for a deployment, by naming a precision or, where all machines are alike, `auto`.
"""

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from embedder_svc.network import bundle
from embedder_svc.network.bundle import DESCRIPTION, Precision
from svckit.artifact import ArtifactError
from svckit.config import ConfigError

_log = logging.getLogger(__name__)

Wanted = Literal["auto", "fp32", "fp16", "int8"]
WANTED: tuple[str, ...] = get_args(Wanted)

_CPUINFO = Path("/proc/cpuinfo")
# Dot products of bytes, without which int8 is little faster than fp32: of Intel and AMD, and of ARM.
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})


def bundle_of(path: Path, wanted: Wanted, *, gpu: bool) -> Path:
    """The bundle to serve: `path` itself, or of a folder of bundles the one whose precision is wanted.

    `auto` is the bundle itself, or the first there is of what suits the device. Raises ArtifactError, or ConfigError if what
    is wanted is not there.
    """
    if (path / DESCRIPTION).exists() or not (found := _bundles(path)):
        return _checked(path, wanted)
    chosen = next((each for each in _order(wanted, gpu=gpu) if each in found), None)
    if chosen is None:
        raise ConfigError(f"--precision: {path.absolute()} has {', '.join(sorted(found))}, not {wanted}")
    _log.info("precision", extra={"precision": chosen, "wanted": wanted, "bundle": str(found[chosen])})
    return found[chosen]


def has_dot_products(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor multiplies and adds bytes in one instruction. Where nothing tells, an Apple one does."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return platform.machine() == "arm64"
    return not _DOT_PRODUCTS.isdisjoint(text.split())


def _order(wanted: Wanted, *, gpu: bool) -> tuple[Precision, ...]:
    """What suits, best first."""
    if wanted != "auto":
        return (wanted,)
    if gpu:
        return ("fp16", "fp32", "int8")
    return ("int8", "fp32", "fp16") if has_dot_products() else ("fp32", "int8", "fp16")


def _bundles(folder: Path) -> Mapping[Precision, Path]:
    """The bundles in a folder, by their precision. Raises ArtifactError if two have the same."""
    found: dict[Precision, Path] = {}
    for description in sorted(folder.glob(f"*/{DESCRIPTION}")):
        precision = bundle.read(description.parent).precision
        if precision in found:
            raise ArtifactError(folder, f"{found[precision].name} and {description.parent.name} are both {precision}")
        found[precision] = description.parent
    return found


def _checked(path: Path, wanted: Wanted) -> Path:
    """A bundle that was named itself. What is no bundle at all is told by who opens it."""
    if wanted != "auto" and (path / DESCRIPTION).exists() and (precision := bundle.read(path).precision) != wanted:
        raise ConfigError(f"--precision: {path.absolute()} is {precision}, not {wanted}")
    return path
