"""What searches the shards of an index version, and merges what they find. All that calls faiss to search."""
