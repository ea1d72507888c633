"""Whitened heads against the formulas, on seeded features."""

import numpy as np
import pytest

from embedder_svc.exporting.whitening import Whitening, fit

PLAIN = Whitening(worn=0)
LABELS = [f"car {number % 5}" for number in range(200)]


@pytest.fixture(scope="module")
def features():
    """(200, 6): five labels with means of their own, and variances that differ by direction."""
    rng = np.random.default_rng(0)
    means = 3 * rng.standard_normal((5, 6)) * (1, 5, 1, 1, 1, 1)
    own = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6))
    return (means[np.arange(200) % 5] + own + 7).astype(np.float32)


def mapped(head, features):
    return features @ head.matrix + head.bias


def within(features):
    labels = np.array(LABELS)
    centred = np.concatenate([features[labels == label] - features[labels == label].mean(0) for label in set(LABELS)])
    return centred.T @ centred / len(centred)


def product_of(head):
    """(F, F): the matrix by which the inner product of two mapped features is formed, whatever the rotation."""
    return head.matrix.astype(np.float64) @ head.matrix.T


def shrunk_inverse(covariance, shrinkage):
    variances, vectors = np.linalg.eigh(covariance)
    return vectors / (variances + shrinkage * variances.mean()) @ vectors.T


class TestFit:
    def test_with_little_shrinkage_features_have_the_unit_matrix_as_covariance(self, features):
        result = mapped(fit(features, None, Whitening(within=0, shrinkage=1e-6, worn=0)), features)
        np.testing.assert_allclose(np.cov(result.T, bias=True), np.eye(6), atol=0.01)
        np.testing.assert_allclose(result.mean(0), 0, atol=1e-3)

    def test_the_total_covariance_is_shrunk_by_the_mean_variance(self, features):
        head = fit(features, None, Whitening(within=0, shrinkage=0.3, worn=0))
        expected = shrunk_inverse(np.cov(features.T, bias=True), 0.3)
        np.testing.assert_allclose(product_of(head), expected, atol=0.001 * np.abs(expected).max())

    def test_the_covariance_within_labels_is_scaled_to_the_trace_of_the_total_one(self, features):
        head = fit(features, LABELS, Whitening(within=1, shrinkage=0.2, worn=0))
        total, own = np.cov(features.T, bias=True), within(features)
        expected = shrunk_inverse(own / np.trace(own) * np.trace(total), 0.2)
        np.testing.assert_allclose(product_of(head), expected, atol=0.001 * np.abs(expected).max())

    def test_between_them_it_is_their_mixture(self, features):
        head = fit(features, LABELS, Whitening(within=0.25, shrinkage=0.2, worn=0))
        total, own = np.cov(features.T, bias=True), within(features)
        mixture = 0.75 * total + 0.25 * own / np.trace(own) * np.trace(total)
        expected = shrunk_inverse(mixture, 0.2)
        np.testing.assert_allclose(product_of(head), expected, atol=0.001 * np.abs(expected).max())

    @pytest.mark.parametrize("share", [0, 0.5, 1])
    def test_directions_are_those_in_which_whitened_photos_vary_most(self, features, share):
        whole = fit(features, LABELS, Whitening(within=share, shrinkage=0.2, worn=0))
        three = fit(features, LABELS, Whitening(within=share, shrinkage=0.2, worn=0, directions=3))
        np.testing.assert_array_equal(three.matrix, whole.matrix[:, :3])
        variances = mapped(whole, features).var(axis=0)
        assert (np.diff(variances) < 1e-3).all()
        assert variances[0] > variances[-1]

    def test_applied_it_gives_unit_length(self, features):
        embeddings = fit(features, LABELS, PLAIN).apply(features)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1)

    def test_its_numbers_are_float16s(self, features):
        matrix = fit(features, LABELS, PLAIN).matrix
        np.testing.assert_array_equal(matrix, matrix.astype(np.float16))

    def test_worn_copies_count_by_their_share_about_the_mean_of_the_photos(self, features):
        copies = (features[:50] * 0.1 + 3).astype(np.float32)
        head = fit(features, None, Whitening(shrinkage=0.2, worn=0.3), copies)
        off = copies.astype(np.float64) - features.mean(0, dtype=np.float64)
        expected = shrunk_inverse(0.7 * np.cov(features.T, bias=True) + 0.3 * off.T @ off / 50, 0.2)
        np.testing.assert_allclose(product_of(head), expected, atol=0.001 * np.abs(expected).max())

    def test_a_direction_in_which_worn_copies_lie_away_is_made_small(self):
        rng = np.random.default_rng(3)
        features = (rng.standard_normal((400, 3)) * (1, 1, 0.01)).astype(np.float32)
        copies = features + np.array([0, 0, 5], np.float32)
        without, given = fit(features, None, PLAIN), fit(features, None, Whitening(worn=0.1), copies)
        assert product_of(without)[2, 2] > 10 * product_of(without)[0, 0]
        assert product_of(given)[2, 2] < product_of(given)[0, 0]

    def test_the_order_of_photos_changes_nothing(self, features):
        order = np.random.default_rng(1).permutation(200)
        head = fit(features, LABELS, PLAIN)
        again = fit(features[order], [LABELS[place] for place in order], PLAIN)
        np.testing.assert_allclose(again.matrix, head.matrix, atol=1e-3)


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"within": 1.1}, "within must be 0 to 1, got 1.1"),
            ({"within": -0.1}, "within must be 0 to 1"),
            ({"within": float("nan")}, "within must be 0 to 1"),
            ({"shrinkage": 0}, "shrinkage must be > 0, got 0"),
            ({"shrinkage": float("nan")}, "shrinkage must be > 0"),
            ({"shrinkage": float("inf")}, "shrinkage must be > 0"),
            ({"worn": -0.1}, "worn must be 0 or more and less than 1, got -0.1"),
            ({"worn": 1}, "worn must be 0 or more and less than 1, got 1"),
            ({"worn": float("nan")}, "worn must be 0 or more"),
            ({"directions": 0}, "directions must be >= 1, got 0"),
        ],
    )
    def test_recipes(self, fields, message):
        with pytest.raises(ValueError, match=message):
            Whitening(**fields)

    def test_one_photo(self, features):
        with pytest.raises(ValueError, match="needs 2 photos or more, got 1"):
            fit(features[:1], LABELS[:1], PLAIN)

    def test_more_directions_than_features(self, features):
        with pytest.raises(ValueError, match="directions must be at most 6, the number of features, got 7"):
            fit(features, LABELS, Whitening(worn=0, directions=7))

    def test_no_labels(self, features):
        with pytest.raises(ValueError, match="needs the photos' labels, unless within is 0"):
            fit(features, None, Whitening(within=0.1, worn=0))

    def test_a_label_for_each_photo(self, features):
        with pytest.raises(ValueError, match="needs a label with two different photos"):
            fit(features, [str(number) for number in range(200)], Whitening(within=0.1, worn=0))

    def test_no_worn_copies(self, features):
        with pytest.raises(ValueError, match="needs worn copies of the photos, unless worn is 0"):
            fit(features, LABELS, Whitening())

    def test_features_that_vary_so_little_that_float16_cannot_hold_the_head(self, features):
        with pytest.raises(ValueError, match=r"needs features that vary more: a number of the head is .*e\+0"):
            fit(features * 1e-7, LABELS, PLAIN)

    def test_photos_that_are_all_alike(self):
        with pytest.raises(ValueError, match="needs photos that differ"):
            fit(np.ones((4, 3), np.float32), None, Whitening(within=0, worn=0))
