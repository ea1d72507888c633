"""`vmmr-embedder fetch`: a bundle comes from object storage whole and verified, or not at all."""

import json
import shutil

import fsspec
import pytest

from embedder_svc.__main__ import parser
from embedder_svc.network import bundle
from embedder_svc.network.fetch_command import fetch
from svckit.artifact import sealed
from svckit.cli import CommandError
from tests.embedder_svc import tiny_bundle


@pytest.fixture
def source(tmp_path):
    tiny_bundle.make(tmp_path / "source", detector={})
    return tmp_path / "source"


def test_a_bundle_comes_from_wherever_fsspec_reads(source, tmp_path, capsys):
    url = f"memory://{tmp_path.name}/model"
    fsspec.filesystem("memory").put(f"{source}/", url, recursive=True)
    args = parser().parse_args(["fetch", url, str(tmp_path / "model")])
    args.run(args)
    assert bundle.read(tmp_path / "model") == bundle.read(source)
    assert bundle.read(source).fingerprint[:12] in capsys.readouterr().out


def test_one_that_is_there_is_kept_if_it_is_whole(source, tmp_path):
    model = shutil.copytree(source, tmp_path / "model")
    fetch("file:///nowhere", model)
    (model / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(bundle.ArtifactError, match=r"model/model\.onnx"):
        fetch(str(source), model)


@pytest.mark.parametrize("name", ["model.onnx", "detector.onnx", "model.json"])
def test_damage_on_the_way_is_told_of_the_file_and_nothing_is_left(source, tmp_path, name):
    content = bytearray((source / name).read_bytes())
    content[len(content) // 2] ^= 1
    (source / name).write_bytes(content)
    with pytest.raises(CommandError, match=f"{source}/{name}: "):
        fetch(str(source), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_lets_somebody_in_by_the_url_is_not_told(tmp_path):
    for url in ("memory://me:hidden@nowhere/model", "nosuch://me:hidden@nowhere/model"):
        with pytest.raises(CommandError, match="//nowhere/model") as caught:
            fetch(url, tmp_path / "model")
        assert "hidden" not in str(caught.value)


def test_whatever_a_library_raises_is_told_without_secrets(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise LookupError("no credentials for s3://me:hidden@bucket")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "get_file", fail)
    with pytest.raises(CommandError, match=r"^memory://bucket/model\.json: LookupError: no credentials") as caught:
        fetch("memory://me:hidden@bucket", tmp_path / "model")
    assert "hidden" not in str(caught.value)


def test_what_is_missing_is_told(source, tmp_path):
    (source / "detector.onnx").unlink()
    with pytest.raises(CommandError, match=r"source/detector\.onnx: is missing"):
        fetch(str(source), tmp_path / "model")
    with pytest.raises(CommandError, match=r"nowhere/model\.json: is missing"):
        fetch(str(tmp_path / "nowhere"), tmp_path / "model")


def test_a_description_can_not_write_elsewhere(source, tmp_path):
    fields = json.loads((source / "model.json").read_text())
    fields["files"]["../../outside"] = fields["files"]["model.onnx"]
    (source / "model.json").write_text(json.dumps(sealed(fields)))
    with pytest.raises(CommandError, match="outside of the bundle"):
        fetch(str(source), tmp_path / "model")


def test_a_place_that_is_none_is_told(tmp_path):
    with pytest.raises(CommandError, match="nonsense://model"):
        fetch("nonsense://model", tmp_path / "model")
