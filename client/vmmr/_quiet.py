"""Import gRPC so that it logs nothing but errors, unless the environment says otherwise.

By default gRPC logs every server that goes away and every failed handshake to standard error; callers learn of both from
exceptions. It reads the variable when it is imported, and never again.
"""

import os

_VARIABLE = "GRPC_VERBOSITY"

if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = "ERROR"
    try:
        import grpc  # noqa: F401  # for its side effect
    finally:
        del os.environ[_VARIABLE]
