import dataclasses
import importlib.metadata
import json
import subprocess
import sys

import pytest

from embedder_svc.__main__ import parser
from embedder_svc.network import bundle
from svckit.cli import CommandError


def run(*args):
    command = [sys.executable, "-m", "embedder_svc", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_info_prints_what_a_bundle_says_of_itself(tiny_bundle):
    done = run("info", tiny_bundle)
    assert done.returncode == 0
    assert json.loads(done.stdout) == dataclasses.asdict(bundle.read(tiny_bundle))


def test_info_of_a_damaged_bundle_names_the_file(make_bundle, tmp_path):
    make_bundle(tmp_path / "model")
    (tmp_path / "model" / "model.onnx").unlink()
    done = run("info", tmp_path / "model")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"vmmr-embedder: error: {tmp_path / 'model' / 'model.onnx'}: is missing\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--weights", "weights.pth", "--out", "model"),
        ("train", "manifest.csv", "--photos", ".", "--weights", "weights.pth", "--out", "run"),
    ],
)
def test_without_torch_a_command_that_needs_it_says_what_to_install(monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("embedder_svc.")]:
        monkeypatch.delitem(sys.modules, name)
    args = parser().parse_args(arguments)
    with pytest.raises(
        CommandError, match=r"^torch is not installed: pip install ./client '\.\[train\]', in a checkout of vmmr$"
    ):
        args.run(args)


def test_the_version_is_told():
    assert run("--version").stdout == f"vmmr-embedder {importlib.metadata.version('vmmr')}\n"


def test_the_server_needs_nothing_of_what_trains_and_exports():
    """The extra `cpu` does not install them, but for onnxruntime, which is imported only when a model is opened."""
    code = "import sys, embedder_svc.__main__ as main; main.parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "torchvision", "onnx", "safetensors", "onnxruntime"} & set(modules)
