"""Artifacts of older code are read as docs/upgrades.md says, and those of later code are refused by name.

Each archive was made by `make.py` with the code of an older commit:

- `first-journal`: 6a4e26e, before journals had a mark, versions sums and cuts, and models detectors; journal format 1, preprocessing 1;
- `before-deciles`: 34f135b, before calibrations had deciles.
"""

import json
import re
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from embedder_svc.network import bundle
from embedder_svc.network.model import Model
from embedder_svc.photos.manifest import Manifest
from search_svc.dataset.embeddings import Embeddings
from search_svc.index.journal import Journal
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError, read_sealed, write_manifest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "upgrades.md").read_text()
ARCHIVES = ("first-journal", "before-deciles")
TIMEOUT_S = 300


@pytest.fixture(params=ARCHIVES)
def old(request, tmp_path):
    return unpacked(request.param, tmp_path)


def unpacked(name, target):
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        archive.extractall(target, filter="data")
    return target


class Pair:
    """Stubs of a search service."""

    def __init__(self, channel):
        self.search = search_pb2_grpc.SearchServiceStub(channel)
        self.gallery = gallery_pb2_grpc.GalleryServiceStub(channel)

    def ask(self, folder):
        """Ask what `make.py` asked the old server."""
        model = json.loads((folder / "embeddings/manifest.json").read_text())["model"]
        vectors = np.load(folder / "embeddings/embeddings.npy").astype(np.float32)
        options = search_pb2.SearchOptions(k=5, exact=True)
        request = search_pb2.ClassifyRequest(queries=wire.pack(model, vectors[::5]), options=options)
        return self.search.Classify(request, timeout=TIMEOUT_S).results


@pytest.fixture
def serve(run, connect):
    """`serve(index)`: stubs of `vmmr-search serve` over it."""
    return lambda index: Pair(connect(run("-m", "search_svc", "serve", "--index", index, "--port", 0).ready()["port"]))


def assert_as_then(results, folder):
    """What is answered now is what the old server answered, to the last bits of a score."""
    then = json.loads((folder / "answers.json").read_text())
    assert len(then) == 32
    for now, before in zip(results, then, strict=True):
        for neighbour, (item_id, label, uri, score) in zip(now.neighbours, before["neighbours"], strict=True):
            assert (neighbour.item_id, neighbour.label.label, neighbour.uri) == (item_id, label, uri)
            assert neighbour.score == pytest.approx(score, abs=1e-6)
        assert (now.answer.label, now.verdict) == (before["answer"], before["verdict"])
        assert now.label_confidence == pytest.approx(before["confidence"], abs=1e-5)


def test_an_index_that_was_written_to_answers_as_it_did_and_takes_more(old, serve):
    with Journal.open(old / "index") as journal:
        assert journal.sequence() == 4
    pair = serve(old / "index")
    assert_as_then(pair.ask(old), old)
    model = IndexVersion.open(old / "index").manifest.model
    item = gallery_pb2.Item(item_id="newest", label="make9_model 9_2020")
    request = gallery_pb2.AddItemsRequest(items=[item], embeddings=wire.pack(model, np.eye(1, 16, dtype=np.float32)))
    assert pair.gallery.AddItems(request, timeout=TIMEOUT_S).journal_sequence == 5


