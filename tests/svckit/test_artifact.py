import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svckit.artifact import (
    ArtifactError,
    atomic_directory,
    atomic_write,
    move_directory,
    read_manifest,
    remove_directory,
    sealed,
    sha256,
    write_manifest,
)


@pytest.fixture
def artifact(tmp_path):
    """A directory of two files and their manifest."""
    path = tmp_path / "artifact"
    with atomic_directory(path) as draft:
        (draft / "items.csv").write_text("a,b\n")
        (draft / "shards").mkdir()
        (draft / "shards" / "000.bin").write_bytes(bytes(1000))
        write_manifest(draft, {"kind": "sample", "count": 2})
    return path


def test_a_directory_appears_whole(tmp_path):
    path = tmp_path / "parents" / "out"
    with atomic_directory(path) as draft:
        (draft / "file").write_text("x")
        assert not path.exists()
    assert [child.name for child in path.iterdir()] == ["file"]
    assert [child.name for child in path.parent.iterdir()] == ["out"]


def test_everything_is_on_the_disk_before_a_directory_appears(tmp_path, monkeypatch):
    path = tmp_path / "out"
    flushed = set()
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        fsync(descriptor)
        if not path.exists():
            flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", spy)
    with atomic_directory(path) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "file").write_text("x")
    assert {child.stat().st_ino for child in (path, *path.rglob("*"))} <= flushed


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_directory_that_fails_leaves_nothing(tmp_path, error):
    def fails() -> None:
        with atomic_directory(tmp_path / "out") as draft:
            (draft / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_never_overwritten(artifact):
    with (
        pytest.raises(ArtifactError, match="artifact: already exists: delete it, or write to"),
        atomic_directory(artifact),
    ):
        pytest.fail("the block must not run")
    assert read_manifest(artifact)["kind"] == "sample"


def test_a_directory_that_appeared_meanwhile_is_not_overwritten(tmp_path):
    def is_overtaken() -> None:
        with atomic_directory(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").touch()

    with pytest.raises(ArtifactError, match="already exists"):
        is_overtaken()
    assert [child.name for child in tmp_path.rglob("*")] == ["out", "theirs"]


def fail(number, path):
    raise OSError(number, os.strerror(number), str(path))


@pytest.fixture
def of_image(artifact, monkeypatch):
    """The directory, where none that is there by now can be renamed, as those of a container's image cannot."""
    image, rename = {path.stat().st_ino for path in artifact.parent.rglob("*") if path.is_dir()}, os.rename

    def fails(source, target):
        if Path(source).stat().st_ino in image:
            fail(errno.EXDEV, source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    return artifact


def test_a_directory_of_an_image_is_moved_whole(of_image, tmp_path):
    before = read_manifest(of_image)
    move_directory(of_image, tmp_path / "moved")
    assert read_manifest(tmp_path / "moved") == before
    assert [child.name for child in tmp_path.iterdir()] == ["moved"]


def test_a_directory_of_an_image_stays_where_it_is_if_it_cannot_be_copied(of_image, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "copyfile", lambda _, copy: fail(errno.ENOSPC, copy))
    with pytest.raises(OSError, match=r"No space left on device: .*/moved/"):
        move_directory(of_image, tmp_path / "moved")
    assert [child.name for child in tmp_path.iterdir()] == ["artifact"]
    read_manifest(of_image)


def test_a_directory_of_an_image_is_removed(of_image, tmp_path):
    remove_directory(of_image)
    assert not list(tmp_path.iterdir())


def test_a_directory_has_the_usual_permissions(artifact, tmp_path):
    (tmp_path / "plain").mkdir()
    assert artifact.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "CURRENT"
    atomic_write(path, b"1")
    with path.open("rb") as reader:
        atomic_write(path, b"22")
        assert reader.read() == b"1", "who has it open keeps the old content"
    assert path.read_bytes() == b"22"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "name"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        atomic_write(path, b"x")
    assert caught.value.filename == str(path), "and the name that was given is told, not the draft's"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_begun_is_told_of_the_name_that_was_given(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "out"
    with pytest.raises(NotADirectoryError) as caught:
        atomic_write(path, b"x")
    assert caught.value.filename == str(path)


def test_errors_within_a_directory_are_told_of_the_name_that_was_given(tmp_path):
    def fails(name):
        with atomic_directory(tmp_path / "out") as draft:
            (draft / name).read_bytes()

    for name, told in (("inner/file", tmp_path / "out/inner/file"), (tmp_path / "theirs", tmp_path / "theirs")):
        with pytest.raises(FileNotFoundError) as caught:
            fails(name)
        assert caught.value.filename == str(told)


def test_a_manifest_comes_back_with_every_files_size_and_sha256(artifact):
    manifest = read_manifest(artifact)
    assert (manifest["kind"], manifest["count"]) == ("sample", 2)
    assert manifest["files"] == {
        name: {"sha256": sha256(artifact / name), "bytes": size}
        for name, size in (("items.csv", 4), ("shards/000.bin", 1000))
    }


@given(content=st.binary(), position=st.integers(0), change=st.integers(1, 255))
def test_any_changed_byte_is_found(tmp_path_factory, content, position, change):
    path = tmp_path_factory.mktemp("artifact")
    (path / "data").write_bytes(b"x" + content)
    write_manifest(path, {})
    damaged = bytearray(b"x" + content)
    damaged[position % len(damaged)] ^= change
    (path / "data").write_bytes(damaged)
    with pytest.raises(ArtifactError, match="data: is damaged"):
        read_manifest(path)
    assert read_manifest(path, verify=False)["files"]


@pytest.mark.parametrize("verify", [True, False])
def test_any_changed_value_of_a_manifest_is_found(artifact, verify):
    path = artifact / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        if not whole[place : place + 1].isspace():
            with pytest.raises(ArtifactError) as caught:
                read_manifest(artifact, verify=verify)
            assert caught.value.path == path


def test_a_manifest_says_what_its_sha256_should_be(artifact):
    path = artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "count": 3}))
    with pytest.raises(ArtifactError, match=r"^\S+manifest\.json: is damaged or was edited: ") as caught:
        read_manifest(artifact)
    path.write_text(json.dumps({**manifest, "count": 3, "sha256": caught.value.reason.split()[-1]}))
    assert read_manifest(artifact)["count"] == 3


def test_a_manifest_without_sha256_is_refused(artifact):
    path = artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="`sha256` says nothing, its content has"):
        read_manifest(artifact)


