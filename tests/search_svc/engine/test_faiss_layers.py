import subprocess
import sys

import faiss
import numpy as np
import pytest

from search_svc.engine import faiss_layers


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize(
    ("dimension", "queries", "used"),
    [(64, 64, True), (512, 8, True), (512, 7, False), (2048, 64, True), (2048, 1, False)],
)
def test_batches_are_compared_in_blas_and_no_single_query(metric, dimension, queries, used):
    """The kernel of faiss gives a query the same bits in any batch, and BLAS does not: that tells which of them was used."""
    vectors = np.random.default_rng(0).standard_normal((300, dimension), np.float32)
    index = faiss.IndexFlat(dimension, faiss_layers.METRICS[metric])
    index.add(vectors)
    alone = np.concatenate([index.search(vectors[row : row + 1], 100)[0] for row in range(queries)])
    together, _ = index.search(vectors[:queries], 100)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-2)
    assert (not np.array_equal(together, alone)) == used


@pytest.mark.parametrize(
    "module", ["engine.adapters", "engine.scanning", "engine.local", "building.faiss_index", "building.shard_files"]
)
def test_all_that_builds_or_searches_sets_when_blas_is_used(module):
    program = f"import search_svc.{module}, faiss; print(faiss.cvar.distance_compute_blas_threshold)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "4096\n"
