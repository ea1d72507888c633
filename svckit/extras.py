"""Libraries that a command needs and that were not installed with it. Imports the standard library alone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("vmmr", "svckit", "embedder_svc", "search_svc", "loadtest")


def install(extra: str) -> str:
    """Return the command that installs an extra, for messages. It names a checkout: vmmr is not published yet."""
    return f"pip install ./client '.[{extra}]', in a checkout of vmmr"


@contextmanager
def needing_services(program: str) -> Iterator[None]:
    """Wrap the imports of a server's command: where a library is missing, end the process and name the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in _OURS:
            raise
        sys.exit(f"{program}: error: {library} is not installed: {install('cpu')}; or '.[gpu]'")
