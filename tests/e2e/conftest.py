"""The real pair over drawn cars: the commands' own processes, the model that ships, servers on free ports."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import vmmr

MODEL = "models/resnet50-cars-int8"
CLASSES, PHOTOS = 6, 10


@dataclass(frozen=True)
class Chain:
    """What the offline commands made of a folder of photos."""

    photos: Path
    embeddings: Path
    index: Path


def command(root: Path, *arguments: object) -> str:
    """Runs a Python program from the repository's root; what it printed."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def make_chain(root: Path) -> Callable[..., Chain]:
    """`make_chain(photos, out, shards=N)` takes a folder of labelled photos to a built index."""

    def make(photos: Path, out: Path, *, shards: int) -> Chain:
        manifest, embeddings, index = out / "manifest.csv", out / "embeddings", out / "index"
        command(root, "-m", "search_svc", "split", photos, "--out", manifest)
        embed = ("embed", manifest, "--photos", photos, "--model", MODEL, "--out", embeddings)
        command(root, "-m", "embedder_svc", *embed)
        command(root, "-m", "search_svc", "build", embeddings, "--out", index, "--shards", shards)
        return Chain(photos, embeddings, index)

    return make


@pytest.fixture(scope="session")
def drawn(root: Path, make_chain: Callable[..., Chain], tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The chain over drawn cars, with an index of three shards."""
    out = tmp_path_factory.mktemp("drawn")
    drawing = ("--out", out / "photos", "--classes", CLASSES, "--photos", PHOTOS, "--seed", 1)
    command(root, "-m", "demo.drawn_cars", *drawing)
    return make_chain(out / "photos", out, shards=3)


@pytest.fixture(scope="session")
def serve_pair(root: Path) -> Callable[..., tuple[str, str]]:
    """`serve_pair(run, chain, *flags)` starts both servers; gives their addresses, embedder first."""

    def serve(run: Callable, chain: Chain, *flags: object) -> tuple[str, str]:
        embedder = run("-m", "embedder_svc", "serve", "--port", 0, "--model", root / MODEL, *flags)
        search = run("-m", "search_svc", "serve", "--port", 0, "--index", chain.index, *flags)
        return f"127.0.0.1:{embedder.ready()['port']}", f"127.0.0.1:{search.ready()['port']}"

    return serve


@pytest.fixture(scope="module")
def addresses(serve_pair, module_run, drawn):
    """The pair over the drawn cars: the embedder's address and the search service's."""
    return serve_pair(module_run, drawn)


@pytest.fixture(scope="module")
def client(addresses):
    with vmmr.Client(*addresses, timeout_s=60) as client:
        yield client
