"""Embeds a whole collection."""
