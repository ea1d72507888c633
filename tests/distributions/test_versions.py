"""What the two distributions are, told by their pyproject.toml."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import vmmr

from svckit import extras

ROOT = Path(__file__).parents[2]
SERVICES, CLIENT, MODELS = (
    tomllib.loads((ROOT / path / "pyproject.toml").read_text()) for path in (".", "client", "models")
)
PROJECTS = ((".", SERVICES), ("client", CLIENT), ("models", MODELS))


def test_the_services_need_the_client_of_their_own_version():
    assert [each for each in SERVICES["project"]["dependencies"] if each.startswith("vmmr")] == [
        f"vmmr=={vmmr.__version__}"
    ]


def test_all_take_their_version_from_one_file():
    files = {(ROOT / path / project["tool"]["hatch"]["version"]["path"]).resolve() for path, project in PROJECTS}
    assert files == {ROOT / "client" / "vmmr" / "_version.py"}


@pytest.mark.parametrize("name", ["vmmr", "vmmr-services"])
def test_what_is_installed_here_is_of_that_version(name):
    assert version(name) == vmmr.__version__


def test_all_want_the_same_python():
    assert len({project["project"]["requires-python"] for _, project in PROJECTS}) == 1


@pytest.mark.parametrize("extra", ["cpu", "gpu", "report", "train", "loadtest", "web"])
def test_extras_that_messages_name_are_there(extra):
    assert extra in SERVICES["project"]["optional-dependencies"]
    assert f"'.[{extra}]'" in extras.install(extra)
