import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_svc.building.spec import IndexSpec
from search_svc.dataset.cuts import CutCounts
from search_svc.index.version import IndexVersion, SearchParams, ShardInfo
from svckit.artifact import ArtifactError, sealed, write_manifest

FILES = ["embeddings.npy", "items.arrow", "shard-000.faiss", "shard-001.faiss", "sums.npy"]


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    """An index of two shards."""
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    spec = IndexSpec(factory="IVF2,Flat", shards=2, nprobe=2, temperature=0.25, k=3, seed=7)
    return build_index(vectors, spec=spec, directory=tmp_path_factory.mktemp("built") / "index")


@pytest.fixture
def index_dir(built, tmp_path):
    """A copy of the index, to spoil."""
    return shutil.copytree(built.path.parents[1], tmp_path / "index")


def rewrite(index_dir, **fields):
    """Changes fields of the version's manifest."""
    path = index_dir / "versions" / "000001" / "manifest.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | fields)))


def reason_of_refusal(index_dir, file, *, verify=True):
    with pytest.raises(ArtifactError) as caught:
        IndexVersion.open(index_dir, verify=verify)
    assert caught.value.path == index_dir / file
    return caught.value.reason


def test_a_version_says_how_its_photos_were_cut_and_an_older_one_that_it_does_not_know(index_dir):
    assert IndexVersion.open(index_dir).manifest.cuts == CutCounts(unknown=30)
    fields = json.loads((index_dir / "versions/000001/manifest.json").read_text())
    del fields["cuts"], fields["sha256"]
    (index_dir / "versions/000001/manifest.json").write_text(json.dumps(sealed(fields)))
    assert IndexVersion.open(index_dir).manifest.cuts is None


@pytest.mark.parametrize(
    ("cuts", "reason"),
    [
        ({"car": 29}, "cuts counts 29 photos, items says 30"),
        ({"car": "30"}, "a field is missing or of the wrong type: car is '30'"),
        ({"cars": 30}, "a field is missing or of the wrong type: "),
    ],
)
def test_cuts_that_cannot_be_are_refused(index_dir, cuts, reason):
    rewrite(index_dir, cuts=cuts)
    assert reason in reason_of_refusal(index_dir, "versions/000001/manifest.json")


def test_what_was_built_is_what_is_opened(built):
    version = IndexVersion.open(built.path.parents[1])
    manifest = version.manifest
    assert manifest == built.manifest
    assert (manifest.version, manifest.items, manifest.dimension, manifest.labels) == ("000001", 30, 8, 21)
    lengths = np.linalg.norm(version.embeddings.astype(np.float32), axis=1)
    assert [dataclasses.replace(shard, longest=None) for shard in manifest.shards] == [
        ShardInfo("shard-000.faiss", 0, 30, 2),
        ShardInfo("shard-001.faiss", 1, 30, 2),
    ]
    assert [shard.longest for shard in manifest.shards] == pytest.approx([max(lengths[::2]), max(lengths[1::2])])
    assert manifest.search == SearchParams(nprobe=2, ef_search=None)
    assert (manifest.k, manifest.temperature, manifest.seed, manifest.train_sample) == (3, 0.25, 7, 30)
    assert manifest.created.tzinfo is not None
    assert version.shard_paths == (version.path / "shard-000.faiss", version.path / "shard-001.faiss")
    assert version.embeddings.shape == (30, 8)
    assert isinstance(version.embeddings, np.memmap)
    assert not version.embeddings.flags.writeable
    assert len(version.items) == 30


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_changed_byte_is_found(built, tmp_path_factory, file, place, difference):
    index_dir = shutil.copytree(built.path.parents[1], tmp_path_factory.mktemp("copy") / "index")
    path = index_dir / "versions" / "000001" / file
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= difference
    path.write_bytes(content)
    assert reason_of_refusal(index_dir, f"versions/000001/{file}").startswith("is damaged: its sha256 is")


def test_a_changed_bit_of_the_manifest_is_found(index_dir):
    path = index_dir / "versions" / "000001" / "manifest.json"
    path.write_text(path.read_text().replace('"k": 3', '"k": 2'))
    assert reason_of_refusal(index_dir, "versions/000001/manifest.json").startswith("is damaged or was edited: ")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_or_shortened_file_is_found_without_reading_it(index_dir, file, verify):
    path = index_dir / "versions" / "000001" / file
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    reason = f"has {len(content) - 1} bytes, its manifest says {len(content)}"
    assert reason_of_refusal(index_dir, f"versions/000001/{file}", verify=verify) == reason
    path.unlink()
    assert reason_of_refusal(index_dir, f"versions/000001/{file}", verify=verify) == "is missing"


