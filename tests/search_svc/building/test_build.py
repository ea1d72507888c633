import argparse
import itertools
import tracemalloc

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search_svc.building import build_command, shard_files
from search_svc.building import build_source as gallery_of
from search_svc.building.spec import IndexSpec
from search_svc.dataset import photo_list as manifest
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import Photo
from search_svc.fitting import held_out as held
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import Label, parse
from svckit import cli
from svckit.artifact import write_manifest
from svckit.cli import CommandError
from tests.search_svc.builds import build_version

faiss.omp_set_num_threads(1)  # more only wait for each other on arrays as small as these


def unit(rows, dimension=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def gallery(photos, **changes):
    """What build_version needs for a gallery of that many photos."""
    names = [f"{photo:04d}.jpg" for photo in range(photos)]
    labels = [parse(f"honda_pilot_{2000 + photo % 3}") for photo in range(photos)]
    whole = {"embeddings": unit(photos), "item_ids": names, "labels": labels, "uris": names}
    return {**whole, "model": "m", "model_name": "n", "spec": IndexSpec(), **changes}


@settings(deadline=None, max_examples=30)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(-4, 4, width=32)),
    st.data(),
)
def test_the_shards_hold_the_rows_asked_for_in_order_as_float16_rounds_them(tmp_path_factory, embeddings, data):
    embeddings[0, 0] = 1
    rows = np.array(data.draw(st.permutations(range(len(embeddings)))))[: data.draw(st.integers(1, len(embeddings)))]
    rows = np.array([0, *rows[rows != 0]])
    shards = data.draw(st.integers(1, len(rows)))
    with pytest.MonkeyPatch.context() as patch:
        for module in (gallery_of, shard_files):
            patch.setattr(module, "_CHUNK_ROWS", 7)
        version = build_version(
            tmp_path_factory.mktemp("index"),
            **gallery(len(rows), embeddings=embeddings, rows=rows, spec=IndexSpec(shards=shards)),
        )
    expected = embeddings[rows].astype(np.float16)
    held = [faiss.read_index(str(path)) for path in version.shard_paths]
    assert np.array_equal(version.embeddings, expected)
    for shard, info in zip(held, version.manifest.shards, strict=True):
        assert np.array_equal(shard.reconstruct_n(0, shard.ntotal), expected[info.rows])
        assert info.longest == pytest.approx(np.linalg.norm(expected[info.rows].astype(np.float32), axis=1).max())
    assert len({len(info.rows) for info in version.manifest.shards}) <= 2, "of equal size but for one item"


def test_a_version_says_what_was_built_from_what(tmp_path):
    spec = IndexSpec(factory="IVF4,SQ8", metric="l2", shards=2, nprobe=3, k=7, temperature=0.5, seed=3, train_sample=50)
    version = build_version(tmp_path, **gallery(60, spec=spec, model="f" * 64, model_name="resnet50"))
    made = version.manifest
    assert (made.model, made.model_name, made.dimension, made.items, made.labels) == ("f" * 64, "resnet50", 8, 60, 3)
    assert (made.factory, made.metric, made.k, made.temperature, made.seed) == ("IVF4,SQ8", "l2", 7, 0.5, 3)
    assert (made.search.nprobe, made.search.ef_search, made.train_sample) == (3, None, 50)
    assert [version.items.item_id(row) for row in (0, 59)] == ["0000.jpg", "0059.jpg"]
    assert IndexVersion.open(tmp_path).manifest == made, "and it passes its own verification"


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "IVF4,SQ8", "PQ4x4"])
def test_the_same_build_gives_the_same_bytes(tmp_path, factory):
    spec = IndexSpec(factory=factory, shards=2, train_sample=80, seed=1)
    first, second = (build_version(tmp_path / name, **gallery(100, spec=spec)) for name in "ab")
    for path in first.path.iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (second.path / path.name).read_bytes(), path.name


