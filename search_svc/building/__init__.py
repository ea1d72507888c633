"""Makes index versions: from embeddings, from the journal, or for another model."""
