"""What a faiss index is made of: vector transforms and refinements wrap the index that does the searching."""

from typing import Any

import faiss

METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


def layers(index: Any) -> list[Any]:
    """The index, what it wraps, what that wraps, and so on."""
    found = [faiss.downcast_index(index)]
    while (inner := _inside(found[-1])) is not None:
        found.append(faiss.downcast_index(inner))
    return found


def innermost(index: Any) -> Any:
    """What is inside the vector transforms and the refinement."""
    return layers(index)[-1]


def is_lists(index: Any) -> bool:
    """Whether it is an IVF index."""
    return isinstance(innermost(index), faiss.IndexIVF)


def is_graph(index: Any) -> bool:
    """Whether it is an HNSW index."""
    return isinstance(innermost(index), faiss.IndexHNSW)


def _inside(index: Any) -> Any:
    if isinstance(index, faiss.IndexPreTransform):
        return index.index
    return index.base_index if isinstance(index, faiss.IndexRefine) else None
