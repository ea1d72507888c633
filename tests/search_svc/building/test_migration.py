"""What of each photo a migration has embedded, and keeps; tests/e2e/test_migrate.py has the rest, with real embedders."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import vmmr

from search_svc.building.migration import GalleryEmbedder, PhotoFetcher, migrate
from search_svc.building.spec import IndexSpec
from search_svc.dataset.cuts import Cut, CutCounts, Cuts
from search_svc.index.base import VersionBase
from search_svc.index.retention import roll_back
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse
from tests.search_svc.builds import build_version

GIVEN = Cut(0.0, 0.125, 0.5, 1.0)
BEFORE = {
    "given": GIVEN,
    "car": Cut(0.25, 0.25, 0.75, 0.75, 0.5),
    "no car": Cut(0.0, 0.0, 1.0, 1.0, no_car_found=True),
    "whole": Cut(0.0, 0.0, 1.0, 1.0),
    "unknown": None,
}
CAR = Cut(0.125, 0.125, 0.875, 0.875, 0.75)
LIMITS = vmmr.EmbedLimits(2, 2**20, 2**24, 10.0, 2**21, 8)
MODEL = vmmr.ModelInfo("f" * 64, "new", 8, "fp32", 224, "squash", True, "CPUExecutionProvider", LIMITS)


@dataclass
class Embedder:
    """Stands in for the client of an embedder with a detector, or of one of before there were any."""

    says: bool = True
    asked: list[vmmr.Photo] = field(default_factory=list)

    def model_info(self):
        return MODEL

    def embed(self, photos):
        self.asked += photos
        vectors = np.stack([np.random.default_rng(photo.source[0]).standard_normal(8) for photo in photos])
        parts = tuple(
            vmmr.EmbeddedPart(
                n,
                vmmr.Cut(photo.crop) if photo.crop else vmmr.Cut(vmmr.Box(0.125, 0.125, 0.875, 0.875), 0.75),
            )
            for n, photo in enumerate(photos)
        )
        return vmmr.Embeddings(MODEL.fingerprint, vectors.astype(np.float32), parts=parts if self.says else None)


@pytest.fixture
def old(tmp_path):
    for number, name in enumerate(BEFORE):
        (tmp_path / f"{name}.jpg").write_bytes(bytes([number]))
    build_version(
        tmp_path / "old",
        embeddings=np.eye(5, 8, dtype=np.float32),
        item_ids=list(BEFORE),
        labels=[parse("honda_pilot_2011")] * 5,
        uris=[f"{name}.jpg" for name in BEFORE],
        cuts=Cuts.of(BEFORE.values()),
        model="c0ffee" + 58 * "0",
        model_name="old",
        spec=IndexSpec(),
    )
    return tmp_path / "old"


def migrated(old, client):
    made = migrate(old, old.parent / "new", GalleryEmbedder(client, PhotoFetcher(old.parent), 16))
    version = IndexVersion.open(old.parent / "new")
    return made, version, {name: VersionBase(version).item(name).cut for name in BEFORE}


def test_the_main_car_of_each_photo_is_embedded_but_where_its_owner_gave_a_part(old):
    client = Embedder()
    _, version, cuts = migrated(old, client)
    crops = {photo.source[0]: photo.crop for photo in client.asked}
    assert crops == {0: vmmr.Box(0, 0.125, 0.5, 1)} | dict.fromkeys(range(1, 5))
    assert {photo.subject for photo in client.asked} == {None}
    assert cuts == dict.fromkeys(BEFORE, CAR) | {"given": GIVEN}
    assert version.manifest.cuts == CutCounts(car=4, given=1)


def test_run_again_it_embeds_nothing_and_builds_nothing(old):
    first, second = migrated(old, Embedder())[0], migrated(old, client := Embedder())[0]
    assert (first.embedded, second.embedded, second.version) == (5, 0, None)
    assert client.asked == []


def test_run_again_it_builds_what_the_current_version_does_not_hold_whole(old):
    migrated(old, Embedder())
    path = old.parent / "new" / "versions" / "000001" / "embeddings.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    made, version, _ = migrated(old, client := Embedder())
    assert (made.version.path.name, version.path.name, client.asked) == ("000002", "000002", [])
    path.write_bytes(whole)
    roll_back(old.parent / "new")
    assert migrated(old, Embedder())[1].path.name == "000003"


def test_an_embedder_that_does_not_say_what_it_looked_at_leaves_it_unknown(old):
    _, version, cuts = migrated(old, Embedder(says=False))
    assert set(cuts.values()) == {None}
    assert version.manifest.cuts == CutCounts(unknown=5)
