import dataclasses
import itertools

import faiss
import numpy as np
import pytest

from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.fitting import fit as fitting
from search_svc.fitting import held_out as holding
from search_svc.fitting import known, verdicts
from search_svc.fitting.calibration_metrics import auroc
from search_svc.fitting.held_out import HeldOutPhotos
from search_svc.fitting.known import FALSE_ALARM_RATE
from search_svc.index.version import IndexVersion
from search_svc.voting.answer import Answerer
from search_svc.voting.calibration import LEVELS, Strangers
from search_svc.voting.labels import parse
from search_svc.voting.neighbours import QueryNeighbours
from tests.search_svc.builds import build_version

faiss.omp_set_num_threads(1)  # more only wait for each other on arrays as small as these

MAKES, MODELS, YEARS = range(8), range(3), (2001, 2002, 2005, 2006)
UNKNOWN_MAKES = (6, 7)
PHOTOS, DIMENSION = 16, 32


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def cars(alike):
    """Return labels and their centres in a space of makes, models and years. `alike`, 0 to 1, is how near adjacent years are."""
    rng = np.random.default_rng(1)
    names, places = [], []
    shape = np.zeros(DIMENSION)
    for make, model in itertools.product(MAKES, MODELS):
        shape = 0.6 * shape * (model > 0) + rng.normal(size=DIMENSION)
        for year, start in zip(YEARS, (True, False, True, False), strict=True):
            facelift = rng.normal(size=DIMENSION) * (0.9 if start else 0.9 * (1 - alike))
            shape = shape + facelift
            names.append(parse(f"make{make}_model {model}_{year}"))
            places.append(shape)
    return names, np.array(places)


