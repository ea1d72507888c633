"""All wheels, built, installed into empty environments and used there. `make check` runs it: pip fetches what they need.

With VMMR_WHEELS, a folder, the wheels in it are tested, and none are built: so a release tests what it publishes.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import vmmr
from packaging.utils import canonicalize_name
from PIL import Image
from vmmr._cli import arguments

from embedder_svc.__main__ import parser as embedder_parser
from loadtest.arguments import parser as loadtest_parser
from search_svc.__main__ import parser as search_parser
from svckit import extras
from web.__main__ import parser as web_parser

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "vmmr": {"vmmr": "client/vmmr", "vmmr_entry.py": "client/vmmr_entry.py"},
    "vmmr-services": {name: name for name in ("svckit", "embedder_svc", "search_svc", "loadtest", "web", "doctor")},
}
MODELS = "vmmr-models"
"""The package of data: no modules, no commands."""
CLIENT_NEEDS = {
    "googleapis-common-protos",
    "grpcio",
    "grpcio-status",
    "numpy",
    "protobuf",
    "typing-extensions",  # for grpcio
}
OF_EXTRAS = {
    "torch",
    "onnx",
    "safetensors",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "hdrh",
    "jwt",
    "opentelemetry",
    "ray",
    "fastapi",
    "pydantic",
    "starlette",
    "uvicorn",
}
"""Libraries that no installation without their extra has."""


@dataclass(frozen=True)
class Wheel:
    path: Path

    @property
    def files(self) -> set[str]:
        with zipfile.ZipFile(self.path) as wheel:
            return {name for name in wheel.namelist() if ".dist-info/" not in name}

    def told(self, file: str) -> Message:
        """METADATA or WHEEL."""
        with zipfile.ZipFile(self.path) as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(f".dist-info/{file}")]
            return Parser().parsestr(wheel.read(name).decode())


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is used from a folder of its own, so that nothing of the checkout is imported."""

    path: Path

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(self.path / "bin" / program), *map(str, arguments)]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=600, check=False)

    def gives(self, program: str, *arguments: object) -> str:
        """What it prints. It must succeed."""
        done = self.run(program, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Wheel]:
    if given := os.environ.get("VMMR_WHEELS"):
        out = ROOT / given
    else:
        out = tmp_path_factory.mktemp("wheels")
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--wheel-dir", out, ROOT / "client", ROOT, ROOT / "models"], check=True)
    return {name: Wheel(*out.glob(f"{name.replace('-', '_')}-[0-9]*.whl")) for name in (*PACKAGES, MODELS)}


@pytest.fixture(scope="module")
def install(tmp_path_factory) -> Callable[..., Environment]:
    """`install(requirement, ...)` gives an environment with them alone."""

    def install(*requirements: str | Path) -> Environment:
        environment = Environment(tmp_path_factory.mktemp("environment"))
        subprocess.run([sys.executable, "-m", "venv", environment.path], check=True)
        environment.gives("pip", "install", "--quiet", "--no-compile", *requirements)
        return environment

    return install


@pytest.fixture(scope="module")
def client(wheels, install) -> Environment:
    return install(wheels["vmmr"].path)


@pytest.fixture(scope="module")
def services(wheels, install) -> Environment:
    return install(wheels["vmmr"].path, f"vmmr-services[cpu] @ {wheels['vmmr-services'].path.as_uri()}")


@pytest.fixture(params=["client", "services"])
def environment(request) -> Environment:
    return request.getfixturevalue(request.param)


# --- wheels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_has_its_packages_whole_and_nothing_else(name, wheels):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES[name].values()]
    known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    there = {path for path in known if (ROOT / path).exists()}
    assert there
    assert wheels[name].files == {path.removeprefix("client/") for path in there}


def test_the_wheel_of_data_has_what_ships_and_no_journal(wheels):
    listed = ["git", "ls-files", "models"]
    known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.removeprefix("models/") for path in known if path.count("/") > 1}
    assert wheels[MODELS].files == {f"vmmr_models/{path}" for path in folders}


@pytest.mark.parametrize("name", [*PACKAGES, MODELS])
def test_a_wheel_is_pure_python(name, wheels):
    assert wheels[name].told("WHEEL")["Root-Is-Purelib"] == "true"
    assert wheels[name].told("WHEEL").get_all("Tag") == ["py3-none-any"]


@pytest.mark.parametrize("name", [*PACKAGES, MODELS])
def test_a_wheel_says_its_name_and_the_version_of_all(name, wheels):
    metadata = wheels[name].told("METADATA")
    assert (metadata["Name"], metadata["Version"]) == (name, vmmr.__version__)


# --- what is installed ------------------------------------------------------------------------------------------------


