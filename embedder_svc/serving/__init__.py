"""The gRPC services over one model."""