def test_a_changed_bit_of_the_items_is_found_without_reading_the_embeddings(index_dir):
    """Damage in some places of an Arrow file ends the process that opens it: nobody may get so far."""
    path = index_dir / "versions" / "000001" / "items.arrow"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    reason = reason_of_refusal(index_dir, "versions/000001/items.arrow", verify=False)
    assert reason.startswith("is damaged: its sha256 is")


@pytest.mark.parametrize("place", range(10, 128, 3))
@pytest.mark.parametrize("bit", [1, 8, 64])
def test_a_changed_bit_of_the_embeddings_header_is_no_riddle(index_dir, place, bit):
    """Numpy reads it as Python, and says of some damage what a tokenizer says."""
    path = index_dir / "versions" / "000001" / "embeddings.npy"
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)
    with contextlib.suppress(ArtifactError):
        IndexVersion.open(index_dir, verify=False)


def part(start, stop):
    return {"file": "shard-000.faiss", "start": start, "stop": stop}


def strided(start, stop=30):
    return part(start, stop) | {"step": 2}


@pytest.mark.parametrize(
    "shards", [[part(0, 30)], [part(0, 13), part(13, 30)], [part(start, 30) | {"step": 3} for start in range(3)]]
)
def test_shards_of_parts_and_of_every_nth_row_are_read_and_lengths_may_be_unknown(index_dir, shards):
    rewrite(index_dir, shards=shards)
    read = IndexVersion.open(index_dir, verify=False).manifest.shards
    assert [(shard.start, shard.stop, shard.step) for shard in read] == [
        (shard["start"], shard["stop"], shard.get("step", 1)) for shard in shards
    ]
    assert [shard.longest for shard in read] == [None] * len(shards)


def test_a_version_of_the_first_release_opens(index_dir):
    """It has neither what later releases wrote into its manifest, nor the sums of its labels."""
    kept = IndexVersion.open(index_dir).means.sum_of(0)
    manifest = json.loads((index_dir / "versions/000001/manifest.json").read_text())
    (index_dir / "versions/000001/sums.npy").unlink()
    later = ("journal_sequence", "cuts")
    old = {name: value for name, value in manifest.items() if name not in later} | {
        "shards": [part(0, 30)],
        "search": {"nprobe": None, "ef_search": None},
        "files": {name: entry for name, entry in manifest["files"].items() if name != "sums.npy"},
    }
    (index_dir / "versions/000001/manifest.json").write_text(json.dumps(sealed(old)))
    version = IndexVersion.open(index_dir, verify=False)
    assert version.manifest.shards == (ShardInfo("shard-000.faiss", 0, 30, 1, None),)
    assert version.manifest.search.rerank is None
    assert version.manifest.journal_sequence == 0
    assert version.manifest.cuts is None
    assert version.sums is None
    assert np.array_equal(version.means.sum_of(0), kept)


CALIBRATED_FILES = ["calibration.json", "embeddings.npy", "items.arrow", "manifest.json", "shard-000.faiss", "sums.npy"]


@pytest.mark.parametrize("file", CALIBRATED_FILES)
def test_a_flipped_bit_in_any_file_is_refused_by_name_at_open(calibrated, tmp_path, file):
    index_dir = shutil.copytree(calibrated.version.path.parents[1], tmp_path / "index")
    assert sorted(path.name for path in (index_dir / "versions/000001").iterdir()) == CALIBRATED_FILES
    path = index_dir / "versions/000001" / file
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert reason_of_refusal(index_dir, f"versions/000001/{file}").startswith(("is damaged", "is not JSON"))


