"""Turn parsed arguments into what the clients take."""

import argparse
from collections.abc import Mapping

from vmmr import _tokens
from vmmr._channel import TLS
from vmmr._types import Filter, SearchOptions, Subject


def tls(args: argparse.Namespace) -> TLS | None:
    secure = args.tls or args.tls_ca or args.tls_cert or args.tls_key
    return TLS(args.tls_ca, args.tls_cert, args.tls_key) if secure else None


def token(args: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    """Return the bearer token, if there is one. Raise OSError or ValueError if there is none in the file that should hold it."""
    if args.token_file:
        return _tokens.read(args.token_file)
    return environment.get("VMMR_TOKEN", "").strip() or None


def subject(args: argparse.Namespace) -> Subject | None:
    """Return what of each photo to look at; None: what the service looks at by default, or the crop."""
    return "whole" if args.whole else None


def chosen(args: argparse.Namespace) -> Filter:
    return Filter(tuple(args.make), tuple(args.model), tuple(args.label), args.min_year, args.max_year)


def search_options(args: argparse.Namespace) -> SearchOptions:
    return SearchOptions(
        k=args.k,
        filter=chosen(args),
        exact=args.exact,
        nprobe=args.nprobe,
        ef_search=args.ef_search,
        rerank=args.rerank,
        allow_partial=args.allow_partial,
        shard_timeout_s=args.shard_timeout,
    )
