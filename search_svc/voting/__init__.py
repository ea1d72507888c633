"""Neighbours to an answer: labels, evidence, votes, years and calibration. Pure: no faiss, no gRPC."""
