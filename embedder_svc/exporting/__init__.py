"""`vmmr-embedder export`: checkpoints to model bundles. With `training`, the only code that imports torch."""
