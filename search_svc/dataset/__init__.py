"""A folder of labelled photos: its labels, splits, exclusions and embeddings."""
