"""Checks of the embeddings that a call brings, queries and items alike: of which model they are, and how long."""

import numpy as np
from numpy.typing import NDArray
from vmmr.embedding.v1 import embedding_pb2

from search_svc.index.version import VersionManifest
from svckit.errors import Reason, ServiceError, Violation

_FINGERPRINT_LENGTH = 64
# Beyond these, float32 scores lose what tells photos apart: they overflow, or are all zero.
_SQUARED_LENGTHS = (1e-12, 1e30)


def check_model(embeddings: embedding_pb2.Embeddings, index: VersionManifest, *, what: str) -> None:
    """Raise ServiceError (MODEL_MISMATCH) if the embeddings are not of the index's model. `what` they are is for its text."""
    if embeddings.model == index.model:
        return
    got = embeddings.model[:_FINGERPRINT_LENGTH]
    raise ServiceError(
        Reason.MODEL_MISMATCH,
        f"the {what} were embedded with model {got[:12] or '(none given)'}, the index with {index.model[:12]} "
        f"({index.model_name}): embed them with the index's model, or embed the gallery anew with theirs: `vmmr-search migrate`",
        metadata={"expected": index.model, "got": got},
    )


def dimension_violation(embeddings: embedding_pb2.Embeddings, index: VersionManifest, path: str) -> Violation | None:
    """Return what is wrong with the dimension of the embeddings, which are the field `path` of the call, if anything is."""
    if embeddings.dimension == index.dimension:
        return None
    text = f"must be {index.dimension}, the dimension of the index, got {embeddings.dimension}"
    return Violation(f"{path}.dimension", Reason.DIMENSION_MISMATCH, text)


def check_lengths(embeddings: NDArray[np.float32]) -> None:
    """Raise ValueError, naming the first such row, if an embedding (n, dimension) has a length that would spoil scores."""
    squares = np.einsum("nd,nd->n", embeddings, embeddings)
    shortest, longest = _SQUARED_LENGTHS
    odd = np.flatnonzero((squares < shortest) | (squares > longest))
    if len(odd):
        raise ValueError(f"row {odd[0]} has length {squares[odd[0]] ** 0.5:.3g}, which no photo's embedding has")
