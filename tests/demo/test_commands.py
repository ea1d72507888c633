import subprocess
import sys

import psutil
import pytest

from demo import commands
from svckit.cli import CommandError


@pytest.fixture
def run(tmp_path):
    """Runs Python code as a command; gives its stdout. What it was seen to progress to is in `run.progress`."""

    def run(code, timeout_s=60):
        command = [sys.executable, "-c", code]
        return commands.run(command, log=tmp_path / "step.log", timeout_s=timeout_s, progress=run.progress.append)

    run.progress = []
    run.log = tmp_path / "step.log"
    return run


def test_what_a_command_prints_is_returned_and_its_log_kept(run):
    assert run("import sys; print('made it'); print('slowly', file=sys.stderr)") == "made it\n"
    assert run.log.read_text() == "slowly\n"


def test_the_last_line_of_the_log_is_shown_as_progress(run, tmp_path):
    class Seen(list):
        def append(self, line):
            super().append(line)
            if line == "nearly":
                (tmp_path / "seen").touch()

    run.progress = Seen()
    code = f"import pathlib, sys, time\nsys.stderr.write('half\\nnearly\\n')\nsys.stderr.flush()\nseen = pathlib.Path({str(tmp_path / 'seen')!r})"
    run(code + "\nwhile not seen.exists(): time.sleep(0.01)")
    assert "nearly" in run.progress
    assert not any("half" in line for line in run.progress)


def test_a_command_that_fails_is_told_with_the_end_of_its_log(run):
    with pytest.raises(CommandError, match=r"-c ended with exit code 3\n    line 10\n(.*\n)*    line 29$"):
        run("import sys\nfor n in range(30): print('line', n, file=sys.stderr)\nsys.exit(3)")


def test_a_command_that_takes_too_long_is_ended(run):
    before = psutil.Process().children()
    with pytest.raises(CommandError, match=r"-c took longer than 0\.3 s"):
        run("import time; time.sleep(60)", timeout_s=0.3)
    assert psutil.Process().children() == before


def test_programs_are_those_of_this_environment():
    helped = subprocess.run([commands.program("vmmr-search"), "--help"], check=True, capture_output=True, text=True)
    assert "evaluate" in helped.stdout


def test_a_program_that_is_not_installed_is_told_with_what_to_do():
    with pytest.raises(CommandError, match="vmmr-nothing: is not there; install vmmr into this environment"):
        commands.program("vmmr-nothing")
