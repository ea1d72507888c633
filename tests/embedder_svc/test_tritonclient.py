"""NVIDIA's own client, as users install it, against `vmmr-embedder serve`."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2

VERSION = "2.73.0"
SCRIPT = Path(__file__).with_name("triton_client.py")
TIMEOUT_S = 60

# Its installation, once a checkout, counts.
pytestmark = pytest.mark.xdist_group("tritonclient")


@pytest.fixture(scope="module")
def tritonclient(root):
    """A folder with tritonclient and all that it needs: it must not be in our environment, since it wants protobuf < 7."""
    folder = root / ".cache" / f"tritonclient-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent)) / "packages"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", fresh]
        done = subprocess.run([*pip, f"tritonclient[grpc]=={VERSION}"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh.parent)
            # CI must run this; a traveller without a network need not.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"tritonclient can't be installed: {done.stderr}")
        fresh.rename(folder)
        fresh.parent.rmdir()
    return folder


@pytest.fixture(scope="module")
def paths(tmp_path_factory, scene, encode):
    folder = tmp_path_factory.mktemp("photos")
    photos = [encode(scene, "JPEG"), encode(scene[:, :48].copy(), "PNG"), encode(scene[::-1].copy(), "WEBP")]
    for i, photo in enumerate(photos):
        (folder / str(i)).write_bytes(photo)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def port(tiny_bundle, module_spawn):
    return module_spawn("--model", tiny_bundle).ready()["port"]


@pytest.fixture(scope="module")
def python(tritonclient):
    """`python(arguments, **options)` runs a program with tritonclient; what it printed."""

    def run(*arguments, **options):
        # Without site: our own packages must not be found in the place of its own.
        command = [sys.executable, "-S", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(tritonclient)}
        captured = {"capture_output": True, "text": True, "timeout": TIMEOUT_S}
        done = subprocess.run(command, check=False, env=environment, **captured, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def heard(python, port, paths):
    """The answers that tritonclient got; see triton_client.py."""
    return json.loads(python(SCRIPT, port, *paths))


@pytest.fixture(scope="module")
def embeddings(port, paths, module_dial):
    """The embeddings of the photos over the embedder's own protocol."""
    images = [embedder_pb2.Image(content=path.read_bytes()) for path in paths]
    answer = module_dial(port).Embed(embedder_pb2.EmbedRequest(images=images), timeout=TIMEOUT_S)
    return wire.unpack(answer.embeddings)


def test_it_finds_server_and_model_ready(heard):
    assert (heard["live"], heard["ready"], heard["model_ready"]) == (True, True, True)


def test_it_reads_what_server_and_model_are(heard):
    assert heard["server"]["name"] == "vmmr-embedder"
    assert heard["model"]["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": ["-1", "1"]}]
    assert heard["model"]["outputs"] == [{"name": "embeddings", "datatype": "FP32", "shape": ["-1", "16"]}]
    assert heard["config"]["max_batch_size"] == 32
    assert heard["config"]["input"] == [{"name": "images", "data_type": "TYPE_STRING", "dims": ["1"]}]


@pytest.mark.parametrize("shape", ["flat", "column"])
def test_it_gets_the_embedders_own_embeddings_whatever_the_shape(heard, embeddings, shape):
    assert np.array_equal(np.array(heard[shape], np.float32), embeddings)


def test_it_gets_its_request_id_back_and_may_compress(heard, embeddings):
    assert heard["id"] == "seven"
    assert np.array_equal(np.array(heard["one"], np.float32), embeddings[:1])


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        ("unknown_model", "NOT_FOUND", "there is no model 'resnet50', only 'tiny' is served"),
        ("unknown_version", "NOT_FOUND", "model 'tiny' has no version '7', only "),
        (
            "pixels",
            "INVALID_ARGUMENT",
            "inputs[0].datatype must be 'BYTES', each element an encoded photo, got 'UINT8'",
        ),
        ("bad_photo", "INVALID_ARGUMENT", "1 of 4 images can't be used; images[3].content: the file is text"),
        ("no_output", "INVALID_ARGUMENT", "outputs[0].name must be 'embeddings', got 'logits'"),
        ("classes", "INVALID_ARGUMENT", "outputs[0].parameters['classification'] is not supported"),
    ],
)
def test_it_is_told_exactly_what_is_wrong(heard, case, status, said):
    code, message = heard[case]
    assert code == f"StatusCode.{status}"
    assert message.startswith(said)


def test_the_pages_example_runs(root, python, port, paths, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (root / "docs/kserve.md").read_text(), re.DOTALL)
    (tmp_path / "car.jpg").write_bytes(paths[0].read_bytes())
    here = example.replace("127.0.0.1:50051", f"127.0.0.1:{port}").replace("resnet50-cars-int8", "tiny")
    assert python("-c", here, cwd=tmp_path) == "(1, 16)\n"