def command(*arguments):
    """Run `vmmr-search`, and return what it ended with and said."""
    words = [sys.executable, "-m", "search_svc", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_old_index_can_be_compacted_to_a_version_of_today(old, serve):
    code, said = command("compact", old / "index")
    assert code == 0, said
    manifest = IndexVersion.open(old / "index").manifest
    assert (manifest.version, manifest.journal_sequence) == ("000002", 4)
    assert_as_then(serve(old / "index").ask(old), old)


def test_an_old_backup_is_restored(old, tmp_path, serve):
    code, said = command("restore", old / "backup", tmp_path / "restored")
    assert code == 0, said
    assert_as_then(serve(tmp_path / "restored").ask(old), old)


def test_old_embeddings_and_manifests_are_read(old):
    embeddings = Embeddings.open(old / "embeddings")
    assert len(Manifest.read(old / "manifest.csv").rows) == len(embeddings.photos) == 160
    assert {photo.split for photo in embeddings.photos} == {"train", "dev"}


def test_a_bundle_of_the_same_preprocessing_is_read_and_embeds_as_it_did(tmp_path):
    old = unpacked("before-deciles", tmp_path)
    model = Model.open(old / "bundle", device="cpu", threads=1, max_batch=1)
    assert model.info.fingerprint == Embeddings.open(old / "embeddings").model


def test_a_bundle_of_another_preprocessing_is_refused_and_says_so(tmp_path):
    old = unpacked("first-journal", tmp_path)
    with pytest.raises(ArtifactError, match=r"model\.json: is for preprocessing 1, this vmmr does 2"):
        bundle.read(old / "bundle")


# --- what is of later code ----------------------------------------------------------------------------------------------


def of_a_later_format(folder, filename="manifest.json"):
    """Write the manifest as a later vmmr would, whose files are not what they were."""
    fields = read_sealed(folder / filename)
    write_manifest(folder, {**fields, "format": 2}, filename)


LATER = "has format 2; this vmmr reads 1: a later one wrote it, and reads it"


@pytest.fixture
def today(tmp_path):
    return unpacked("before-deciles", tmp_path)


def test_a_later_index_version_is_refused(today):
    of_a_later_format(today / "index/versions/000001")
    with pytest.raises(ArtifactError, match=rf"versions/000001/manifest\.json: {LATER}"):
        IndexVersion.open(today / "index")


def test_later_embeddings_are_refused(today):
    of_a_later_format(today / "embeddings")
    with pytest.raises(ArtifactError, match=LATER):
        Embeddings.open(today / "embeddings")


def test_a_later_bundle_is_refused(today):
    of_a_later_format(today / "bundle", "model.json")
    with pytest.raises(ArtifactError, match=LATER):
        bundle.read(today / "bundle")


def test_a_later_backup_is_refused(today, tmp_path):
    of_a_later_format(today / "backup")
    code, said = command("restore", today / "backup", tmp_path / "restored")
    assert code == 1
    assert LATER in said
    assert "Traceback" not in said
    assert not (tmp_path / "restored").exists()


def test_a_later_journal_is_refused(today):
    with closing(sqlite3.connect(today / "index/journal.db")) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(
        ArtifactError, match=r"journal\.db: has format 3; this vmmr-search reads 2: use the one that wrote it"
    ):
        Journal.open(today / "index")


@pytest.mark.parametrize("stated", [0, -1, "2", None, 2.5])
def test_a_format_that_there_cannot_be_is_refused(today, stated):
    fields = read_sealed(today / "bundle/model.json")
    write_manifest(today / "bundle", {**fields, "format": stated}, "model.json")
    with pytest.raises(ArtifactError, match="has format"):
        bundle.read(today / "bundle")


def test_what_later_code_adds_without_another_format_is_read(today):
    folder = today / "index/versions/000001"
    write_manifest(folder, {**read_sealed(folder / "manifest.json"), "discovered_later": {"a": 1}})
    assert IndexVersion.open(today / "index").manifest.items == 48


# --- the page -----------------------------------------------------------------------------------------------------------


def test_the_page_has_a_row_for_each_kind_of_artifact_and_names_what_is_tested():
    rows = re.findall(r"^\| ([^|]+) \|", PAGE.split("## On disk")[1].split("\n## ")[0], re.MULTILINE)[1:]
    kinds = ["index version", "journal", "backup", "embeddings", "manifest", "model bundle"]
    assert [kind for kind in kinds if not any(row.startswith(kind) for row in rows)] == []
    assert all(f"`{name}`" in PAGE for name in ARCHIVES)


def test_the_archives_are_small():
    assert sum((HERE / f"{name}.tar.xz").stat().st_size for name in ARCHIVES) < 200_000
