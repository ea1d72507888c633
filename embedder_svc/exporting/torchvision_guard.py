"""A workaround: the import of torchvision beside a torch that it was not compiled against.

PyPI's torchvision can't load its C++ operators with the CPU-only torch, and its import then fails with
`operator torchvision::nms does not exist`. With those operators declared, though not defined, its transforms, models
and weights work; `torchvision.io` and `torchvision.ops` do not.

It can go once a plain `import torchvision` works with the torch that vmmr[train] installs on a machine without a GPU: when
torchvision loads its operators there, or no longer needs them to be imported.
"""

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from svckit.extras import install


def import_torchvision(submodule: str = "") -> ModuleType:
    """Import torchvision, or a part of it, and return it: `import_torchvision("transforms.v2")`."""
    _declare_missing_operators()
    return importlib.import_module(f"torchvision.{submodule}" if submodule else "torchvision")


@functools.cache
def _declare_missing_operators() -> Any:
    """Declare torchvision's operators if they do not load. The returned object keeps them declared, so the cache must hold it."""
    if _native_operators_load():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


def _native_operators_load() -> bool:
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"torchvision is not installed: {install('train')}")
    try:
        for library in Path(package.origin).parent.glob("_C*"):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
