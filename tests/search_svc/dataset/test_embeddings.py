from dataclasses import replace

import numpy as np
import pytest

from search_svc.building.build_source import BuildSource
from search_svc.dataset import photo_list as manifest
from search_svc.dataset.cuts import COLUMNS, Cut
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import Photo
from search_svc.voting.labels import parse
from svckit.artifact import ArtifactError, write_manifest

PHOTOS = [Photo(f"honda_pilot_2011/{i}.jpg", parse("honda_pilot_2011"), "train") for i in range(3)]
FIELDS = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 4, "count": 3, "normalized": True}


def write(directory, *, matrix=None, photos=PHOTOS, **fields):
    directory.mkdir()
    np.save(directory / "embeddings.npy", np.eye(3, 4, dtype=np.float16) if matrix is None else matrix)
    manifest.write(directory / "items.csv", photos)
    write_manifest(directory, {**FIELDS, **fields})
    return directory


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_row_of_the_matrix_is_a_photo(tmp_path, dtype):
    embeddings = Embeddings.open(write(tmp_path / "e", matrix=np.eye(3, 4, dtype=dtype)))
    assert embeddings.photos == tuple(PHOTOS)
    assert isinstance(embeddings.matrix, np.memmap)
    assert np.array_equal(embeddings.matrix, np.eye(3, 4))
    assert (embeddings.model, embeddings.model_name, embeddings.normalized) == ("f" * 64, "m", True)


def with_cuts(directory, lines):
    """Adds the columns of cuts to the artifact."""
    write(directory)
    path = directory / "items.csv"
    heading, *rows = path.read_text().splitlines()
    rows = [f"{row},{line}" for row, line in zip(rows, lines, strict=True)]
    path.write_text("\n".join([f"{heading},{','.join(COLUMNS)}", *rows, ""]))
    write_manifest(directory, FIELDS)
    return directory


def test_what_of_the_photos_was_embedded_is_in_more_columns(tmp_path):
    lines = ["0.25,0.125,0.75,1,0.875,false", "0,0,1,1,,true", "0,0,1,1,0.5,false"]
    embeddings = Embeddings.open(with_cuts(tmp_path / "e", lines))
    assert embeddings.photos == (PHOTOS[0], replace(PHOTOS[1], no_car_found=True), PHOTOS[2])
    assert embeddings.cuts[0] == Cut(0.25, 0.125, 0.75, 1, 0.875)
    source = BuildSource.of(embeddings, np.array([2, 1]))
    assert [source.cuts[0], source.cuts[1]] == [Cut(0, 0, 1, 1, 0.5), Cut(0, 0, 1, 1, no_car_found=True)]
    assert source.select([1]).cuts[0].no_car_found


def test_of_embeddings_without_them_it_is_not_known(tmp_path):
    embeddings = Embeddings.open(write(tmp_path / "e"))
    assert embeddings.cuts is None
    assert BuildSource.of(embeddings, np.array([0])).cuts is None


@pytest.mark.parametrize(
    ("spoiled", "file", "reason"),
    [
        ({"kind": "index"}, "manifest.json", "kind must be 'embeddings', got 'index'"),
        ({"count": "many"}, "manifest.json", "a field is missing or of the wrong type: invalid literal"),
        ({"count": None}, "manifest.json", "a field is missing or of the wrong type: "),
        ({"photos": PHOTOS[:2]}, "items.csv", "lists 2 photos, its manifest says 3"),
        (
            {"photos": [*PHOTOS[:2], Photo("2.jpg", replace(PHOTOS[2].label, make="kia", year=None), "dev")]},
            "items.csv",
            "make 'honda', model 'pilot', year 2011 in line 2, but make 'kia', model 'pilot', year not known in line 4",
        ),
        ({"dimension": 5}, "embeddings.npy", "must be float16 or float32 (3, 5), is float16 (3, 4)"),
        ({"matrix": np.eye(3, 4)}, "embeddings.npy", "must be float16 or float32 (3, 4), is float64 (3, 4)"),
        ({"matrix": np.eye(2, 4, dtype=np.float16)}, "embeddings.npy", "(3, 4), is float16 (2, 4)"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused_with_the_reason(tmp_path, spoiled, file, reason):
    with pytest.raises(ArtifactError) as caught:
        Embeddings.open(write(tmp_path / "e", **spoiled))
    assert caught.value.path == tmp_path / "e" / file
    assert reason in caught.value.reason


def test_where_no_embeddings_are_one_is_told_what_makes_them(tmp_path):
    with pytest.raises(ArtifactError, match="no embeddings here; `vmmr-embedder embed` makes them"):
        Embeddings.open(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["embeddings.npy", "items.csv"])
def test_a_changed_file_is_found(tmp_path, file):
    path = write(tmp_path / "e") / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{file}: is damaged"):
        Embeddings.open(tmp_path / "e")
