"""Thinned galleries, against galleries of the photos that were left."""

import numpy as np
import pytest

from search_svc.engine.local import LocalEngine
from search_svc.fitting.held_out import HeldOutPhotos, search_held_out
from search_svc.fitting.trials import _LEFT, Trial, thinned
from search_svc.fitting.typical import typical_scores
from search_svc.voting.labels import parse


@pytest.fixture(scope="module")
def trials(calibrated):
    version = calibrated.version
    held = HeldOutPhotos(calibrated.photos, np.arange(len(calibrated.photos)), list(map(parse, calibrated.names)))
    with LocalEngine.open(version) as engine:
        neighbours = search_held_out(version, engine, held, 30, np.random.default_rng(0))
    items = version.items
    typical = typical_scores(version.embeddings, items.label_of, len(items.labels), "ip", 0)
    whole = Trial(neighbours, items.labels, items.counts, version.means, typical)
    return version, whole, thinned(version, whole, np.random.default_rng(1))


def test_each_photo_is_asked_once_where_its_label_was_thinned_and_once_where_it_was_not(trials):
    _, whole, thin = trials
    everything = sorted(map(bytes, whole.neighbours.queries))
    for kind in (thin.new, thin.others):
        assert sorted(bytes(query) for trial in kind for query in trial.neighbours.queries) == everything
    for trial, thinned_own in ((thin.new, True), (thin.others, False)):
        for each in trial:
            sizes = each.sizes[each.neighbours.truth]
            assert set(np.unique(sizes)) <= ({*_LEFT, 15} - {20} if thinned_own else {15})
    drawn = {size for each in thin.new for size in each.sizes[each.neighbours.truth].tolist()}
    assert len(drawn) > 2, "not every label is thinned to the same number"


def test_what_is_left_is_what_a_gallery_of_the_rows_that_were_kept_would_be(trials):
    version, whole, thin = trials
    label_of = version.items.label_of
    for trial in (*thin.new, *thin.others):
        scores = trial.neighbours.queries @ version.embeddings.astype(np.float32).T
        rows = np.unique(trial.neighbours.rows[trial.neighbours.rows >= 0])
        assert np.bincount(label_of[rows], minlength=len(whole.labels)).tolist() == trial.sizes.tolist()
        order = rows[np.argsort(-scores[:, rows], axis=1, kind="stable")]
        assert (trial.neighbours.rows[:, : len(rows)] == order).all()
        assert (trial.neighbours.positions[:, : len(rows)] == label_of[order]).all()
        assert (trial.neighbours.positions[:, len(rows) :] == -1).all()
        for label in range(len(whole.labels)):
            left = version.embeddings[rows[label_of[rows] == label]].astype(np.float64)
            assert trial.means.sum_of(label).tolist() == left.sum(axis=0).tolist()
