"""faiss comes in two wheels that install the same module: at most one may be there."""

import importlib.metadata

from svckit.cli import CommandError

_WHEELS = ("faiss-cpu", "faiss-gpu")


def check() -> None:
    """Raises CommandError if both are installed: each has overwritten files of the other."""
    if all(map(_installed, _WHEELS)):
        raise CommandError(
            "faiss-cpu and faiss-gpu are both installed, and broke each other: "
            "`pip uninstall faiss-cpu faiss-gpu`, then `pip install` vmmr[cpu] or vmmr[gpu]"
        )


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
