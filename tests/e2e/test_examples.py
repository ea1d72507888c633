"""examples/ do what they are there to show: each is run as it stands against the real pair, beside the SDK."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import vmmr

pytestmark = [pytest.mark.xdist_group("examples"), pytest.mark.timeout(600)]

UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|dial tcp|lookup|no such host|unreachable|timeout|Forbidden"
)
"""How npm and Go say that they cannot get at their packages."""


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"this example needs {program}, which is not installed")


def install(command: list[str], folder: Path) -> None:
    """Have a language's own installer fetch what an example needs; skip if it cannot be reached."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = [line.strip() for line in done.stderr.splitlines() if UNREACHABLE.search(line)]
    if done.returncode and said:
        pytest.skip(f"`{Path(command[0]).name} {' '.join(command[1:])}` could not get at its packages: {said[0]}")
    assert done.returncode == 0, done.stderr


def node(root: Path, _: Path) -> Callable[..., list[str]]:
    needs("node", "npm")
    install(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], root / "examples/node")
    return lambda program, *arguments: ["node", str(root / f"examples/node/{program}.mjs"), *arguments]


def go(root: Path, folder: Path) -> Callable[..., list[str]]:
    needs("go")
    example = folder / "examples/go"
    shutil.copytree(root / "examples/go", example)
    shutil.copytree(root / "protos", folder / "protos")
    shutil.copy(root / "buf.yaml", folder)
    install([str(Path(sys.executable).parent / "buf"), "generate"], example)
    install(["go", "mod", "tidy"], example)
    install(["go", "build", "-o", "caller", "."], example)
    return lambda program, *arguments: [str(example / "caller"), program, *arguments]


@pytest.fixture(scope="module")
def gallery(root, tmp_path_factory) -> Path:
    """A copy of the gallery that ships, to be added to."""
    index = tmp_path_factory.mktemp("examples") / "index"
    shutil.copytree(root / "models/stanford-cars", index, ignore=shutil.ignore_patterns("journal.*", "*.lock"))
    return index


@pytest.fixture(scope="module")
def addresses(root, module_run, gallery) -> dict[str, str]:
    """Where the pair serves, in the variables that the examples read."""
    embedder = module_run("-m", "embedder_svc", "serve", "--port", 0, cwd=root)
    search = module_run("-m", "search_svc", "serve", "--port", 0, "--index", gallery, cwd=root)
    servers = {"VMMR_EMBEDDER": embedder, "VMMR_SEARCH": search}
    return {name: f"127.0.0.1:{server.ready()['port']}" for name, server in servers.items()}


@pytest.fixture(scope="module")
def photos(root, tmp_path_factory) -> list[Path]:
    """Two photos of a drawn car, which the gallery does not know."""
    folder = tmp_path_factory.mktemp("drawn_car")
    drawing = ["-m", "demo.drawn_cars", "--out", str(folder), "--classes", "1", "--photos", "2", "--seed", "1"]
    subprocess.run([sys.executable, *drawing], cwd=root, check=True, capture_output=True)
    return sorted(folder.glob("*/*.jpg"))


@pytest.fixture(scope="module", params=[node, go], ids=lambda language: language.__name__)
def example(request, root, addresses, tmp_path_factory):
    """`example(program, *arguments)` runs one of a language's two programs."""
    line = request.param(root, tmp_path_factory.mktemp(request.param.__name__))

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = line(program, *map(str, arguments))
        return subprocess.run(command, env=os.environ | addresses, capture_output=True, text=True, check=False)

    return run


def test_it_identifies_a_photo_as_the_sdk_does(example, addresses, photos):
    with vmmr.Client(*addresses.values(), timeout_s=60) as client:
        found = client.identify(photos[0])
    done = example("identify", photos[0])
    assert done.returncode == 0, done.stderr
    answer, *neighbours = done.stdout.splitlines()
    assert answer.startswith(f"{found.answer.label} (VERDICT_{found.verdict.upper()}, {found.label_confidence:.2f})")
    assert neighbours == [f"{near.score:.3f} {near.label.label} {near.uri}" for near in found.neighbours]


def test_it_says_the_reason_of_an_error_and_names_every_bad_field(example, photos, tmp_path):
    no_photo = tmp_path / "notes.txt"
    no_photo.write_text("no photo")
    done = example("enrol", "honda_pilot_2027", no_photo, photos[0], no_photo)
    assert done.returncode == 1
    first, *fields = done.stderr.splitlines()
    assert first.startswith("INVALID_IMAGE: 2 of 3 images")
    assert [field.split(": ")[:2] for field in fields] == [[f"  images[{n}].content", "IMAGE_FORMAT"] for n in (0, 2)]


def test_it_enrols_a_car_that_is_found_at_once(example, request, photos):
    label = f"drawn_{request.node.callspec.id}_2027"
    done = example("enrol", label, *photos)
    assert done.returncode == 0, done.stderr
    assert re.match(r"2 added, 0 replaced; on the disk as entry \d+ of the journal", done.stdout)
    neighbours = example("identify", photos[0]).stdout.splitlines()[1:]
    assert [near for near in neighbours if near.startswith("1.000 ") and label in near]
    assert example("enrol", label, *photos).stdout.startswith("0 added, 0 replaced"), "the same again changes nothing"


def test_it_says_how_it_is_called_and_which_photo_is_not_there(example, tmp_path):
    done = example("identify")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert done.stderr.startswith("usage: ")
    gone = example("identify", tmp_path / "gone.jpg")
    assert (gone.returncode, gone.stdout) == (1, "")
    (line,) = gone.stderr.splitlines()
    assert str(tmp_path / "gone.jpg") in line
