"""Fits weighting, typical scores and confidence to held-out photos."""
