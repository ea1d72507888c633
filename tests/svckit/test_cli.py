import subprocess
import sys

import pytest

from svckit import cli
from svckit.artifact import ArtifactError
from svckit.config import ConfigError


def exit_of(error: BaseException) -> object:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        cli.run(main, "vmmr-x")
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (cli.CommandError("no photos"), "no photos"),
        (ConfigError("--k must be >= 1, got 0"), "--k must be >= 1, got 0"),
        (ConfigError("--jwt-keys: http://me:hidden@host/x?key=hidden"), "--jwt-keys: http://host/x?..."),
        (ArtifactError("a/b", "is missing"), "a/b: is missing"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), "x.csv: No such file or directory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_users_mistake_is_one_line(error, message):
    assert exit_of(error) == f"vmmr-x: error: {message}"


def test_a_mistaken_argument_that_is_a_url_is_told_without_what_may_be_secret_in_it(capsys):
    with pytest.raises(SystemExit):
        cli.Parser("vmmr-x").parse_args(["https://me:hidden@host/x?key=hidden"])
    assert "unrecognized arguments: https://host/x?..." in capsys.readouterr().err


def test_ctrl_c_is_130():
    assert exit_of(KeyboardInterrupt()) == 130


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError("no file in it")], ids=repr)
def test_a_mistake_of_ours_keeps_its_traceback(error):
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        cli.run(main, "vmmr-x")


def test_a_reader_that_leaves_early_ends_the_command_quietly():
    writes = "from svckit import cli\ncli.run(lambda: [print('line') for _ in range(100_000)], 'vmmr-x')"
    with subprocess.Popen([sys.executable, "-c", writes], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_progress_in_a_log_is_lines_and_passes_the_items_on(capsys):
    assert list(cli.progress(range(3), desc="embed", unit="photo")) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert "embed: 100%" in lines[-1]
    assert "3/3" in lines[-1]


def test_progress_can_be_driven_by_hand(capsys):
    with cli.progress(total=10, desc="build", unit="item") as bar:
        bar.update(10)
    assert "10/10" in capsys.readouterr().err
