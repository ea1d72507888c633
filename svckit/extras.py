"""The SDK alone has the servers' commands, too, and nothing of what they run on. Imports the standard library alone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("vmmr", "svckit", "embedder_svc", "search_svc")


@contextmanager
def needing_services(program: str) -> Iterator[None]:
    """Around the imports of a server's command: where a library is missing, ends the process and names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in _OURS:
            raise
        sys.exit(f"{program}: error: {library} is not installed: pip install 'vmmr[cpu]', or 'vmmr[gpu]'")
