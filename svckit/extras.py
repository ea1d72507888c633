"""Libraries that a command needs and that were not installed with it. Imports nothing that takes long."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vmmr_entry import Importing

_OURS = ("vmmr", "svckit", "embedder_svc", "search_svc", "loadtest", "web")


def install(extra: str) -> str:
    """Return the command that installs an extra, for messages. It names a checkout: vmmr is not published yet."""
    return f"pip install ./client '.[{extra}]', in a checkout of vmmr"


@contextmanager
def needing(
    extra: str, failure: Callable[[str], BaseException], says: str = "{library} is not installed"
) -> Iterator[None]:
    """Wrap imports that need an extra: where a library is missing, raise `failure` of a message that names it and the extra.

    `says` is the beginning of that message. Commands import what draws their pages in such a block before they begin, so that
    nobody learns after hours of work that a library is missing. Ctrl-C amid them ends the process at once and quietly. A module of ours that is missing is a bug, and passes as it is.
    """
    try:
        with Importing():
            yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in _OURS:
            raise
        raise failure(f"{says.format(library=library)}: {install(extra)}") from error


def needing_services(program: str) -> AbstractContextManager[None]:
    """Wrap the imports of a server's command: where a library is missing, end the process and name the extra."""
    return needing("cpu", lambda text: SystemExit(f"{program}: error: {text}; or '.[gpu]'"))
