import dataclasses
import json

import numpy as np
import pytest

from search_svc.building.spec import IndexSpec
from search_svc.dataset.cuts import CutCounts
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import Photo
from search_svc.engine.local import LocalEngine
from search_svc.evaluation.accuracy import MEASURES
from search_svc.evaluation.examiner import Examiner
from search_svc.evaluation.report.unknown import VERDICT_SCORE
from search_svc.fitting import verdicts
from search_svc.index.version import IndexVersion
from search_svc.live.view import Opened, View
from search_svc.serving.queries import Plan, Query
from search_svc.serving.searcher import Searcher
from search_svc.voting.answer import Answerer
from search_svc.voting.labels import parse
from svckit.artifact import write_manifest
from tests.search_svc.builds import build_version
from tests.search_svc.evaluation.evaluations import build_calibrated, evaluated, run, write_embeddings

NAMES = ("honda_civic_2005", "honda_pilot_2011", "misc", "toyota_camry_2007")


@pytest.fixture
def collection(tmp_path):
    """120 photos in clusters around one point for each label, a few far from it; every third is for testing."""
    rng = np.random.default_rng(0)
    of = np.arange(120) % 4
    vectors = np.eye(8)[of] + 0.5 * rng.standard_normal((120, 8))
    matrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    splits = ["test" if row % 3 == 0 else "train" for row in range(120)]
    photos = [Photo(f"{row}.jpg", parse(NAMES[of[row]]), split) for row, split in enumerate(splits)]
    write_embeddings(tmp_path / "embeddings", matrix, photos)
    return matrix, photos


@pytest.fixture
def report(collection, tmp_path, capsys):
    def evaluated(*flags, factory="Flat"):
        run("build", tmp_path / "embeddings", "--out", tmp_path / "index", "--factory", factory)
        capsys.readouterr()
        run("evaluate", tmp_path / "embeddings", "--index", tmp_path / "index", "--json", tmp_path / "r.json", *flags)
        return json.loads((tmp_path / "r.json").read_text())

    return evaluated


def score(report, level, measure):
    return next(each for each in report["scores"] if (each["level"], each["measure"]) == (level, measure))


def test_the_blogs_measures_are_those_computed_by_hand(collection, report):
    matrix, photos = collection
    train = [row for row, photo in enumerate(photos) if photo.split == "train"]
    test = [row for row, photo in enumerate(photos) if photo.split == "test"]
    gallery = matrix[train].astype(np.float16).astype(np.float32)
    nearest = np.argsort(-(matrix[test] @ gallery.T), axis=1)
    labels = [[photos[train[place]].label.label for place in row] for row in nearest]
    truth = [photos[row].label.label for row in test]
    found = report()
    assert found["photos"] == 40
    assert found["gallery"] == 80
    for measure, count in (("nearest, top-1", 1), ("nearest, top-5 images", 5)):
        right = [wanted in given[:count] for wanted, given in zip(truth, labels, strict=True)]
        assert score(found, "label", measure)["value"] == pytest.approx(np.mean(right))
    assert score(found, "label", "nearest, top-5 classes")["value"] == 1, "there are but four classes"


def test_every_score_has_its_interval_and_the_table_shows_them_all(report, capsys):
    found = report()
    table = capsys.readouterr().out
    assert {each["level"] for each in found["scores"]} == {"label", "model", "make", "year"}
    for each in found["scores"]:
        assert each["low"] <= each["value"] <= each["high"]
        assert f"{100 * each['value']:.1f} [{100 * each['low']:.1f}, {100 * each['high']:.1f}]" in table
    assert all(measure in table for measure in MEASURES)
    assert "40 photos of the split test, against 80 of index 000001\nindex: Flat (ip), k " in table
    assert "in the index themselves" not in table


def test_the_same_evaluation_gives_the_same_report(report, tmp_path):
    first = report()
    run("evaluate", tmp_path / "embeddings", "--index", tmp_path / "index", "--json", tmp_path / "r.json")
    again = json.loads((tmp_path / "r.json").read_text())
    assert again | {"made": None} == first | {"made": None}


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat"])
def test_a_photo_of_the_gallery_is_left_out_of_its_own_neighbours(report, capsys, factory):
    found = report("--split", "train", factory=factory)
    assert found["in_gallery"] == found["photos"] == 80
    assert score(found, "label", "nearest, top-1")["value"] < 1, "or each had found itself"
    assert "80 are in the index themselves; each was left out of its own neighbours" in capsys.readouterr().out


