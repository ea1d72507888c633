"""What a faiss index is made of: vector transforms and refinements wrap the index that does the searching."""

from typing import Any

import faiss

from search_svc.index.version import Metric, SearchParams

# The type hints that faiss ships do not know the keyword arguments that its Python layer adds.
_faiss: Any = faiss

# A setting of the whole process: from how many floats of queries on faiss compares with a flat index in BLAS. Its own is
# 128,000, as if BLAS paid from 250 queries of 512 dimensions on. Measured, it does from three (2048 dimensions) to five
# (64), and 64 queries are then four to eight times faster. Set here once, as all that builds or searches imports this, so
# that no process does otherwise: 64 queries of 64 dimensions, and no single query of an embedding.
_faiss.cvar.distance_compute_blas_threshold = 4096

METRICS: dict[Metric, int] = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


def metric_of(index: Any) -> Metric:
    return "ip" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"


def layers(index: Any) -> list[Any]:
    """The index, what it wraps, what that wraps, and so on."""
    found = [faiss.downcast_index(index)]
    while (inner := _inside(found[-1])) is not None:
        found.append(faiss.downcast_index(inner))
    return found


def innermost(index: Any) -> Any:
    """What is inside the vector transforms and the refinement."""
    return layers(index)[-1]


def transforms(index: Any) -> list[Any]:
    """What an IndexPreTransform does to vectors, in this order."""
    return [_faiss.downcast_VectorTransform(index.chain.at(place)) for place in range(index.chain.size())]


def is_lists(index: Any) -> bool:
    """Whether it is an IVF index."""
    return isinstance(innermost(index), faiss.IndexIVF)


def is_graph(index: Any) -> bool:
    """Whether it is an HNSW index."""
    return isinstance(innermost(index), faiss.IndexHNSW)


def parameters(nested: list[Any], params: SearchParams, selector: Any) -> Any:
    """What a call tells faiss, nested as the index is; the selector goes to the innermost layer. None: nothing."""
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
