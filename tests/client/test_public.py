"""What the package offers is exported and documented, and what the documentation says is so."""

import argparse
import inspect
import re
from itertools import pairwise
from pathlib import Path

import pytest
import vmmr
from vmmr import _errors
from vmmr._cli import COMMANDS, arguments

DOCS = Path(__file__).parents[2] / "docs" / "client.md"
CLIENT_METHODS = [name for name, _ in inspect.getmembers(vmmr.Client, inspect.isfunction) if not name.startswith("_")]


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """All long flags of a parser and of its sub-commands."""
    found = set()
    for action in parser._actions:
        found |= {flag for flag in action.option_strings if flag.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            found |= {flag for sub in action.choices.values() for flag in flags(sub)}
    return found


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    return arguments.parser({}, dict.fromkeys(COMMANDS, lambda *_: 0))


@pytest.fixture(scope="module")
def docs() -> str:
    return DOCS.read_text()


def test_public_classes_of_the_private_modules_are_exported():
    modules = [module for name, module in vars(vmmr).items() if name.startswith("_") and inspect.ismodule(module)]
    exported_from = {
        "_aio",
        "_batches",
        "_channel",
        "_client",
        "_errors",
        "_fetch",
        "_gallery",
        "_photos",
        "_served",
        "_types",
    }
    internal = {"Packer", "Entry", "Limits", "BinaryReader", "BaseClient", "Image"}
    public = {
        name
        for module in modules
        if module.__name__.removeprefix("vmmr.") in exported_from
        for name, member in vars(module).items()
        if inspect.isclass(member) and member.__module__ == module.__name__ and not name.startswith("_")
    }
    assert public - internal == set(vmmr.__all__) - {"PhotoSource", "Subject", "Verdict", "request_id", "traceparent"}


@pytest.mark.parametrize("name", vmmr.__all__)
def test_every_public_name_is_documented(name, docs):
    member = getattr(vmmr, name)
    assert re.search(rf"\b{name}s?\b", docs)
    if inspect.isclass(member):
        assert member.__doc__
        assert not member.__doc__.startswith(f"{name}(")  # what dataclass writes where nobody did


@pytest.mark.parametrize("name", CLIENT_METHODS)
def test_both_clients_have_the_same_methods_and_they_are_documented(name, docs):
    own, other = (inspect.signature(getattr(client, name)) for client in (vmmr.Client, vmmr.AsyncClient))
    assert [(p.name, p.kind, p.default) for p in own.parameters.values()] == [
        (p.name, p.kind, p.default) for p in other.parameters.values()
    ]
    assert getattr(vmmr.Client, name).__doc__
    assert getattr(vmmr.AsyncClient, name).__doc__
    assert f"`{name}(" in docs


def tree(cls: type) -> set[tuple[str, str]]:
    """Who descends from whom, directly."""
    return {edge for sub in cls.__subclasses__() for edge in {(cls.__name__, sub.__name__), *tree(sub)}}


def drawn(text: str) -> set[tuple[str, str]]:
    """The edges of a tree that is drawn with lines."""
    edges, path = set(), []
    for indent, name in re.findall(r"^([│├└─ ]*)(\w+Error)\b", text, re.MULTILINE):
        path = [*path[: len(indent) // 4], name]
        edges |= set(pairwise(path[-2:]))
    return edges


def test_the_tree_of_exceptions_is_the_one_that_is_drawn(docs):
    assert drawn(_errors.__doc__) == tree(vmmr.VmmrError)
    drawing = _errors.__doc__.partition("\n\n")[2].strip()
    assert drawing in docs


def test_every_flag_and_variable_is_documented_and_no_other(parser, docs):
    sections = docs.partition("## The command")[2]
    assert set(re.findall(r"`(--[a-z-]+)", sections)) == flags(parser)
    variables = {"VMMR_TOKEN", *re.findall(r"\bVMMR_[A-Z_]+", inspect.getsource(arguments))}
    assert set(re.findall(r"\bVMMR_[A-Z_]+", docs)) == variables


def test_the_exit_codes_are_those_of_the_help(docs):
    table = re.findall(r"^\| (\d+) \| (.+) \|$", docs, re.MULTILINE)
    assert table == [tuple(line.split(maxsplit=1)) for line in arguments.EXIT_CODES.splitlines()[1:]]


def test_importing_vmmr_leaves_the_environment_as_it_was():
    import os
    import subprocess
    import sys

    script = "import os; before = dict(os.environ); import vmmr; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=os.environ, check=True, timeout=60)
