"""The pair through the SDK: what a user sees."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
import trustme
import vmmr

from search_svc.dataset.embeddings import Embeddings
from search_svc.index.version import IndexVersion


def photos_of(chain, split: str) -> list[str]:
    with (chain.embeddings / "items.csv").open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row["split"] == split]


def test_a_gallery_photo_is_its_own_nearest_neighbour(client, drawn):
    path = photos_of(drawn, "train")[0]
    found = client.identify(drawn.photos / path)
    assert found.neighbours[0].item_id == path
    assert found.neighbours[0].score == pytest.approx(1.0, abs=1e-3)
    assert found.answer.label == Path(path).parent.name
    assert found.provenance.shards_answered == found.provenance.shards_total == 3


def test_most_makes_of_unseen_photos_are_recognised(client, drawn):
    paths = photos_of(drawn, "test")
    outcomes = list(client.identify_many([drawn.photos / path for path in paths], batch=4))
    right = [
        outcome.result().answer.make == path.partition("_")[0] for path, outcome in zip(paths, outcomes, strict=True)
    ]
    assert np.mean(right) >= 0.8


def test_several_photos_of_a_car_are_one_answer(client, drawn):
    paths = photos_of(drawn, "dev") + photos_of(drawn, "test")
    car = Path(paths[0]).parent.name
    photos = [drawn.photos / path for path in paths if Path(path).parent.name == car]
    found = client.identify_car(photos)
    assert len(photos) > 1
    assert found.answer.make == car.partition("_")[0]
    assert found.years[0] <= found.answer.year <= found.years[1]
    by_hand = client.classify(client.embed(photos), fuse=True).classifications
    assert [(each.answer, each.neighbours) for each in by_hand] == [(found.answer, found.neighbours)]


def check_served_equals_direct(client: vmmr.Client, chain, paths: list[str]) -> None:
    """Embeddings from the service equal the offline ones; answers equal those of the index called directly."""
    embeddings = Embeddings.open(chain.embeddings)
    row_of = {photo.path: row for row, photo in enumerate(embeddings.photos)}
    offline = embeddings.matrix[[row_of[path] for path in paths]]
    batches = [paths[start : start + 16] for start in range(0, len(paths), 16)]
    served = [client.embed([chain.photos / path for path in batch]) for batch in batches]
    vectors = np.concatenate([each.vectors for each in served])
    np.testing.assert_array_equal(vectors.astype(np.float16), offline)

    items = IndexVersion.open(chain.index).items
    row_of_item = {items.item_id(row): row for row in range(len(items))}
    gallery = IndexVersion.open(chain.index).embeddings.astype(np.float32)
    for each in served:
        scores, rows = faiss.knn(each.vectors, gallery, 10, metric=faiss.METRIC_INNER_PRODUCT)
        answers = client.search(each, options=vmmr.SearchOptions(k=10)).neighbours
        found = np.array([[row_of_item[neighbour.item_id] for neighbour in answer] for answer in answers])
        found_scores = np.array([[neighbour.score for neighbour in answer] for answer in answers])
        np.testing.assert_allclose(found_scores, scores, rtol=0, atol=1e-6)
        # Photos in another order than faiss has them must be equally near.
        moved = found != rows
        others = np.einsum("qd,qkd->qk", each.vectors, gallery[found])
        np.testing.assert_allclose(others[moved], scores[moved], rtol=0, atol=1e-6)


def test_served_equals_direct_on_drawn_cars(client, drawn):
    check_served_equals_direct(client, drawn, photos_of(drawn, "test") + photos_of(drawn, "dev"))


def test_served_equals_direct_on_real_photos(stanford_cars, make_chain, serve_pair, run, tmp_path):
    photos = tmp_path / "photos"
    for source in sorted((stanford_cars / "train").iterdir())[:6]:
        (photos / source.name).mkdir(parents=True)
        for photo in sorted(source.iterdir())[:10]:
            (photos / source.name / photo.name).symlink_to(photo)
    chain = make_chain(photos, tmp_path, shards=2)
    with vmmr.Client(*serve_pair(run, chain), timeout_s=60) as client:
        paths = [path for split in ("train", "dev", "test") for path in photos_of(chain, split)]
        assert len(paths) == 60
        check_served_equals_direct(client, chain, paths)


def test_embeddings_of_another_model_are_refused_with_both_fingerprints(client):
    embeddings = vmmr.Embeddings(model="0" * 64, vectors=np.ones((1, 2048), np.float32))
    with pytest.raises(vmmr.ModelMismatchError) as refused:
        client.classify(embeddings)
    assert client.info().index.model[:12] in str(refused.value)


def test_a_bad_photo_is_named_and_the_others_are_answered(client, drawn):
    good = drawn.photos / photos_of(drawn, "test")[0]
    outcomes = list(client.identify_many([good, b"no photo", good]))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), vmmr.InvalidPhotoError, type(None)]


@pytest.fixture
def secured(tmp_path) -> tuple[list[object], vmmr.TLS]:
    """Flags of a server that wants certificates and a token, and what a client then needs."""
    ca = trustme.CA()
    server, caller = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.org")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, issued in (("server", server), ("client", caller)):
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    (tmp_path / "token").write_text("secret")
    names = {"cert": "server.pem", "key": "server.key", "client-ca": "ca.pem"}
    flags = [part for flag, name in names.items() for part in (f"--tls-{flag}", tmp_path / name)]
    tls = vmmr.TLS(ca=tmp_path / "ca.pem", cert=tmp_path / "client.pem", key=tmp_path / "client.key")
    return [*flags, "--token-file", tmp_path / "token"], tls


def test_mutual_tls_and_a_token(drawn, serve_pair: Callable, run, secured, monkeypatch):
    monkeypatch.setattr("vmmr._connection._PROBE_S", 60)  # the servers are asked about TLS, and answer
    flags, tls = secured
    addresses = serve_pair(run, drawn, *flags)
    photo = drawn.photos / photos_of(drawn, "train")[0]
    with vmmr.Client(*addresses, tls=tls, token="secret", timeout_s=60) as client:
        assert client.identify(photo).answer.label == photo.parent.name
    with (
        vmmr.Client(*addresses, tls=tls, token="wrong", timeout_s=60) as client,
        pytest.raises(vmmr.UnauthenticatedError),
    ):
        client.identify(photo)
    with (
        vmmr.Client(*addresses, tls=vmmr.TLS(ca=tls.ca), timeout_s=60) as client,
        pytest.raises(vmmr.UnavailableError, match="expects a client's certificate"),
    ):
        client.identify(photo)


def test_the_command_prints_the_answer(addresses, drawn):
    photo = drawn.photos / photos_of(drawn, "train")[0]
    done = subprocess.run(
        [Path(sys.executable).with_name("vmmr"), "identify", photo],
        env=os.environ | dict(zip(("VMMR_EMBEDDER", "VMMR_SEARCH"), addresses, strict=True)),
        capture_output=True,
        text=True,
        check=True,
    )
    make, model, year = photo.parent.name.split("_")
    assert f"{make} {model} {year}" in done.stdout
