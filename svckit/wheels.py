"""Checks of libraries that come in two wheels, one for CPUs and one for GPUs, which install the same module."""

import importlib.metadata

from svckit.cli import CommandError
from svckit.extras import install


def check_one_of(cpu: str, gpu: str) -> None:
    """Raise CommandError if both wheels are installed: each has overwritten files of the other."""
    if installed(cpu) and installed(gpu):
        raise CommandError(
            f"{cpu} and {gpu} are both installed, and broke each other: "
            f"`pip uninstall {cpu} {gpu}`, then {install('cpu')}; or '.[gpu]'"
        )


def installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
