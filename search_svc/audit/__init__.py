"""`vmmr-search audit`: what a collection's owner may want to clean, found from its embeddings and photos."""
