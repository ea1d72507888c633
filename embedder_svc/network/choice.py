"""The choice among bundles of one model in several precisions: the one that suits this machine, or the one that is named.

A bundle is one graph with one fingerprint, and embeddings of two precisions do not mix: an index belongs to one of them. So the
choice is made once for a deployment, by naming a precision or, where all machines are alike, by `auto`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from embedder_svc.network import bundle
from embedder_svc.network.arithmetic import has_dot_products
from embedder_svc.network.bundle import DESCRIPTION, Precision
from svckit.artifact import ArtifactError
from svckit.config import ConfigError

_log = logging.getLogger(__name__)

PrecisionSetting = Literal["auto", "fp32", "fp16", "int8"]
PRECISION_SETTINGS: tuple[str, ...] = get_args(PrecisionSetting)


def choose_bundle(path: Path, wanted: PrecisionSetting, *, gpu: bool) -> Path:
    """Return the bundle to serve: `path` itself, or, if it is a folder of bundles, the one of the wanted precision.

    `auto` takes a bundle as it is, and from a folder the one that suits the device best. Raise ConfigError if what is wanted
    is not there, or ArtifactError.
    """
    if (path / DESCRIPTION).exists() or not (found := _bundles(path)):
        return _checked_bundle(path, wanted)
    chosen = next((each for each in _order(wanted, gpu=gpu) if each in found), None)
    if chosen is None:
        raise ConfigError(f"--precision: {path.absolute()} has {', '.join(sorted(found))}, not {wanted}")
    _log.info("precision", extra={"precision": chosen, "wanted": wanted, "bundle": str(found[chosen])})
    return found[chosen]


def _order(wanted: PrecisionSetting, *, gpu: bool) -> tuple[Precision, ...]:
    """Return the precisions to choose from, best first."""
    if wanted != "auto":
        return (wanted,)
    if gpu:
        return ("fp16", "fp32", "int8")
    return ("int8", "fp32", "fp16") if has_dot_products() else ("fp32", "int8", "fp16")


def _bundles(folder: Path) -> Mapping[Precision, Path]:
    """Return the bundles in a folder, by their precision. Raise ArtifactError if two have the same."""
    found: dict[Precision, Path] = {}
    for description in sorted(folder.glob(f"*/{DESCRIPTION}")):
        precision = bundle.read(description.parent).precision
        if precision in found:
            raise ArtifactError(folder, f"{found[precision].name} and {description.parent.name} are both {precision}")
        found[precision] = description.parent
    return found


def _checked_bundle(path: Path, wanted: PrecisionSetting) -> Path:
    """Return the path of a bundle that was named itself. Raise ConfigError if it has another precision than the wanted one.

    A path without a bundle is returned too: opening it gives the better error.
    """
    if wanted != "auto" and (path / DESCRIPTION).exists() and (precision := bundle.read(path).precision) != wanted:
        raise ConfigError(f"--precision: {path.absolute()} is {precision}, not {wanted}")
    return path
