"""The demo: draws cars and runs every part of vmmr on them, or on real photos."""
