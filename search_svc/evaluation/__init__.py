"""Measures how often an index answers right, and what its confidences are worth."""
