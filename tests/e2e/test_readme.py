"""README.md does what it says: its commands and its Python are run as they stand there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BINARIES = Path(sys.executable).parent


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text()


@pytest.fixture(scope="module")
def commands(readme) -> list[str]:
    """The lines of its shell blocks, without what they say of themselves."""
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory) -> Path:
    """A folder of a reader's own, with `photos/` and `car.jpg`; the model and the gallery that ship are not in it."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "photos").symlink_to(drawn.photos)
    (folder / "pilot").symlink_to(next(path for path in drawn.photos.iterdir() if path.is_dir()))
    shutil.copy(min(drawn.photos.glob("*/*.jpg")), folder / "car.jpg")
    return folder


@pytest.fixture(scope="module")
def served(commands, folder, module_run) -> dict[str, str]:
    """The pair, made and served by README's commands; the environment in which the client finds it."""
    for command in commands:
        if re.match(r"vmmr-\w+ (?!serve)", command):
            subprocess.run([BINARIES / shlex.split(command)[0], *shlex.split(command)[1:]], cwd=folder, check=True)
    ports = {}
    for command in commands:
        if re.match(r"vmmr-\w+ serve", command):
            program, *arguments = shlex.split(command)
            service = program.removeprefix("vmmr-")
            env = {f"VMMR_WEB_{name}": ports[f"VMMR_{name}"] for name in ("EMBEDDER", "SEARCH") if service == "web"}
            server = module_run(f"{BINARIES / program}", *arguments, "--port", 0, cwd=folder, env=env)
            ports[f"VMMR_{service.upper()}"] = f"127.0.0.1:{server.ready()['port']}"
    return ports


def test_the_offline_commands_lead_to_an_answer(commands, folder, served):
    (identify,) = [command for command in commands if command.startswith("vmmr identify")]
    done = subprocess.run(
        [BINARIES / "vmmr", *shlex.split(identify)[1:]],
        cwd=folder,
        env=os.environ | served,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "car.jpg" in done.stdout


def test_the_same_is_asked_over_plain_http(commands, folder, served):
    (curl,) = [shlex.split(command) for command in commands if command.startswith("curl")]
    command = [part.replace("127.0.0.1:8080", served["VMMR_WEB"]) for part in curl]
    done = subprocess.run([*command, "--silent"], cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["answers"][0]["name"] == "car.jpg"


def test_a_car_is_added_listed_and_removed(commands, folder, served):
    said = {}
    for command in commands:
        name = command.split()[1] if command.startswith("vmmr ") else ""
        if name in ("add", "list", "remove"):
            run = [BINARIES / "vmmr", *shlex.split(command)[1:]]
            done = subprocess.run(run, cwd=folder, env=os.environ | served, capture_output=True, text=True, check=True)
            said[name] = done.stdout.splitlines()
    assert said["add"][1].split() == ["honda_pilot_2027", "10"]
    assert len(said["list"]) == 11, "a heading, and ten photos"
    assert said["remove"] == ["10 photos removed"]


def test_the_python_runs(readme, folder, served):
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    addresses = ", ".join(repr(served[f"VMMR_{service}"]) for service in ("EMBEDDER", "SEARCH"))
    code = code.replace("vmmr.Client()", f"vmmr.Client({addresses})")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 6, "the answer, and five neighbours"


def test_every_make_target_it_names_exists(root, readme, commands):
    named = {command.split()[1] for command in commands if command.startswith("make ")}
    named |= set(re.findall(r"`make (\w+)", readme))
    targets = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_page_it_links_to_exists(root, readme):
    for page in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (root / page).exists(), page
