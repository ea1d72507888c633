"""faiss' kernel gives a query the same bits in any company, and BLAS does not: that tells which of them was used."""

from contextlib import nullcontext

import faiss
import numpy as np
import pytest

from search_svc import blas

D = 512


@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
@pytest.mark.parametrize(
    ("queries", "inside", "used"), [(6, True, True), (64, True, True), (5, True, False), (64, False, False)]
)
def test_blas_is_used_inside_from_six_queries_on(metric, queries, inside, used):
    vectors = np.random.default_rng(0).standard_normal((300, D), np.float32)
    index = faiss.IndexFlat(D, metric)
    index.add(vectors)
    alone = np.concatenate([index.search(vectors[row : row + 1], 100)[0] for row in range(queries)])
    with blas.for_batches(D) if inside else nullcontext():
        together, _ = index.search(vectors[:queries], 100)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-2)
    assert (not np.array_equal(together, alone)) == used


def test_a_search_that_fails_puts_the_setting_back_too():
    before = faiss.cvar.distance_compute_blas_threshold
    with pytest.raises(ZeroDivisionError), blas.for_batches(D):
        raise ZeroDivisionError
    assert faiss.cvar.distance_compute_blas_threshold == before
