"""Pixels to embeddings: the model on disk, and onnxruntime."""
