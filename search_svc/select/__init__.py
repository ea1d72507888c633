"""`vmmr-search select`: which index to build, chosen by how well and how fast dev photos find their own in it."""