def test_the_client_brings_its_own_libraries_and_nothing_else(client):
    listed = json.loads(client.gives("pip", "list", "--format", "json"))
    assert {canonicalize_name(each["name"]) for each in listed} - {"pip", "setuptools"} == {"vmmr", *CLIENT_NEEDS}


def test_what_was_installed_fits_together(environment):
    assert environment.gives("pip", "check") == "No broken requirements found.\n"


def test_the_services_do_without_the_libraries_of_other_extras(services):
    script = f"from importlib.util import find_spec; print([name for name in {sorted(OF_EXTRAS)} if find_spec(name)])"
    assert services.gives("python", "-c", script) == "[]\n"


IMPORT_ALL = """
import importlib, pkgutil
for name in {packages}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + ".", onerror=print):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error.name)
"""


@pytest.mark.parametrize("name", PACKAGES)
def test_every_module_can_be_imported_where_its_libraries_are(name, request):
    environment = request.getfixturevalue("client" if name == "vmmr" else "services")
    lacking = environment.gives(
        "python", "-c", IMPORT_ALL.format(packages=[each for each in PACKAGES[name] if not each.endswith(".py")])
    ).splitlines()
    may_lack = set() if name == "vmmr" else OF_EXTRAS
    assert [line for line in lacking if line.split()[-1].partition(".")[0] not in may_lack] == []


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(parser) -> Sequence[str]:
    [action] = [action for action in parser._actions if action.choices and action.option_strings == []]
    return list(action.choices)


PROGRAMS = {
    "vmmr": commands(arguments.parser({}, dict.fromkeys(arguments._COMMANDS, print))),
    "vmmr-embedder": commands(embedder_parser()),
    "vmmr-search": commands(search_parser()),
    "vmmr-doctor": [],
    "vmmr-loadtest": commands(loadtest_parser({}, "vmmr-loadtest")),
    "vmmr-web": commands(web_parser()),
}

HELP = """
import sys
from importlib.metadata import entry_points
[program] = entry_points(group="console_scripts", name={program!r})
for command in {commands}:
    sys.argv = [{program!r}, command, "--help"]
    try:
        program.load()()
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def test_each_wheel_has_its_commands_and_no_other(client, services):
    ours = [{path.name for path in (each.path / "bin").glob("vmmr*")} for each in (client, services)]
    assert ours == [{"vmmr"}, set(PROGRAMS)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_starts(program, services):
    assert services.gives(program, "--version") == f"{program} {vmmr.__version__}\n"
    assert services.gives(program, "--help").startswith(f"usage: {program} ")
    told = services.gives("python", "-c", HELP.format(program=program, commands=PROGRAMS[program]))
    assert re.findall(rf"^usage: {program} ([\w-]+)", told, re.MULTILINE) == PROGRAMS[program]


def test_the_load_test_is_a_command_of_vmmr_where_it_is_installed_and_otherwise_named(client, services):
    assert services.gives("vmmr", "loadtest", "embed", "--help").startswith("usage: vmmr loadtest embed ")
    done = client.run("vmmr", "loadtest", "embed", "--rate", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"{extras.install('loadtest')}\n")


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("loadtest", ("vmmr-loadtest", "embed", "--rate", "1")),
        ("web", ("vmmr-web", "serve")),
        ("train", ("vmmr-embedder", "export", "--weights", "a.safetensors", "--out", "bundle")),
    ],
)
def test_a_command_that_needs_an_extra_names_it(extra, command, services):
    done = services.run(*command)
    assert done.returncode in (1, 2)
    assert extras.install(extra) in done.stderr
    assert "Traceback" not in done.stderr


def test_what_ships_is_a_wheel_of_its_own_and_without_it_it_is_said_what_to_do(
    wheels, client, services, module_run, tmp_path
):
    """From an empty folder, without a flag: the client of one wheel asks the services of the other, which serve the third."""
    for service, program in (("embedder", "vmmr-embedder"), ("search", "vmmr-search")):
        (line,) = services.run(program, "serve").stderr.splitlines()
        assert "that ships is not installed: give one, or install it" in json.loads(line)["error"], service
    services.gives("pip", "install", "--quiet", "--no-deps", "--no-compile", wheels[MODELS].path)
    Image.new("RGB", (320, 240), "grey").save(tmp_path / "grey.jpg")
    addresses = []
    for service in ("embedder", "search"):
        serve = ("-m", f"{service}_svc", "serve", "--port", 0)
        server = module_run(*serve, python=services.path / "bin" / "python", cwd=services.path)
        addresses += [f"--{service}", f"127.0.0.1:{server.ready()['port']}"]
    told = json.loads(client.gives("vmmr", "identify", tmp_path / "grey.jpg", "--json", "--timeout", 60, *addresses))
    assert told["provenance"]["index_version"] == "000001"
    assert told["answer"]["label"]
