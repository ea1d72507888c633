"""`python -m svckit.probe HOST:PORT` asks a server for its health: for container images, where no other gRPC client is.

Exit code 0 if the answer is SERVING; 1, and a line on stderr, if it is another one or none.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from svckit import cli

_USUAL = re.compile(r"[\w.-]+:([1-9][0-9]{0,3}|[1-5][0-9]{4})")
"""Matches addresses that need no closer look."""
_PROBE_S = 1.0


def health(
    address: str, *, service: str = "", timeout_s: float = 3.0, credentials: grpc.ChannelCredentials | None = None
) -> str:
    """Return the status of a server, or of one service on it: SERVING, NOT_SERVING, or the gRPC error that came instead."""
    with _channel(address, credentials) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            reply = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{error.code().name}: {_explained(error, address, secure=credentials is not None)}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def _explained(error: grpc.RpcError, address: str, *, secure: bool) -> str:
    """Return what gRPC says of a failed call; if it failed since one side alone has TLS, or for a certificate, say that."""
    # Healthy servers, which are asked every few seconds, need not wait for the client to be imported.
    from vmmr import _failures, _tls_probe  # noqa: PLC0415

    said = str(error.details())
    if secure:
        return f"it {meaning}" if (meaning := _failures.handshake_meaning(said)) else said
    unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return "it expects TLS: give --tls-ca" if unavailable and _tls_probe.speaks_tls(address, _PROBE_S) else said


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    # A proxy in the environment is not meant for a server on this machine.
    options = [("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parsed(argv)
    status = health(
        args.address,
        service=args.service,
        timeout_s=args.timeout,
        credentials=_credentials(args) if args.tls_ca else None,
    )
    if status != "SERVING":
        raise cli.CommandError(f"{args.address}: {status}")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parsing = parser()
    args = parsing.parse_args(argv)
    if (args.tls_cert or args.tls_key) and not args.tls_ca:
        parsing.error("--tls-cert and --tls-key need --tls-ca")
    return args


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m svckit.probe", description="Exit with 0 if a server is healthy.")
    parser.add_argument("address", metavar="HOST:PORT", type=_address)
    parser.add_argument("--service", default="", metavar="NAME", help="its full name; default: the server as a whole")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS", help="default: 3")
    parser.add_argument("--tls-ca", type=Path, metavar="PEM", help="connect with TLS, and trust this CA")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate to show, for mutual TLS")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    return parser


def _address(text: str) -> str:
    if not _USUAL.fullmatch(text):
        from vmmr._targets import check_target  # noqa: PLC0415 (as in _explained)

        try:
            check_target(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _credentials(args: argparse.Namespace) -> grpc.ChannelCredentials:
    key, cert = (path.read_bytes() if path else None for path in (args.tls_key, args.tls_cert))
    return grpc.ssl_channel_credentials(args.tls_ca.read_bytes(), key, cert)


if __name__ == "__main__":
    cli.run(main, "probe")
