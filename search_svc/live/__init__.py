"""The gallery at one moment: an index version and what the journal says since."""
