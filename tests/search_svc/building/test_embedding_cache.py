"""`migration.db`: what was embedded anew is had again as it was, or not at all."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from search_svc.building.embedding_cache import FILE, EmbeddingCache, Remade, photo_key
from search_svc.dataset.cuts import Cut
from svckit.artifact import ArtifactError

MODEL = "c0ffee" + 58 * "0"
D = 8
KEYS = [photo_key(name, f"{name}.jpg", b"old") for name in "ab"]
CUTS = [Cut(0.25, 0.125, 0.75, 1.0, 0.875), None]
VECTORS = np.random.default_rng(0).standard_normal((2, D)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Two photos, and a version that was built of them."""
    with EmbeddingCache(tmp_path, MODEL, D) as cache:
        cache.add({key: Remade(vector, cut) for key, vector, cut in zip(KEYS, VECTORS, CUTS, strict=True)})
        cache.record_build("a gallery")
    return tmp_path


def change(folder, *statements):
    with closing(sqlite3.connect(folder / FILE)) as other, other:
        for statement in statements:
            other.execute(statement)


def read(folder):
    """All that a migration asks for."""
    with EmbeddingCache(folder, MODEL, D) as cache:
        return cache.last_build, cache.rows(KEYS)[np.arange(2)].tolist()


def test_what_was_added_is_had_again(folder):
    assert read(folder) == ("a gallery", VECTORS.astype(np.float16).tolist())


def test_what_of_a_photo_was_embedded_is_had_again_and_a_change_of_it_is_found(folder):
    with EmbeddingCache(folder, MODEL, D) as cache:
        assert [cache.cuts(KEYS)[row] for row in range(2)] == CUTS
    change(folder, "UPDATE remade SET cut = replace(cut, '0.875', '0.625')")
    with EmbeddingCache(folder, MODEL, D) as cache, pytest.raises(ArtifactError, match="not what was written"):
        cache.cuts(KEYS)


def test_a_file_of_before_there_were_cuts_goes_on_being_used(folder):
    change(folder, "DELETE FROM remade WHERE cut IS NOT NULL", "ALTER TABLE remade DROP COLUMN cut")
    with EmbeddingCache(folder, MODEL, D) as cache:
        assert (cache.has(KEYS[0]), cache.cuts(KEYS[1:])[0]) == (False, None)
        assert cache.get(KEYS[1]).tolist() == VECTORS[1].astype(np.float16).tolist()
        cache.add({KEYS[0]: Remade(VECTORS[0], CUTS[0])})
        assert [cache.cuts(KEYS)[row] for row in range(2)] == CUTS


def test_a_bit_of_an_embedding_that_flipped_is_found_and_the_file_named_with_what_helps(folder):
    content = bytearray((folder / FILE).read_bytes())
    content[content.index(VECTORS[1].astype("<f2").tobytes()) + 5] ^= 4
    (folder / FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"an embedding is not what was written\): delete it") as found:
        read(folder)
    assert found.value.path == folder / FILE


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE remade SET embedding = CAST(embedding AS TEXT) WHERE rowid = 1",
        "UPDATE meta SET value = 'another' WHERE name = 'built'",
        "UPDATE meta SET value = 'another' WHERE name = 'model'",
        "UPDATE meta SET name = 'buill' WHERE name = 'built'",
    ],
)
def test_whatever_steers_what_is_built_is_found_to_be_another(folder, statement):
    change(folder, statement)
    with pytest.raises(ArtifactError, match=r"migration\.db: is damaged"):
        read(folder)


def test_embeddings_that_have_changed_places_are_found(folder):
    first, second = (f"x'{key.hex()}'" for key in KEYS)
    change(
        folder,
        f"UPDATE remade SET photo = x'00' WHERE photo = {first}",
        f"UPDATE remade SET photo = {first} WHERE photo = {second}",
        f"UPDATE remade SET photo = {second} WHERE photo = x'00'",
    )
    with pytest.raises(ArtifactError, match="an embedding is not what was written"):
        read(folder)


def test_a_file_that_was_made_without_checksums_gets_them(folder):
    change(
        folder,
        "ALTER TABLE remade DROP COLUMN cut",
        "ALTER TABLE remade DROP COLUMN checksum",
        "ALTER TABLE meta DROP COLUMN checksum",
    )
    assert read(folder) == ("a gallery", VECTORS.astype(np.float16).tolist())
    change(folder, "UPDATE meta SET value = 'another' WHERE name = 'built'")
    with pytest.raises(ArtifactError, match="`meta` is not what was written"):
        read(folder)
