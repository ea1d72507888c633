"""A whitened head: a linear map, fitted to the pooled features of labelled photos, that makes new cars findable without training.

The mean is taken off the features, and they are multiplied by a matrix after which a covariance of them is the unit matrix:
directions in which all photos vary alike (light, background, the shapes that all cars share) no longer outweigh those in which
cars differ. With `within` 0 that covariance is the total one (Jegou and Chum, "Negative evidences and co-occurences in image
retrieval", 2012), with 1 the one within labels (linear discriminants, Fisher 1936; Radenovic et al., "Fine-tuning CNN image
retrieval with no human annotation", 2018, learn it from pairs), and between them a mixture of the two.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_PHOTOS = 2


@dataclass(frozen=True)
class Whitening:
    """The recipe of a whitened head. Raise ValueError if a field has no value that it may have."""

    within: float = 0.0
    """The share of the covariance within labels; the rest is the total one, scaled to the same trace."""
    shrinkage: float = 0.05
    """Added to each variance, in units of the mean variance: how little the small ones are trusted."""
    worn: float = 0.2
    """The share of worn copies of the photos in that covariance; 0 takes none."""
    directions: int | None = None
    """How many directions to keep, those in which whitened photos vary most; None keeps as many as there are features."""

    def __post_init__(self) -> None:
        if not 0 <= self.within <= 1:
            raise ValueError(f"within must be 0 to 1, got {self.within:g}")
        if not 0 < self.shrinkage < math.inf:
            raise ValueError(f"shrinkage must be > 0, got {self.shrinkage:g}")
        if not 0 <= self.worn < 1:
            raise ValueError(f"worn must be 0 or more and less than 1, got {self.worn:g}")
        if self.directions is not None and self.directions < 1:
            raise ValueError(f"directions must be >= 1, got {self.directions}")


@dataclass(frozen=True)
class Head:
    """A linear map of features (N, F): `features @ matrix + bias`."""

    matrix: NDArray[np.float32]
    """(F, directions); its numbers are float16's, so that storing them in float16 changes nothing."""
    bias: NDArray[np.float32]
    """(directions,)"""

    def apply(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return the embeddings (N, directions), of unit length."""
        mapped = features.astype(np.float64) @ self.matrix.astype(np.float64) + self.bias
        embeddings: NDArray[np.float64] = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        return embeddings


def fit(
    features: NDArray[np.float32],
    labels: Sequence[str] | None,
    recipe: Whitening,
    worn: NDArray[np.float32] | None = None,
) -> Head:
    """Fit a head to the features (N, F) of N photos, and to those of `worn` copies (M, F) if `recipe.worn` is above 0.

    The photos' `labels` are needed if `recipe.within` is above 0. Raise ValueError if there are too few photos or features, or no
    label has two photos, or the features vary so little that a number of the head is beyond float16's range.
    """
    photos, width = features.shape
    if photos < _LEAST_PHOTOS:
        raise ValueError(f"needs {_LEAST_PHOTOS} photos or more, got {photos}")
    if (recipe.directions or 0) > width:
        raise ValueError(f"directions must be at most {width}, the number of features, got {recipe.directions}")
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    total = _covariance(centred)
    evened = _mixture(total, centred, labels, recipe.within)
    if recipe.worn:
        evened = (1 - recipe.worn) * evened + recipe.worn * _about(mean, worn)
    whitened = _inverse_root(evened, recipe.shrinkage)
    directions = _principal(whitened.T @ total @ whitened)[:, : recipe.directions]
    matrix = _halves(whitened @ directions)
    return Head(matrix, (-mean @ matrix).astype(np.float32))


def _halves(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the numbers rounded to float16's. Raise ValueError if one is beyond their range."""
    with np.errstate(over="ignore"):
        rounded = matrix.astype(np.float16).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise ValueError(
            f"needs features that vary more: a number of the head is {np.abs(matrix).max():.3g}, beyond float16's range"
        )
    return rounded


def _mixture(
    total: NDArray[np.float64], centred: NDArray[np.float64], labels: Sequence[str] | None, within: float
) -> NDArray[np.float64]:
    if not within:
        return total
    if labels is None:
        raise ValueError("needs the photos' labels, unless within is 0")
    own = _covariance(_less_label_means(centred, labels))
    if not np.trace(own) > 0:
        raise ValueError("needs a label with two different photos, unless within is 0")
    mixture: NDArray[np.float64] = (1 - within) * total + within * np.trace(total) / np.trace(own) * own
    return mixture


def _about(mean: NDArray[np.float64], worn: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Return how worn copies lie about the mean of the photos: their own mean lies elsewhere, and that counts."""
    if worn is None or not len(worn):
        raise ValueError("needs worn copies of the photos, unless worn is 0")
    return _covariance(worn - mean)


def _less_label_means(features: NDArray[np.float64], labels: Sequence[str]) -> NDArray[np.float64]:
    _, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), features.shape[1]))
    np.add.at(means, number, features)
    centred: NDArray[np.float64] = features - (means / counts[:, None])[number]
    return centred


def _covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    covariance: NDArray[np.float64] = centred.T @ centred / len(centred)
    return covariance


def _inverse_root(covariance: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """Return the matrix after which features with this covariance, shrunk, have the unit matrix as theirs."""
    variances, vectors = np.linalg.eigh(covariance)
    mean = variances.mean()
    if not mean > 0:
        raise ValueError("needs photos that differ")
    root: NDArray[np.float64] = vectors / np.sqrt(np.maximum(variances, 0) + shrinkage * mean)
    return root


def _principal(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvectors as columns, that of the largest eigenvalue first; signs are such that the largest entry is positive."""
    vectors = np.linalg.eigh(covariance)[1][:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    principal: NDArray[np.float64] = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return principal
