"""Ctrl-C at a given moment of each of our commands, as a process: exit code 130, and not a word.

The moments are told by Python itself: a hook of the process sends it the signal when it begins to import a module, or ends.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOOK = """
import atexit, os, signal, sys

moment = os.environ["INTERRUPT_AT"]

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def hook(event, arguments):
    if event == "import" and arguments[0] == moment:
        interrupt()

if moment == "exit":
    atexit.register(interrupt)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(hook)
"""
SCRIPTS = {
    "vmmr": ("vmmr_entry", "main"),
    "vmmr-embedder": ("embedder_svc.__main__", "main"),
    "vmmr-search": ("search_svc.__main__", "main"),
    "vmmr-doctor": ("doctor.__main__", "main"),
    "vmmr-loadtest": ("loadtest.__main__", "main"),
    "vmmr-web": ("web.__main__", "main"),
}
MOMENTS = [
    *[("vmmr", ["--version"], moment) for moment in ("vmmr", "grpc", "numpy", "vmmr._cli.arguments", "exit")],
    *[
        ("vmmr-embedder", ["--version"], moment)
        for moment in ("argparse", "grpc", "PIL", "embedder_svc.training.command", "exit")
    ],
    *[("vmmr-search", ["--version"], moment) for moment in ("argparse", "numpy", "search_svc.select.command", "exit")],
    *[
        ("vmmr-loadtest", ["embed", "--rate", "1"], moment)
        for moment in ("argparse", "vmmr", "loadtest.command", "matplotlib")
    ],
    ("vmmr-loadtest", ["--version"], "exit"),
    *[("vmmr-doctor", ["--version"], moment) for moment in ("argparse", "grpc", "numpy", "exit")],
    *[("vmmr-web", ["--version"], moment) for moment in ("argparse", "web.config", "exit")],
    ("vmmr", ["loadtest", "embed", "--rate", "1"], "loadtest.arguments"),
    ("vmmr", ["loadtest", "embed", "--rate", "1"], "loadtest.command"),
]


@pytest.fixture(scope="module")
def hooked(tmp_path_factory) -> dict[str, str]:
    """The environment of processes that interrupt themselves."""
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(HOOK)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize(("program", "arguments", "moment"), MOMENTS)
def test_an_interrupt_is_quiet_whenever_it_comes(hooked, program, arguments, moment):
    module, function = SCRIPTS[program]
    # As the script of the command does it.
    code = f"import sys; sys.argv[0] = {program!r}; from {module} import {function}; sys.exit({function}())"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, env=hooked | {"INTERRUPT_AT": moment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_the_scripts_are_those_that_were_tried():
    projects = [
        tomllib.loads((ROOT / path).read_text())["project"] for path in ("pyproject.toml", "client/pyproject.toml")
    ]
    scripts = {name: tuple(target.split(":")) for project in projects for name, target in project["scripts"].items()}
    assert scripts == SCRIPTS