def test_another_seed_trains_on_another_sample(tmp_path):
    shards = [
        build_version(tmp_path / str(seed), **gallery(100, spec=IndexSpec("IVF4,Flat", train_sample=30, seed=seed)))
        for seed in (0, 1)
    ]
    assert shards[0].shard_paths[0].read_bytes() != shards[1].shard_paths[0].read_bytes()


@pytest.mark.parametrize(("metric", "factor"), [("ip", 0.05), ("l2", 0.1)])
def test_the_temperature_follows_the_length_of_the_embeddings(tmp_path, metric, factor):
    embeddings = unit(50) * np.linspace(1, 5, 50, dtype=np.float32)[:, None]
    version = build_version(tmp_path, **gallery(50, embeddings=embeddings, spec=IndexSpec(metric=metric)))
    assert version.manifest.temperature == pytest.approx(factor * np.square(embeddings).sum(axis=1).mean(), rel=1e-3)


def test_a_second_build_makes_the_next_version_and_leaves_the_first_as_it_was(tmp_path):
    first = build_version(tmp_path, **gallery(10))
    second = build_version(tmp_path, **gallery(20))
    assert (first.manifest.version, second.manifest.version) == ("000001", "000002")
    assert IndexVersion.open(tmp_path).manifest.items == 20
    assert IndexVersion.open(tmp_path, "000001").manifest == first.manifest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uris": ["a"] * 9}, "the gallery is out of line: 10 embeddings, 10 ids, 10 labels, 9 uris"),
        ({"rows": np.arange(9)}, "the gallery is out of line: 9 embeddings, 10 ids"),
        ({"item_ids": [*"abcdefghi", "c"]}, "two photos have the id 'c'"),
        (
            {"labels": [Label("x", "a", "b", 2001)] * 9 + [Label("x", "a", "b", 2002)]},
            "the label 'x' has make 'a', model 'b', year 2001 for '0000.jpg', but make 'a', model 'b', year 2002 for '0009",
        ),
        ({"rows": np.arange(0)}, "there is no photo to index"),
        ({"spec": IndexSpec("Foo")}, "faiss makes no index of 'Foo'"),
        ({"spec": IndexSpec(shards=11)}, "--shards must be 1 to 10"),
        ({"spec": IndexSpec("IVF11,Flat")}, "needs 11 embeddings or more"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(tmp_path, changes, message):
    with pytest.raises(CommandError) as caught:
        build_version(tmp_path / "index", **gallery(10, **changes))
    assert message in str(caught.value)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 70000.0])
def test_an_embedding_that_float16_cannot_hold_is_named_and_leaves_no_version(tmp_path, value):
    embeddings = unit(10)
    embeddings[7, 3] = value
    with pytest.raises(CommandError, match=r"the embedding of '0007\.jpg' has a value that is no number, or too large"):
        build_version(tmp_path, **gallery(10, embeddings=embeddings))
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [".draft"]


def test_embeddings_that_are_all_zero_are_refused(tmp_path):
    with pytest.raises(CommandError, match="all embeddings are zero"):
        build_version(tmp_path, **gallery(10, embeddings=np.zeros((10, 8), np.float16)))


def test_numpy_never_holds_the_whole_matrix(tmp_path, monkeypatch):
    for module in (gallery_of, shard_files):
        monkeypatch.setattr(module, "_CHUNK_ROWS", 256)
    np.save(tmp_path / "embeddings.npy", unit(20_000, 64).astype(np.float16))
    matrix = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    inputs = gallery(20_000, embeddings=matrix, spec=IndexSpec("SQ8", shards=3, train_sample=500))
    tracemalloc.start()
    build_version(tmp_path / "index", **inputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < matrix.nbytes / 2, "which is a quarter of it in float32"


@pytest.fixture
def embeddings(tmp_path):
    """An embeddings artifact of 40 photos, half of them train."""
    directory = tmp_path / "embeddings"
    directory.mkdir()
    photos = [
        Photo(f"a/{i:02d}.jpg", parse(f"honda_pilot_{2000 + i % 5}"), "train" if i % 2 else "dev" if i % 4 else "test")
        for i in range(40)
    ]
    np.save(directory / "embeddings.npy", unit(40).astype(np.float16))
    manifest.write(directory / "items.csv", photos)
    fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 8, "count": 40}
    write_manifest(directory, fields | {"normalized": True})
    return directory


