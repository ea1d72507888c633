"""`vmmr-search select`: chooses which index to build, by how well and how fast dev photos find photos of their label."""
