"""Photos to embeddings: the server and its offline commands."""