def test_a_manifest_is_sealed_whatever_the_order_of_its_fields():
    manifest = sealed({"b": {"d": 1, "c": [0.25, "Š"]}, "a": None})
    assert sealed({"a": None, "b": {"c": [0.25, "Š"], "d": 1}})["sha256"] == manifest["sha256"]
    assert sealed(manifest) == manifest


@pytest.mark.parametrize("verify", [True, False])
def test_missing_and_shortened_files_are_found_even_without_hashing(artifact, verify):
    os.truncate(artifact / "shards" / "000.bin", 999)
    with pytest.raises(ArtifactError, match=r"000\.bin: has 999 bytes, its manifest says 1000"):
        read_manifest(artifact, verify=verify)
    (artifact / "items.csv").unlink()
    with pytest.raises(ArtifactError, match=r"items\.csv: is missing"):
        read_manifest(artifact, verify=verify)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        ({}, "`files` does not give"),
        ({"files": []}, "`files` does not give"),
        ({"files": {"a": "hash"}}, "`files` does not give"),
        ({"files": {"a": {"sha256": "x"}}}, "`files` does not give"),
    ],
)
def test_a_manifest_that_is_none_is_named(tmp_path, content, reason):
    if isinstance(content, dict):
        content = json.dumps(sealed(content)).encode()
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"manifest\.json: {reason}"):
        read_manifest(tmp_path)


def test_a_manifest_may_have_another_name(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    write_manifest(tmp_path, {"name": "tiny"}, filename="model.json")
    assert read_manifest(tmp_path, "model.json")["name"] == "tiny"


def test_a_manifest_written_again_does_not_list_itself(artifact):
    write_manifest(artifact, {"kind": "other"})
    assert read_manifest(artifact)["files"].keys() == {"items.csv", "shards/000.bin"}


def test_a_manifest_is_strict_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, {"score": float("nan")})
    write_manifest(tmp_path, {"text": "Škoda"})
    assert json.loads((tmp_path / "manifest.json").read_text())["text"] == "Škoda"
