"""A clear error where the libraries of the extra `train` are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from svckit.cli import CommandError
from svckit.extras import install


@contextmanager
def needing_train() -> Iterator[None]:
    """Wrap imports that bring torch, which serving does not need. Raise CommandError if a library is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: {install('train')}") from error
