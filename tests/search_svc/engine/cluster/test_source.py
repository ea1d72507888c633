"""Where a node finds the files of a version: on storage that all nodes share, or copied from a URL and checked."""

import os
import time
from functools import partial
from unittest.mock import Mock

import fsspec
import numpy as np
import pytest

from search_svc.building.spec import IndexSpec
from search_svc.engine.cluster.source import NodeFiles, VersionSource
from search_svc.index.version import listed
from svckit.artifact import ArtifactError


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    return build_index(vectors, directory=tmp_path_factory.mktemp("index"), spec=IndexSpec(shards=2))


@pytest.fixture
def remote(version):
    """A URL of a copy of the index, in the memory of this process."""
    memory = fsspec.filesystem("memory")
    memory.put(str(version.path), f"/index/versions/{version.path.name}", recursive=True)
    yield memory
    memory.rm("/index", recursive=True)


def source(version, storage, cache):
    return VersionSource.of(version, str(storage), str(cache))


def test_what_all_nodes_share_is_read_where_it_is(version, tmp_path):
    files = NodeFiles(source(version, version.path.parents[1], tmp_path / "cache"))
    assert files.shard(1) == version.shard_paths[1]
    assert files.embeddings() == version.path / "embeddings.npy"
    assert not (tmp_path / "cache").exists()


def test_a_shard_that_is_not_what_was_built_is_refused_by_name(version, tmp_path, build_index):
    copy = build_index(np.eye(8, dtype=np.float32), directory=tmp_path / "index", spec=IndexSpec(shards=2))
    path = copy.shard_paths[0]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=r"shard-000\.faiss: sha256 is"):
        NodeFiles(source(copy, tmp_path / "index", tmp_path)).shard(0)


def test_another_index_under_the_path_of_that_node_is_refused_by_both_manifests(version, tmp_path, build_index):
    vectors = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
    other = build_index(vectors, directory=tmp_path / "index", spec=IndexSpec(shards=2))
    mine, theirs = (listed(each.path)[0] for each in (version, other))
    with pytest.raises(ArtifactError, match=rf"000001/manifest\.json: sha256 is {theirs}, .* opened is {mine}"):
        NodeFiles(source(version, tmp_path / "index", tmp_path)).embeddings()


@pytest.mark.parametrize("file", ["embeddings.npy", "shard-000.faiss"])
def test_a_file_that_is_not_as_long_as_it_was_built_is_refused_by_both_sizes(tmp_path, build_index, file):
    copy = build_index(np.eye(8, dtype=np.float32), directory=tmp_path / "index", spec=IndexSpec(shards=2))
    long = copy.path.joinpath(file).stat().st_size
    where = source(copy, tmp_path / "index", tmp_path)
    with copy.path.joinpath(file).open("ab") as stale:
        stale.write(b"older rows")
    files = NodeFiles(where)
    opened = files.embeddings if file == "embeddings.npy" else partial(files.shard, 0)
    with pytest.raises(ArtifactError, match=rf"{file}: has {long + 10} bytes, its manifest says {long}"):
        opened()


def test_an_index_that_is_not_on_the_node_is_named_with_the_reason(version, tmp_path):
    with pytest.raises(ArtifactError, match="must be on storage that all nodes share"):
        NodeFiles(source(version, tmp_path / "elsewhere", tmp_path)).shard(0)


def test_what_lets_somebody_in_by_the_url_is_not_told(version, tmp_path):
    where = source(version, "memory://me:hidden@bucket/index", tmp_path / "cache")
    with pytest.raises(ArtifactError, match="bucket/index/versions") as caught:
        NodeFiles(where).shard(0)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("error", [LookupError("no credentials for https://me:hidden@bucket"), ValueError("hidden=no")])
def test_an_error_of_the_library_that_reads_a_url_names_the_file(version, remote, tmp_path, monkeypatch, error):
    """As botocore's NoCredentialsError, which is no OSError."""
    monkeypatch.setattr(type(remote), "open", Mock(side_effect=error))
    with pytest.raises(ArtifactError, match=rf"shard-000\.faiss: {type(error).__name__}: ") as caught:
        NodeFiles(source(version, "memory://index", tmp_path / "cache")).shard(0)
    assert "me:hidden" not in str(caught.value)


def test_a_kind_of_url_that_the_node_cannot_read_is_named(version, tmp_path):
    with pytest.raises(ArtifactError, match="nowhere:/bucket/index/versions/000001: Protocol not known"):
        NodeFiles(source(version, "nowhere://me:hidden@bucket/index", tmp_path / "cache"))


def test_what_is_at_a_url_is_copied_once_and_checked(version, remote, tmp_path):
    where = source(version, "memory://index", tmp_path / "cache")
    path = NodeFiles(where).shard(0)
    assert path.read_bytes() == version.shard_paths[0].read_bytes()
    remote.rm("/index/versions", recursive=True)
    remote.makedirs("/index/versions")
    assert NodeFiles(where).shard(0) == path


def test_a_copy_that_differs_from_what_was_built_is_not_kept(version, remote, tmp_path):
    remote.pipe(f"/index/versions/{version.path.name}/shard-000.faiss", b"not it")
    where = source(version, "memory://index", tmp_path / "cache")
    with pytest.raises(ArtifactError, match=r"shard-000\.faiss: sha256 is .*, the manifest says"):
        NodeFiles(where).shard(0)
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["lock"]


def test_a_copy_that_the_disk_has_damaged_is_copied_again(version, remote, tmp_path):
    where = source(version, "memory://index", tmp_path / "cache")
    path = NodeFiles(where).shard(0)
    path.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="sha256 is"):
        NodeFiles(where).shard(0)
    assert NodeFiles(where).shard(0).read_bytes() == version.shard_paths[0].read_bytes()


def test_copies_that_nobody_uses_go_after_a_while_and_others_stay(version, remote, tmp_path):
    where = source(version, "memory://index", tmp_path / "cache")
    used = NodeFiles(where)
    kept = [used.shard(0), used.embeddings()]
    unused = kept[0].with_name("0" * 64)
    unused.write_bytes(b"of an older version")
    strange = tmp_path / "cache" / "photo.jpg"
    strange.write_bytes(b"of somebody who keeps other things in that folder")
    for path in (*kept, unused, strange):
        os.utime(path, (time.time() - 7200,) * 2)
    NodeFiles(where).shard(1)
    assert not unused.exists()
    assert all(path.exists() for path in (*kept, strange))


def test_copies_in_a_folder_that_others_can_write_to_are_not_trusted(version, remote, tmp_path):
    where = source(version, "memory://index", tmp_path / "cache")
    folder = NodeFiles(where).embeddings().parent
    folder.chmod(0o777)
    with pytest.raises(ArtifactError, match="others can write to it"):
        NodeFiles(where).embeddings()


def test_versions_with_the_same_content_have_the_same_key_wherever_they_are(version, tmp_path, build_index):
    other = build_index(np.eye(8, dtype=np.float32), directory=tmp_path / "index")
    keys = {source(version, "a", "c").key, source(version, "s3://b", "d").key, source(other, "a", "c").key}
    assert len(keys) == 2
