"""The gRPC services over a live gallery."""
