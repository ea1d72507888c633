"""The extra `report`: the libraries that draw pages, which a server does without."""

from collections.abc import Iterator
from contextlib import contextmanager

from svckit.cli import CommandError
from svckit.extras import install


@contextmanager
def report_extra(message: str) -> Iterator[None]:
    """Raise CommandError if an import in this block lacks a library, and name the extra that installs it.

    `message` says who needs the `{library}`. Commands import their pages in such a block before they begin, so that nobody
    learns after hours of work that a library is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).split(".")[0]
        raise CommandError(f"{message.format(library=library)}: {install('report')}") from error
