"""The layers of a faiss index: vector transforms and refinements wrap the index that does the searching."""

from typing import Any

import faiss

from search_svc.index.version import Metric, SearchParams

# The type hints that faiss ships do not know the keyword arguments that its Python layer adds.
_faiss: Any = faiss

# From so many floats of queries on, faiss searches a flat index with BLAS. Its default is 128,000, which is 250 queries of
# 512 dimensions. We measured that BLAS pays from three queries (2048 dimensions) or five (64 dimensions) on, and that 64
# queries are then four to eight times faster. With 4096, BLAS serves 64 queries of 64 dimensions, and no single query.
# The setting holds for the whole process. It is made here because everything that builds or searches imports this module.
_faiss.cvar.distance_compute_blas_threshold = 4096

METRICS: dict[Metric, int] = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


def metric_of(index: Any) -> Metric:
    return "ip" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"


def layers(index: Any) -> list[Any]:
    """Return the index, the index that it wraps, the one that this wraps, and so on."""
    found = [faiss.downcast_index(index)]
    while (inner := _inside(found[-1])) is not None:
        found.append(faiss.downcast_index(inner))
    return found


def innermost(index: Any) -> Any:
    """Return the index inside the vector transforms and the refinement."""
    return layers(index)[-1]


def transforms(index: Any) -> list[Any]:
    """Return the vector transforms of an IndexPreTransform, in the order in which they are applied."""
    return [_faiss.downcast_VectorTransform(index.chain.at(place)) for place in range(index.chain.size())]


def is_ivf(index: Any) -> bool:
    """Return whether the index, whatever wraps it, is an IVF index."""
    return isinstance(innermost(index), faiss.IndexIVF)


def is_hnsw(index: Any) -> bool:
    """Return whether the index, whatever wraps it, is an HNSW index."""
    return isinstance(innermost(index), faiss.IndexHNSW)


def parameters(nested: list[Any], params: SearchParams, selector: Any) -> Any:
    """Return the search parameters for faiss, nested as the layers are; None if faiss needs none.

    The selector goes to the innermost layer.
    """
    index, *inner = nested
    if isinstance(index, faiss.IndexPreTransform):
        return _faiss.SearchParametersPreTransform(index_params=parameters(inner, params, selector))
    if isinstance(index, faiss.IndexRefine):
        base = parameters(inner, params, selector)
        return _faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)
    if isinstance(index, faiss.IndexIVF):
        return _faiss.SearchParametersIVF(sel=selector, nprobe=params.nprobe or index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return _faiss.SearchParametersHNSW(sel=selector, efSearch=params.ef_search or index.hnsw.efSearch)
    # Some kinds refuse any parameters, even empty ones.
    return None if selector is None else _faiss.SearchParameters(sel=selector)


def _inside(index: Any) -> Any:
    if isinstance(index, faiss.IndexPreTransform):
        return index.index
    return index.base_index if isinstance(index, faiss.IndexRefine) else None
