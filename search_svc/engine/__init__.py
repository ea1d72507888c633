"""Searches the shards of an index version, and merges their hits. All of faiss but index building is in this room."""