def run(*argv):
    """Runs the command as its program does."""
    parser = argparse.ArgumentParser()
    build_command.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["build", *map(str, argv)])
    cli.run(lambda: args.run(args), "vmmr-search")


def test_the_command_indexes_the_photos_of_the_splits_asked_for(embeddings, tmp_path, capsys):
    index = tmp_path / "index"
    run(embeddings, "--out", index, "--split", "train,dev", "--factory", "IVF2,Flat", "--nprobe", "2", "--shards", "3")
    version = IndexVersion.open(index)
    paths = [f"a/{i:02d}.jpg" for i in range(40) if i % 4]
    assert [version.items.item_id(row) for row in range(30)] == paths
    assert [version.items.uri(row) for row in range(30)] == paths
    assert np.array_equal(version.embeddings, unit(40).astype(np.float16)[[i for i in range(40) if i % 4]])
    assert version.manifest.model == "f" * 64
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-2:] == [
        f"next: vmmr-search evaluate {embeddings} --index {index}",
        f"next: vmmr-search serve --index {index}",
    ]
    assert printed.out.splitlines() == [
        f"{version.path}: 30 photos of 5 labels, 8-d, IVF2,Flat (ip), shards: 3",
        (
            "not calibrated, so it never says unknown, and confidences are shares of the vote:"
            " that takes 100 dev photos of 5 labels outside the gallery, there are 0 of 0 labels"
        ),
    ]