def test_photos_of_labels_that_the_index_does_not_have_are_unknown_cars_and_no_mistakes(collection, tmp_path, capsys):
    matrix, photos = collection
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    strange = [Photo(f"new {row}.jpg", parse("kia_soul_2012"), "unseen-test") for row in range(3)]
    write_embeddings(tmp_path / "mixed", np.vstack([matrix, matrix[:3]]), [*photos, *strange])
    known, mixed = (evaluated(tmp_path, "mixed", "--split", splits) for splits in ("test", "test,unseen-test"))
    assert "3 more have a label that the index does not have: unknown cars" in capsys.readouterr().out
    assert (mixed["asked"], mixed["photos"], mixed["unknown_label"]) == (43, 40, 3)
    assert mixed["scores"] == known["scores"]
    assert [(each["kind"], each["photos"]) for each in mixed["unknown"]] == [("labels that the gallery lacks", 3)]


def test_a_label_that_has_but_the_photo_itself_in_the_gallery_is_not_known_without_it(collection, tmp_path):
    matrix, photos = collection
    lonely = Photo("lonely.jpg", parse("kia_soul_2012"), "train")
    write_embeddings(tmp_path / "lonely", np.vstack([matrix, matrix[:1]]), [*photos, lonely])
    run("build", tmp_path / "lonely", "--out", tmp_path / "index")
    found = evaluated(tmp_path, "lonely", "--split", "train")
    assert (found["asked"], found["photos"], found["unknown_label"]) == (81, 80, 1)


def test_pictures_without_cars_are_unknown_whatever_they_are_called(collection, tmp_path, capsys):
    matrix, photos = collection
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    write_embeddings(tmp_path / "not cars", matrix[1:9], photos[1:9])
    found = evaluated(tmp_path, "embeddings", "--not-cars", tmp_path / "not cars")
    assert (found["photos"], found["not_cars"], found["in_gallery"]) == (40, 8, 0)
    (kind,) = found["unknown"]
    assert (kind["kind"], kind["photos"]) == ("no cars", 8)
    detector = next(each for each in kind["detectors"] if each["score"] == "k-th similarity")
    assert detector["auroc"]["value"] < 1, "those of the gallery find themselves, and look known"
    assert "8 photos of no cars" in capsys.readouterr().out


def test_photos_of_an_exclusion_list_are_not_asked_for(collection, tmp_path, capsys):
    _matrix, photos = collection
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    excluded = [photo.path for photo in photos if photo.split == "test"][:3]
    (tmp_path / "exclude.csv").write_text("\n".join(["path", *excluded, ""]))
    found = evaluated(tmp_path, "embeddings", "--exclude", tmp_path / "exclude.csv")
    assert (found["asked"], found["photos"], found["gallery"]) == (37, 37, 80)
    assert not {each["item"] for each in found["worst"]} & set(excluded)
    assert "3 photos are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"model": "e" * 64},
            "the photos were embedded with model eeeeeeeeeeee (test), the index with mmmmmmmmmmmm (test)",
        ),
        ({"split": "dev"}, "there is no photo of the split dev among the embeddings"),
        ({"split": "test,dev"}, "there is no photo of the split dev among the embeddings"),
        ({"split": "tset"}, "--split must be of train, dev, test, unseen-dev, unseen-test, got 'tset'"),
    ],
)
def test_what_cannot_be_compared_is_refused(collection, tmp_path, flags, message):
    matrix, photos = collection
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    write_embeddings(tmp_path / "other", matrix, photos, flags.get("model", "m" * 64))
    with pytest.raises(SystemExit, match=f"^vmmr-search: error: {message.replace('(', '.').replace(')', '.')}$"):
        run("evaluate", tmp_path / "other", "--index", tmp_path / "index", "--split", flags.get("split", "test"))


