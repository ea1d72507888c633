"""`vmmr-embedder embed`: the embeddings of a whole collection."""
