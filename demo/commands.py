"""Runs vmmr's commands as a user would: as processes, with a limit on their time."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from demo.screen import Progress
from svckit.cli import CommandError

ROOT = Path(__file__).parent.parent

_LOOK_S = 0.25
_TAIL_LINES = 20


def program(name: str) -> str:
    """Return the path of a command in the environment of this Python. Raises CommandError if it is not installed."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise CommandError(
            f"{path}: is not there; install vmmr into this environment: pip install -e ./client -e '.[cpu]'"
        )
    return str(path)


def run(command: Sequence[str | Path], *, log: Path, timeout_s: float, progress: Progress) -> str:
    """Run a command and return what it writes to stdout. Its stderr goes to `log`, whose last line `progress` shows.

    Raises CommandError, with the end of the log, if the command fails or takes longer than `timeout_s`.
    """
    output = log.with_suffix(".out")
    name = " ".join(Path(part).name for part in command[:2])
    with log.open("wb") as errors, output.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=errors)  # noqa: S603 (our own commands)
        try:
            in_time = _ends_within(timeout_s, process, log, progress)
        finally:
            process.kill()
            process.wait()
    if not in_time:
        raise CommandError(f"{name} took longer than {timeout_s:g} s\n{tail(log)}")
    if process.returncode:
        raise CommandError(f"{name} ended with exit code {process.returncode}\n{tail(log)}")
    return output.read_text()


def tail(log: Path) -> str:
    """Return the last lines of a log, indented."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])


def _ends_within(timeout_s: float, process: "subprocess.Popen[bytes]", log: Path, progress: Progress) -> bool:
    ends = time.monotonic() + timeout_s
    while (left := ends - time.monotonic()) > 0:
        try:
            process.wait(min(left, _LOOK_S))
        except subprocess.TimeoutExpired:
            progress(tail(log).rpartition("\n")[2].strip())
        else:
            return True
    return False
