"""Some libraries come in two wheels that install the same module, one for CPUs and one for GPUs."""

import importlib.metadata

from svckit.cli import CommandError
from svckit.extras import install


def check_one_of(cpu: str, gpu: str) -> None:
    """Raises CommandError if both wheels are installed: each has overwritten files of the other."""
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
