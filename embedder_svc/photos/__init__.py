"""Encoded photos to pixels."""