def photos(labels, places, each, noise, seed):
    """Return photos around the centres of their labels; those of some models are more alike than those of others."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(labels)), each)
    spread = noise * np.array([0.6 + 0.2 * int(label.model.split()[-1]) for label in labels])
    return unit(unit(places)[rows] + spread[rows, None] * rng.normal(size=(len(rows), DIMENSION))), [
        labels[row] for row in rows
    ]


def world(tmp_path, *, alike=0.3, noise=0.22, spec=None, lacking=False):
    """A calibrated index of the known makes, other photos of these makes, and photos of unknown makes.

    With `lacking`, what is unknown are some years of models that are known.
    """
    labels, places = cars(alike)
    is_known = [not label.make.endswith(tuple(map(str, UNKNOWN_MAKES))) for label in labels]
    if lacking:
        is_known = [place >= 16 for place in np.random.default_rng(0).permutation(len(labels)).tolist()]
    names = [label for label, each in zip(labels, is_known, strict=True) if each]
    gallery, of = photos(names, places[is_known], PHOTOS, noise, 0)
    held, held_of = photos(names, places[is_known], 12, noise, 2)
    version = build_version(
        tmp_path,
        embeddings=gallery,
        item_ids=[f"{row}.jpg" for row in range(len(of))],
        labels=of,
        uris=["u"] * len(of),
        model="m" * 64,
        model_name="n",
        spec=spec or IndexSpec(),
        held=HeldOutPhotos(held, np.arange(len(held)), held_of),
    )
    test = photos(names, places[is_known], 10, noise, 3)
    strange = photos(
        [label for label, each in zip(labels, is_known, strict=True) if not each],
        places[~np.array(is_known)],
        10,
        noise,
        4,
    )
    return version, test, strange


def look(version, embeddings):
    with LocalEngine.open(version) as shards:
        hits = shards.search(embeddings, version.manifest.k).hits
    items = version.items
    positions = items.label_of[hits.ids]
    return [
        QueryNeighbours(ids.tolist(), [items.labels[place] for place in of.tolist()], scores.tolist(), means.tolist())
        for ids, of, scores, means in zip(
            hits.ids, positions, hits.scores, version.means.similarities(embeddings, positions), strict=True
        )
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    version, (test, test_of), (strange, _) = world(tmp_path_factory.mktemp("index"))
    return version, look(version, test), test_of, look(version, strange)


def test_the_version_holds_its_calibration_and_what_was_fitted(made):
    version = made[0]
    assert IndexVersion.open(version.path.parents[1]).calibration == version.calibration
    assert (version.manifest.k, version.manifest.temperature) == (
        version.calibration.k,
        version.calibration.temperature,
    )
    assert version.calibration.photos == 864
    assert version.calibration.typical.keys() == {label.label for label in version.items.labels}


def test_a_tenth_of_other_photos_of_these_cars_is_as_near_as_between_two_deciles(made):
    version, test, _, _ = made
    nearest = [max(found.scores) for found in test]
    shares = np.bincount(np.searchsorted(version.calibration.nearest, nearest), minlength=10) / len(nearest)
    assert len(shares) == 10
    np.testing.assert_allclose(shares, 0.1, atol=0.05)


def test_confidences_are_as_often_right_as_they_say_on_photos_that_fitted_nothing(made):
    version, test, truth, _ = made
    answers = [Answerer(version).answer([found]) for found in test]
    for level, confidence in (("label", "label_confidence"), ("make", "make_confidence")):
        right = np.mean(
            [getattr(each.vote.answer, level) == getattr(of, level) for each, of in zip(answers, truth, strict=True)]
        )
        said = np.mean([getattr(each, confidence) for each in answers])
        assert 0.5 < right < 0.999
        assert said == pytest.approx(right, abs=0.03)


def test_fused_photos_are_more_often_right_and_say_so(made):
    version, test, truth, _ = made
    groups = [(test[row : row + 3], truth[row]) for row in range(0, len(test), 10)]
    groups += [(test[row + 4 : row + 7], truth[row]) for row in range(0, len(test), 10)]
    answers = [(Answerer(version).answer(group), Answerer(version).answer(group[:1]), of) for group, of in groups]
    fused, single = (np.mean([each[which].vote.answer == each[2] for each in answers]) for which in (0, 1))
    said, said_single = (np.mean([each[which].label_confidence for each in answers]) for which in (0, 1))
    assert fused > single + 0.02
    assert said > said_single + 0.02
    assert said == pytest.approx(fused, abs=0.06)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_known_cars_are_called_unknown_no_oftener_than_stated_and_unknown_ones_often(made, size):
    version, test, _, strange = made
    answers = Answerer(version)
    rates = [
        np.mean([answers.answer(found[row : row + size]).verdict == "unknown" for row in range(0, len(found), 5)])
        for found in (test, strange)
    ]
    assert rates[0] < 2.5 * FALSE_ALARM_RATE
    assert rates[1] > 0.6


def test_the_combined_score_tells_unknown_cars_from_known_ones(made):
    version, test, _, strange = made
    scores = [[Answerer(version).known_scores([found])["combined"] for found in each] for each in (test, strange)]
    assert auroc(*map(np.array, scores)) > 0.9


def test_the_same_photos_give_the_same_calibration_in_any_number_of_shards(tmp_path):
    one, again, three = (
        world(tmp_path / str(place), spec=IndexSpec(shards=shards))[0].calibration
        for place, shards in enumerate((1, 1, 3))
    )
    assert one == again == three


def test_what_is_given_is_not_fitted(tmp_path):
    version = world(tmp_path, spec=IndexSpec(k=4, temperature=0.123))[0]
    assert (version.manifest.k, version.manifest.temperature) == (4, 0.123)
    assert (version.calibration.k, version.calibration.temperature) == (4, 0.123)


@pytest.mark.parametrize("spec", [IndexSpec("IVF4,SQ8", nprobe=1), IndexSpec(metric="l2"), IndexSpec("HNSW8,Flat")])
def test_indexes_of_other_kinds_are_fitted_by_what_they_find(tmp_path, spec):
    version, (test, truth), (strange, _) = world(tmp_path, spec=spec)
    answers = Answerer(version)
    found = [answers.answer([each]) for each in look(version, test)]
    right = np.mean([each.vote.answer == of for each, of in zip(found, truth, strict=True)])
    assert np.mean([each.label_confidence for each in found]) == pytest.approx(right, abs=0.05)
    assert np.mean([each.verdict == "unknown" for each in found]) < 2.5 * FALSE_ALARM_RATE
    assert np.mean([answers.answer([each]).verdict == "unknown" for each in look(version, strange)]) > 0.5


def test_years_that_cannot_be_told_apart_come_as_ranges_and_others_alone(tmp_path):
    outcome = {}
    for alike in (0.0, 1.0):
        version, (test, truth), _ = world(tmp_path / str(alike), alike=alike, noise=0.1)
        pairs = [(Answerer(version).answer([found]), of) for found, of in zip(look(version, test), truth, strict=True)]
        pairs = [
            (answer, of)
            for answer, of in pairs
            if (answer.vote.answer.make, answer.vote.answer.model) == (of.make, of.model)
        ]
        assert version.calibration.year_photos > 200
        outcome[alike] = (
            np.mean([answer.vote.answer.year == of.year for answer, of in pairs]),
            np.mean([answer.years[0] <= of.year <= answer.years[1] for answer, of in pairs]),
            np.mean([answer.years[0] < answer.years[1] for answer, of in pairs]),
            np.mean([answer.years_confidence / answer.model_confidence for answer, of in pairs]),
        )
    exact, within, wide, said = outcome[1.0]
    assert exact < 0.65
    assert within > exact + 0.2
    assert wide > 0.5
    assert within - 0.08 < said < within + 0.03, "rather too low than too high"
    exact, within, wide, _ = outcome[0.0]
    assert exact > 0.9
    assert wide < 0.2


def test_a_gallery_of_models_of_one_year_each_leaves_the_default_ratio(tmp_path):
    rng = np.random.default_rng(0)
    labels = [parse(f"make{place}_model 1_2001") for place in range(20)]
    places = rng.normal(size=(20, DIMENSION))
    gallery, of = photos(labels, places, 5, 0.3, 0)
    held, held_of = photos(labels, places, 6, 0.3, 1)
    version = build_version(
        tmp_path,
        embeddings=gallery,
        item_ids=[str(row) for row in range(100)],
        labels=of,
        uris=["u"] * 100,
        model="m",
        model_name="n",
        spec=IndexSpec(),
        held=HeldOutPhotos(held, np.arange(len(held)), held_of),
    )
    assert (version.calibration.year_ratio, version.calibration.year_photos) == (0.5, 0)


def test_of_many_photos_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "MOST_PHOTOS", 150)
    assert world(tmp_path)[0].calibration.photos == 150


@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_the_threshold_follows_the_rate_that_is_stated(tmp_path, monkeypatch, rate):
    for module in (fitting, known):
        monkeypatch.setattr(module, "FALSE_ALARM_RATE", rate)
    version, (test, _), _ = world(tmp_path)
    answers = Answerer(version)
    assert version.calibration.false_alarm_rate == rate
    unknown = np.mean([answers.answer([each]).verdict == "unknown" for each in look(version, test)])
    assert unknown == pytest.approx(rate, abs=0.6 * rate)


def test_errors_are_stated_by_level_and_calibrating_mends_a_temperature_that_is_wrong(tmp_path):
    errors = world(tmp_path, spec=IndexSpec(k=20, temperature=5.0))[0].calibration.errors
    assert tuple(errors) == tuple(LEVELS)
    assert errors["label"].before > 0.1
    assert errors["label"].after < 0.6 * errors["label"].before


def test_too_few_photos_or_labels_calibrate_nothing(tmp_path):
    rng = np.random.default_rng(0)
    labels = [parse(f"make{place}_model 1_2001") for place in range(8)]
    for photo_count, label_count in ((99, 8), (400, 4)):
        vectors = unit(rng.normal(size=(photo_count, DIMENSION)))
        names = [labels[row % label_count] for row in range(photo_count)]
        version = build_version(
            tmp_path / str(photo_count),
            embeddings=vectors,
            item_ids=[str(row) for row in range(photo_count)],
            labels=names,
            uris=["u"] * photo_count,
            model="m",
            model_name="n",
            spec=IndexSpec(),
            held=HeldOutPhotos(vectors, np.arange(photo_count), names),
        )
        assert version.calibration is None
        assert (version.manifest.k, version.manifest.temperature) == (5, pytest.approx(0.05, rel=1e-3))


def test_offsets_bring_the_cut_of_every_number_of_photos_to_that_of_one():
    assert known.offsets([1.0, 1.5, 0.5, None, 2.0]) == (0.0, -0.5, 0.5)
    assert known.offsets([None, None]) == (0.0,)


class TestStrangers:
    """What a calibration says of how well unknown cars are told."""

    def test_it_is_what_becomes_of_labels_that_the_gallery_lacks(self, tmp_path):
        version, (test, _), (strange, _) = world(tmp_path, lacking=True)
        answers = Answerer(version)
        ours, others = (
            np.array([answers.answer([found]).known_score for found in look(version, photos)])
            for photos in (test, strange)
        )
        said = version.calibration.strangers
        assert said.auroc == pytest.approx(auroc(ours, others), abs=0.05)
        called = np.mean(others < version.calibration.unknown_threshold)
        assert said.called_unknown == pytest.approx(called, abs=0.1)

    def test_where_all_labels_look_alike_the_verdict_is_worth_little_and_build_warns(self, tmp_path):
        version = world(tmp_path, noise=2.0)[0]
        said = version.calibration.strangers
        assert said.auroc < 0.8
        warning = verdicts.warning(version.calibration)
        assert f"AUROC {said.auroc:.2f}, {said.called_unknown:.0%} of them called unknown" in warning

    def test_where_it_is_worth_something_or_there_is_none_build_warns_not(self, made):
        calibration = made[0].calibration
        sure = dataclasses.replace(calibration, strangers=Strangers(0.95, 0.7))
        assert verdicts.warning(sure) == verdicts.warning(None) == ""
        assert "was not measured" in verdicts.warning(dataclasses.replace(calibration, strangers=None))
