"""Work beside a server's calls: a command in a process of its own, which lets the server have the cores first and ends with it."""

import asyncio
import os
import sys
import threading
from dataclasses import dataclass

FLAG = "--for-server"
"""Of the command: it calls `yield_to_server`."""
WARNING = "vmmr-search: warning: "
"""What a command writes before each warning, on stderr."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def reason(self) -> str:
        """The last line that it said of what went wrong."""
        return self.stderr.strip().rpartition("\n")[2] or f"it ended with code {self.code}"

    @property
    def warnings(self) -> list[str]:
        """What it warned of, by lines that begin with WARNING."""
        return [line.removeprefix(WARNING) for line in self.stderr.splitlines() if line.startswith(WARNING)]


async def run(*command: str) -> Ended:
    """Run a command, which knows FLAG, to its end; kill it if this is cancelled. Raise OSError if no process can be started."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command, FLAG),
        stdin=asyncio.subprocess.PIPE,  # held open: the process ends when this one does
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        said = await asyncio.gather(process.stdout.read(), process.stderr.read())
        code = await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    return Ended(code, *(text.decode(errors="replace") for text in said))


def yield_to_server() -> None:
    """Let the server that started this process have the cores first, and end when the server ends."""
    os.nice(19)
    threading.Thread(target=_end_with_server, daemon=True).start()


def _end_with_server() -> None:
    # Nothing is ever sent: reading ends when the server's end is closed, which it also is when the server dies.
    sys.stdin.read()
    os._exit(1)