@pytest.mark.parametrize("place", range(6))
def test_a_flipped_bit_of_current_leads_to_no_version_and_is_refused(index_dir, place):
    for bit in range(8):
        name = bytearray(b"000001\n")
        name[place] ^= 1 << bit
        (index_dir / "CURRENT").write_bytes(name)
        with pytest.raises(ArtifactError) as caught:
            IndexVersion.open(index_dir)
        named = name.decode("latin-1").strip()
        assert caught.value.path in {index_dir / "CURRENT", index_dir / "versions" / named}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "embeddings"}, "kind must be 'index', got 'embeddings'"),
        ({"version": "000002"}, "version is '000002', but the directory is '000001'"),
        ({"metric": "cosine"}, "metric must be one of ip, l2, got 'cosine'"),
        ({"model": ""}, "model, the fingerprint, is empty"),
        ({"temperature": 0}, "k must be >= 1 and temperature > 0, got 3 and 0"),
        ({"k": 0}, "k must be >= 1 and temperature > 0, got 0 and 0.25"),
        ({"k": "5"}, "a field is missing or of the wrong type: k is '5'"),
        ({"items": True}, "a field is missing or of the wrong type: items is True"),
        ({"items": 29}, "the shards do not hold each of the rows 0 to 28 once"),
        ({"shards": []}, "the shards do not hold each of the rows 0 to 29 once"),
        (
            {"shards": [{"file": "shard-000.faiss", "start": 1, "stop": 30}]},
            "the shards do not hold each of the rows 0 to 29 once",
        ),
        ({"shards": [{"file": "elsewhere", "start": 0, "stop": 30}]}, "files has no entry for elsewhere"),
        ({"shards": [strided(0), strided(0)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [strided(0), strided(1), strided(2)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [strided(0), strided(1, stop=29)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [part(0, 10), part(11, 30)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [part(0, 11), part(10, 30)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [part(0, 30), part(30, 30)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [part(10, 30), part(0, 10)]}, "the shards do not hold each of the rows 0 to 29 once"),
        ({"shards": [strided(0) | {"step": 0}]}, "range() arg 3 must not be zero"),
        ({"shards": [strided(0) | {"step": "2"}]}, "a field is missing or of the wrong type: step is '2'"),
        ({"shards": [part(0, 30) | {"longest": "1"}]}, "a field is missing or of the wrong type: longest is '1'"),
        ({"search": {"nprobe": 0}}, "nprobe must be a whole number >= 1, got 0"),
        ({"search": {"rerank": "4"}}, "rerank must be a whole number >= 1, got '4'"),
        ({"shards": [{"file": "shard-000.faiss"}]}, "a field is missing or of the wrong type"),
        ({"search": {"probes": 3}}, "a field is missing or of the wrong type"),
        ({"created": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_the_reason(index_dir, fields, reason):
    rewrite(index_dir, **fields)
    assert reason in reason_of_refusal(index_dir, "versions/000001/manifest.json")


@pytest.mark.parametrize(
    ("fields", "file", "reason"),
    [
        ({"dimension": 9}, "embeddings.npy", "must be float16 (30, 9), is float16 (30, 8)"),
        ({"labels": 5}, "items.arrow", "holds 30 items of 21 labels; the manifest says 30 items of 5 labels"),
    ],
)
def test_files_that_do_not_fit_the_manifest_are_refused(index_dir, fields, file, reason):
    rewrite(index_dir, **fields)
    assert reason_of_refusal(index_dir, f"versions/000001/{file}") == reason


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (np.zeros((30, 8), np.float32), "must be float16 (30, 8), is float32 (30, 8)"),
        (np.array([{}]), "Array can't be memory-mapped: Python objects in dtype."),
    ],
)
def test_embeddings_of_another_kind_are_refused_even_if_the_manifest_lists_them(index_dir, matrix, reason):
    path = index_dir / "versions" / "000001"
    np.save(path / "embeddings.npy", matrix)
    write_manifest(path, json.loads((path / "manifest.json").read_text()))
    assert reason_of_refusal(index_dir, "versions/000001/embeddings.npy") == reason


def test_sums_of_another_shape_are_refused_even_if_the_manifest_lists_them(index_dir):
    path = index_dir / "versions" / "000001"
    np.save(path / "sums.npy", np.zeros((21, 9)))
    write_manifest(path, json.loads((path / "manifest.json").read_text()))
    reason = "must be float64 (21, 8), is float64 (21, 9)"
    assert reason_of_refusal(index_dir, "versions/000001/sums.npy") == reason


def test_a_version_that_was_built_before_there_were_sums_has_the_same_means(index_dir, built):
    path = index_dir / "versions" / "000001"
    (path / "sums.npy").unlink()
    write_manifest(path, json.loads((path / "manifest.json").read_text()))
    older = IndexVersion.open(index_dir)
    assert older.sums is None
    assert isinstance(built.sums, np.memmap)
    assert [older.means.sum_of(label).tolist() for label in range(21)] == built.sums.tolist()


def test_an_older_version_can_be_opened_by_name(built, build_index, tmp_path):
    index_dir = shutil.copytree(built.path.parents[1], tmp_path / "index")
    build_index(np.eye(4, dtype=np.float32), directory=index_dir)
    assert IndexVersion.open(index_dir).manifest.items == 4
    assert IndexVersion.open(index_dir, "000001").manifest == built.manifest


def test_what_is_no_index_is_refused_with_the_reason(index_dir, tmp_path):
    assert reason_of_refusal(tmp_path, "CURRENT") == "missing: no index was built here; `vmmr-search build` makes one"
    (index_dir / "CURRENT").write_text("000009\n")
    assert reason_of_refusal(index_dir, "versions/000009") == "there is no such index version"
    for name in ("../../elsewhere", "", "latest"):
        (index_dir / "CURRENT").write_text(name)
        assert reason_of_refusal(index_dir, "CURRENT") == f"not the name of a version: {name!r}"
    (index_dir / "CURRENT").write_bytes(b"\xff")
    assert "can't decode" in reason_of_refusal(index_dir, "CURRENT")
