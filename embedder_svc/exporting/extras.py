"""The optional dependencies of the offline commands."""

from collections.abc import Iterator
from contextlib import contextmanager

from svckit.cli import CommandError
from svckit.extras import install


@contextmanager
def needing_train() -> Iterator[None]:
    """Around imports that bring torch, which serving does without. Raises CommandError if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: {install('train')}") from error
