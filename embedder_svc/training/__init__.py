"""Metric learning: from labelled photos and starting weights to a checkpoint. Needs torch; no service imports it."""