def test_the_command_builds_what_a_spec_file_says(embeddings, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(
        '{"factory": "IVF2,SQ8", "metric": "l2", "nprobe": 2, "rerank": 3, "ef_search": null, "reason": "r"}'
    )
    run(embeddings, "--out", tmp_path / "index", "--spec", spec, "--shards", "2", "--k", "3")
    made = IndexVersion.open(tmp_path / "index").manifest
    assert (made.factory, made.metric, made.search.nprobe, made.search.rerank) == ("IVF2,SQ8", "l2", 2, 3)
    assert (len(made.shards), made.k) == (2, 3)


@pytest.mark.parametrize(
    "flag", [("--factory", "Flat"), ("--metric", "ip"), ("--nprobe", 1), ("--ef-search", 1), ("--rerank", 2)]
)
def test_a_spec_file_and_one_of_its_flags_are_not_given_together(embeddings, tmp_path, flag):
    (tmp_path / "spec.json").write_text('{"factory": "Flat"}')
    with pytest.raises(SystemExit, match=f"{flag[0]} is what --spec is for: give one of the two"):
        run(embeddings, "--out", tmp_path / "index", "--spec", tmp_path / "spec.json", *flag)
    assert not (tmp_path / "index").exists()


def test_shards_by_label_hold_whole_labels_of_a_gallery_sorted_by_them(embeddings, tmp_path):
    index = tmp_path / "index"
    run(embeddings, "--out", index, "--split", "train,dev", "--shards", "2", "--shard-by", "label", "--workers", "2")
    version = IndexVersion.open(index)
    years = [version.items.labels[label].year for label in version.items.label_of]
    assert years == sorted(years)
    ids = [version.items.item_id(row) for row in range(30)]
    expected = sorted((i for i in range(40) if i % 4), key=lambda i: (i % 5, i))
    assert ids == [f"a/{i:02d}.jpg" for i in expected]
    assert np.array_equal(version.embeddings, unit(40).astype(np.float16)[expected])
    first, second = (info.rows for info in version.manifest.shards)
    assert (first.step, second.step, first.stop) == (1, 1, second.start)
    assert years[first.stop - 1] < years[second.start]
    for path, info in zip(version.shard_paths, version.manifest.shards, strict=True):
        held = faiss.read_index(str(path))
        assert np.array_equal(held.reconstruct_n(0, held.ntotal), version.embeddings[info.rows])


def test_more_shards_by_label_than_labels_are_refused(embeddings, tmp_path):
    with pytest.raises(SystemExit, match="--shards must be 1 to 5, the number of labels, got 6"):
        run(embeddings, "--out", tmp_path / "index", "--shards", "6", "--shard-by", "label")
    assert not (tmp_path / "index").exists()


def test_another_model_is_warned_of(embeddings, tmp_path, capsys):
    index = tmp_path / "index"
    build_version(index, **gallery(10, model="e" * 64, model_name="old"))
    run(embeddings, "--out", index)
    told = (
        f"warning: {index} was of the model old (eeeeeeeeeeee) and will be of m (ffffffffffff): queries must follow\n"
    )
    assert told in capsys.readouterr().err
    run(embeddings, "--out", index)
    assert "of the model" not in capsys.readouterr().err


def test_a_sample_that_memory_does_not_allow_is_cut_and_said(tmp_path, capsys):
    version = build_version(tmp_path, **gallery(3000, spec=IndexSpec("IVF4,SQ8")), memory_bytes=2**17)
    assert version.manifest.train_sample == 2**17 // 3 // 32 == 1365
    assert "training IVF4,SQ8 on 1365 embeddings, as many as --memory allows, of 3000" in capsys.readouterr().err


def test_photos_of_one_label_share_it(embeddings):
    photos = Embeddings.open(embeddings).photos
    assert len({id(photo.label) for photo in photos}) == 5
    assert len({id(photo.split) for photo in photos}) == 3


def test_excluded_photos_are_not_in_the_gallery(embeddings, tmp_path, capsys):
    index, out = tmp_path / "index", tmp_path / "exclude.csv"
    out.write_text("path\na/01.jpg\na/05.jpg\na/02.jpg\n")
    run(embeddings, "--out", index, "--exclude", out)
    version = IndexVersion.open(index)
    paths = [f"a/{i:02d}.jpg" for i in range(1, 40, 2) if i not in {1, 5}]
    assert [version.items.item_id(row) for row in range(18)] == paths
    assert np.array_equal(
        version.embeddings, unit(40).astype(np.float16)[[i for i in range(1, 40, 2) if i not in {1, 5}]]
    )
    assert f"{out}: 3 photos are left out\n" in capsys.readouterr().err


def test_excluded_photos_are_not_fitted_on(embeddings):
    photos = Embeddings.open(embeddings)
    dev = [row for row, photo in enumerate(photos.photos) if photo.split == "dev"]
    gallery = np.array([row for row, photo in enumerate(photos.photos) if photo.split == "train"])
    assert build_command._held(photos, gallery, set()).rows.tolist() == dev
    assert build_command._held(photos, gallery, {photos.photos[dev[3]].path}).rows.tolist() == [*dev[:3], *dev[4:]]


def test_the_commands_defaults_are_those_of_the_spec(embeddings, tmp_path):
    run(embeddings, "--out", tmp_path / "index")
    made = IndexVersion.open(tmp_path / "index").manifest
    spec = IndexSpec()
    assert (made.items, made.factory, made.metric, len(made.shards)) == (20, spec.factory, spec.metric, spec.shards)
    assert (made.k, made.seed, made.search.nprobe, made.search.ef_search) == (5, spec.seed, None, None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--split", "train,val"], "--split must be of train, dev, test, unseen-dev, unseen-test, got 'val'"),
        (["--factory", "Foo"], "faiss makes no index of 'Foo' (ip, 8-d): could not parse index string Foo"),
        (["--shards", "21"], "--shards must be 1 to 20, the number of photos, got 21"),
        (["--rerank", "0"], "--rerank must be 1 to 1000, got 0"),
        (["--workers", "0"], "--workers must be >= 1, got 0"),
        (["--memory", "0.1"], "--memory must be 0.125 GiB or more, got 0.1"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(embeddings, tmp_path, argv, message):
    with pytest.raises(SystemExit) as caught:
        run(embeddings, "--out", tmp_path / "index", *argv)
    assert str(caught.value) == f"vmmr-search: error: {message}"
    assert not (tmp_path / "index").exists()


def test_embeddings_that_are_not_of_unit_length_are_warned_of_where_length_matters(embeddings, tmp_path, capsys):
    fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 8, "count": 40}
    write_manifest(embeddings, fields | {"normalized": False})
    run(embeddings, "--out", tmp_path / "index", "--metric", "l2")
    assert "unit length" not in capsys.readouterr().err
    run(embeddings, "--out", tmp_path / "index", "--metric", "ip")
    assert "the embeddings are not of unit length" in capsys.readouterr().err


@pytest.fixture
def calibratable(tmp_path):
    """An embeddings artifact of 8 labels: 10 train photos of each, and 15 dev photos of each but the last two."""
    directory = tmp_path / "embeddings"
    directory.mkdir()
    places, noise = unit(8), unit(8 * 25, seed=1)
    photos, rows = [], []
    for label, number in itertools.product(range(8), range(25)):
        split = "train" if number < 10 else "dev" if label < 6 else "unseen-dev"
        photos.append(Photo(f"{label}/{number:02d}.jpg", parse(f"make{label // 2}_model_{2000 + label}"), split))
        rows.append(places[label] + 0.5 * noise[25 * label + number])
    matrix = np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(directory / "embeddings.npy", matrix.astype(np.float16))
    manifest.write(directory / "items.csv", photos)
    fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 8, "count": 200}
    write_manifest(directory, fields | {"normalized": True})
    return directory


def test_an_index_is_calibrated_on_the_dev_photos_that_are_not_in_it(calibratable, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(held, "LEAST_PHOTOS", 90)
    run(calibratable, "--out", tmp_path / "index")
    version = IndexVersion.open(tmp_path / "index")
    fitted = version.calibration
    assert fitted.photos == 90
    assert (version.manifest.k, version.manifest.temperature) == (fitted.k, fitted.temperature)
    second = capsys.readouterr().out.splitlines()[1]
    assert second.startswith(f"calibrated on 90 dev photos: k {fitted.k}, temperature {fitted.temperature:.3g}, prior ")
    assert second.endswith(f"% calibrated {fitted.errors['label'].after:.1%}".removeprefix("% "))


def test_dev_photos_that_are_in_the_index_calibrate_nothing(calibratable, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(held, "LEAST_PHOTOS", 90)
    run(calibratable, "--out", tmp_path / "index", "--split", "train,dev", "--k", "4")
    assert IndexVersion.open(tmp_path / "index").calibration is None
    assert IndexVersion.open(tmp_path / "index").manifest.k == 4
    assert capsys.readouterr().out.splitlines()[1].endswith("outside the gallery, there are 0 of 0 labels")


def test_k_and_temperature_that_are_given_are_kept(calibratable, tmp_path, monkeypatch):
    monkeypatch.setattr(held, "LEAST_PHOTOS", 90)
    run(calibratable, "--out", tmp_path / "index", "--k", "4", "--temperature", "0.125")
    version = IndexVersion.open(tmp_path / "index")
    assert (version.manifest.k, version.manifest.temperature) == (4, 0.125)
    assert (version.calibration.k, version.calibration.temperature) == (4, 0.125)


def test_the_same_build_calibrates_to_the_same_bytes(calibratable, tmp_path, monkeypatch):
    monkeypatch.setattr(held, "LEAST_PHOTOS", 90)
    for name in "ab":
        run(calibratable, "--out", tmp_path / name)
    one, other = (tmp_path / name / "versions" / "000001" / "calibration.json" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
