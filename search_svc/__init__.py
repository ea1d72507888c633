"""Embeddings to neighbours to an answer: the server and its offline commands."""