def test_a_large_gallery_is_looked_through_until_there_are_five_classes(tmp_path):
    names = ["a_b_2000"] * 300 + [f"c_d_{2001 + row}" for row in range(20)]
    matrix = np.zeros((320, 2), np.float32)
    matrix[:, 0] = np.linspace(1, 0, 320)
    matrix[:, 1] = np.sqrt(1 - matrix[:, 0] ** 2)
    photos = [Photo(f"{row}.jpg", parse(name), "train") for row, name in enumerate(names)]
    query = Photo("q.jpg", parse("c_d_2004"), "test")
    write_embeddings(tmp_path / "embeddings", np.vstack([matrix, [[1, 0]]]).astype(np.float32), [*photos, query])
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    run("evaluate", tmp_path / "embeddings", "--index", tmp_path / "index", "--json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert score(found, "label", "nearest, top-5 images")["value"] == 0
    assert score(found, "label", "nearest, top-5 classes")["value"] == 1


def test_one_voter_says_what_the_nearest_photo_says(collection, tmp_path):
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index", "--k", 1)
    run("evaluate", tmp_path / "embeddings", "--index", tmp_path / "index", "--json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    for level in ("label", "model", "make", "year"):
        assert score(found, level, "vote, top-1")["value"] == score(found, level, "nearest, top-1")["value"]


@pytest.mark.parametrize(("path", "items"), [("photo 0.jpg", 19), ("elsewhere.jpg", 20)])
def test_as_many_neighbours_vote_whether_or_not_one_was_left_out(build_index, tmp_path, path, items):
    version = build_index(np.eye(20, dtype=np.float32), directory=tmp_path)
    with LocalEngine.open(version) as shards:
        examiner = Examiner(version, shards)
        photo = Photo(path, version.items.labels[version.items.label_of[0]], "test")
        (found,) = examiner.examine(np.ones((1, 20), np.float32), [photo])
    assert found.in_gallery == (items == 19)
    assert len(found.found.rows) == version.manifest.k
    assert (0 in found.found.rows) == (items == 20)


def test_a_picture_that_shows_no_car_is_of_no_label_and_left_out_of_nothing(build_index):
    version = build_index(np.eye(20, dtype=np.float32))
    picture = Photo("photo 3.jpg", version.items.labels[version.items.label_of[3]], "test")
    with LocalEngine.open(version) as shards:
        (found,) = Examiner(version, shards).examine(np.eye(20, dtype=np.float32)[3:4], [picture], cars=False)
    assert (found.known, found.in_gallery, found.found.rows[0]) == (False, False, 3)


def test_photos_of_no_label_of_the_gallery_alone_are_refused(collection, tmp_path):
    matrix, _photos = collection
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    write_embeddings(tmp_path / "strange", matrix[:3], [Photo(f"{n}.png", parse("kia"), "test") for n in range(3)])
    with pytest.raises(SystemExit, match=r"the index can be right on none of the [0-9]+ photos of the split test"):
        run("evaluate", tmp_path / "strange", "--index", tmp_path / "index")


def test_pictures_without_cars_are_of_the_same_model_too(collection, tmp_path):
    matrix, photos = collection
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    write_embeddings(tmp_path / "other", matrix, photos, "e" * 64)
    with pytest.raises(SystemExit, match="the pictures of --not-cars were embedded with model eeeeeeeeeeee"):
        evaluated(tmp_path, "embeddings", "--not-cars", tmp_path / "other")


@pytest.fixture
def calibrated(tmp_path):
    return build_calibrated(tmp_path)


def test_photos_are_asked_for_as_the_service_asks(calibrated, tmp_path):
    embeddings, manifest = Embeddings.open(tmp_path / "embeddings"), calibrated.manifest
    rows = [row for row, photo in enumerate(embeddings.photos) if photo.split in ("test", "unseen-test")]
    plan = Plan(manifest.k, manifest.search, exact=False)
    with LocalEngine.open(calibrated) as shards:
        served = Searcher(lambda: View(Opened(calibrated, shards))).run(
            [Query(embeddings.matrix[row], plan) for row in rows]
        )
        served = [each.neighbours for each in served]
        found = Examiner(calibrated, shards).examine(embeddings.matrix[rows], [embeddings.photos[row] for row in rows])
    assert [each.found for each in found] == served
    assert [each.answer for each in found] == [Answerer(calibrated).answer([each]) for each in served]
    assert {each.answer.known_score == each.known_scores[VERDICT_SCORE] for each in found} == {True}


def with_no_car(folder, rows):
    """Writes into the artifact that no car was found in the photos of these rows, and one in all others."""
    path = folder / "items.csv"
    heading, *lines = path.read_text().splitlines()
    lines = [f"{line},0,0,1,1,{',true' if row in rows else '0.9,false'}" for row, line in enumerate(lines)]
    path.write_text("\n".join([f"{heading},left,top,right,bottom,car_score,no_car_found", *lines, ""]))
    fields = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {name: fields[name] for name in fields if name not in ("files", "sha256")})


def test_photos_without_a_car_count_as_unknown_and_are_told_with_and_without_them(calibrated, tmp_path, capsys):
    before = evaluated(tmp_path, "embeddings", "--split", "test")
    embeddings = Embeddings.open(tmp_path / "embeddings")
    known = [row for row, photo in enumerate(embeddings.photos) if photo.split == "test"]
    without = known[::4]
    with_no_car(tmp_path / "embeddings", without)
    capsys.readouterr()
    found = evaluated(tmp_path, "embeddings", "--split", "test")
    told = capsys.readouterr().out
    assert (before["no_car_found"], before["scores_with_car"], before["false_alarms_with_car"]) == (0, [], None)
    assert found["no_car_found"] == len(without)
    assert found["scores"] == before["scores"], "the nearest is given all the same"
    assert {each["photos"] for each in found["scores_with_car"]} == {len(known) - len(without)}
    called = found["false_alarms"]["value"] * len(known)
    assert called == pytest.approx(found["false_alarms_with_car"]["value"] * (len(known) - len(without)) + len(without))
    assert f"in {len(without)} no car was found: their verdict is unknown" in told
    assert "\nvote, where a car is " in told
    assert "\n  where a car is " in told


def test_a_photo_of_the_gallery_is_left_out_of_its_labels_mean_too(calibrated):
    version, row = calibrated, 3
    label = int(version.items.label_of[row])
    path = version.items.item_id(row)
    with LocalEngine.open(version) as engine:
        query = version.embeddings[row : row + 1].astype(np.float32)
        photo = Photo(path, version.items.labels[label], "train")
        (found,) = Examiner(version, engine).examine(query, [photo])
        (outside,) = Examiner(version, engine).examine(query, [photo], cars=False)
    others = version.embeddings[(version.items.label_of == label) & (np.arange(len(version.items)) != row)]
    sum_ = others.astype(np.float64).sum(axis=0)
    expected = query[0] @ sum_ / np.linalg.norm(query[0].astype(np.float64)) / np.linalg.norm(sum_)
    names = [each.label for each in found.found.labels]
    assert found.found.means[names.index(photo.label.label)] == pytest.approx(expected, abs=1e-9)
    assert max(outside.found.means) > expected + 1e-3


def test_a_photo_of_the_gallery_is_answered_as_a_gallery_without_it_would(calibrated, tmp_path):
    """Its label counts a photo less: with a prior, that is what its other photos' votes weigh. Three of five photos were left of it."""
    embeddings = Embeddings.open(tmp_path / "embeddings")
    label = next(photo.label for photo in embeddings.photos if photo.split == "train")
    of_label = [row for row, photo in enumerate(embeddings.photos) if photo.split == "train" and photo.label == label]
    own, gone = of_label[0], set(of_label[2:])
    kept = [row for row, photo in enumerate(embeddings.photos) if photo.split == "train" and row not in gone]
    with_it, without = (
        _index(tmp_path / name, embeddings, rows, calibrated.calibration)
        for name, rows in (("with", kept), ("without", [row for row in kept if row != own]))
    )
    photos, query = [embeddings.photos[own]], embeddings.matrix[own : own + 1].astype(np.float32)
    with LocalEngine.open(with_it) as one, LocalEngine.open(without) as other:
        examiner, direct = Examiner(with_it, one), Examiner(without, other)
        (found,), (expected,) = (each.examine(query, photos) for each in (examiner, direct))
        fused, alone = (each.answerer(photo) for each, photo in ((examiner, found), (direct, expected)))
    assert (found.in_gallery, expected.in_gallery) == (True, False)
    assert found.answer == expected.answer
    assert found.known_scores == expected.known_scores
    assert fused.answer([found.found] * 2) == alone.answer([expected.found] * 2)


def _index(directory, embeddings, rows, fitted):
    """Return an index of some photos, which answers by a calibration in which sizes count."""
    version = build_version(
        directory,
        embeddings=embeddings.matrix[rows].astype(np.float16),
        item_ids=[embeddings.photos[row].path for row in rows],
        labels=[embeddings.photos[row].label for row in rows],
        uris=["u"] * len(rows),
        model="m" * 64,
        model_name="n",
        spec=IndexSpec(k=10, temperature=0.05),
    )
    return dataclasses.replace(version, calibration=dataclasses.replace(fitted, prior=1.0))


def test_a_calibration_is_fitted_on_photos_that_show_a_car(calibrated, tmp_path, capsys):
    embeddings = Embeddings.open(tmp_path / "embeddings")
    dev = [row for row, photo in enumerate(embeddings.photos) if photo.split == "dev"]
    with_no_car(tmp_path / "embeddings", dev[:20])
    run("build", tmp_path / "embeddings", "--out", tmp_path / "anew")
    fitted = IndexVersion.open(tmp_path / "anew")
    assert fitted.calibration.photos == calibrated.calibration.photos - 20
    assert fitted.manifest.cuts == CutCounts(whole=fitted.manifest.items)


def test_a_calibrated_index_is_reported_with_its_verdicts(calibrated, tmp_path, capsys):
    found = evaluated(tmp_path, "embeddings", "--split", "test,unseen-test")
    fitted = calibrated.calibration
    said = f"AUROC {100 * fitted.strangers.auroc:.1f}, {100 * fitted.strangers.called_unknown:.1f} called unknown"
    assert f"{said}, of dev photos without their own label" in capsys.readouterr().out
    assert found["calibration"] == {
        "photos": fitted.photos,
        "false_alarm_rate": fitted.false_alarm_rate,
        "unknown_threshold": fitted.unknown_threshold,
        "strangers": dataclasses.asdict(fitted.strangers),
    }
    (kind,) = found["unknown"]
    assert kind["detectors"][0]["score"] == VERDICT_SCORE
    assert kind["called_unknown"]["low"] > found["false_alarms"]["value"]
    # The ROC of the score goes through the threshold that is stored.
    called, roc = kind["called_unknown"]["value"], kind["detectors"][0]["roc"]
    alarms = found["false_alarms"]["value"]
    assert any((point["fpr"], point["tpr"]) == pytest.approx((1 - called, 1 - alarms)) for point in roc)
    assert all(level["calibrated"] for level in found["confidence"])


@pytest.mark.parametrize(
    ("splits", "told"), [("test", False), ("dev", True), ("test,dev", True), ("unseen-dev,test", False)]
)
def test_photos_that_fitted_the_calibration_are_told(calibrated, tmp_path, capsys, splits, told):
    embeddings = Embeddings.open(tmp_path / "embeddings")
    unseen = [
        dataclasses.replace(each, split="unseen-dev") if each.split == "unseen-test" else each
        for each in embeddings.photos
    ]
    write_embeddings(tmp_path / "again", np.array(embeddings.matrix), unseen)
    evaluated(tmp_path, "again", "--split", splits, "--html", tmp_path / "r.html")
    text = "he calibration was fitted on dev photos: "
    assert (text in capsys.readouterr().out) == (text in (tmp_path / "r.html").read_text()) == told


class TestWarnings:
    """`evaluate` says on stderr where the verdict `unknown` is worth little."""

    @pytest.fixture
    def version(self, tmp_path):
        return build_calibrated(tmp_path)

    def said(self, capsys, tmp_path, split):
        capsys.readouterr()
        found = evaluated(tmp_path, "embeddings", "--split", split)
        return found, [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]

    def test_by_the_unknown_cars_that_are_asked_for(self, version, tmp_path, capsys, monkeypatch):
        found, warnings = self.said(capsys, tmp_path, "test,unseen-test")
        (kind,) = found["unknown"]
        (told,) = (each["auroc"]["value"] for each in kind["detectors"] if each["score"] == VERDICT_SCORE)
        assert (warnings == []) == (told >= 0.9)
        monkeypatch.setattr(verdicts, "_WORTH_SOMETHING", told + 1e-6)
        _, (warning,) = self.said(capsys, tmp_path, "test,unseen-test")
        measured = f"AUROC {told:.2f}, {kind['called_unknown']['value']:.0%} of them called unknown"
        assert f"of 80 photos of labels that the index lacks, {measured}" in warning

    def test_without_unknown_cars_by_what_was_measured_when_the_index_was_built(
        self, version, tmp_path, capsys, monkeypatch
    ):
        auroc = version.calibration.strangers.auroc
        monkeypatch.setattr(verdicts, "_WORTH_SOMETHING", auroc - 1e-6)
        assert self.said(capsys, tmp_path, "test")[1] == []
        monkeypatch.setattr(verdicts, "_WORTH_SOMETHING", auroc + 1e-6)
        (warning,) = self.said(capsys, tmp_path, "test")[1]
        assert f"of dev photos without their own label, AUROC {auroc:.2f}" in warning
