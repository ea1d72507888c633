"""Imports gRPC so that it logs errors alone, unless the environment says otherwise.

By default it tells standard error of every server that goes away and of every failed handshake; callers learn of both
from exceptions. It reads the variable when it is imported, and never again.
"""

import os

_VARIABLE = "GRPC_VERBOSITY"

if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = "ERROR"
    try:
        import grpc  # noqa: F401  # for its side effect
    finally:
        del os.environ[_VARIABLE]
