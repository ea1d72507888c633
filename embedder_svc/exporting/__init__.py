"""Checkpoints to model bundles. All that imports torch but training."""
