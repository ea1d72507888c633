"""Draws cars and runs the whole of vmmr on them, or on real photos."""
