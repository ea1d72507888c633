"""Make photos of the names on a command line: files, URLs and standard input."""

import argparse
import sys
from collections.abc import Iterator

from vmmr._cli.settings import subject
from vmmr._fetch import URL
from vmmr._photos import Photo, PhotoSource


def is_url(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def source(name: str, args: argparse.Namespace) -> PhotoSource:
    if name == "-":
        return sys.stdin.buffer
    if is_url(name):
        return URL(
            name,
            timeout_s=args.fetch_timeout,
            max_bytes=args.fetch_max_bytes,
            max_redirects=args.fetch_max_redirects,
            allow_private=args.allow_private,
        )
    return name


def photos(args: argparse.Namespace) -> Iterator[Photo]:
    """Yield the photos, each with what of it to look at."""
    return (Photo(source(name, args), args.crop, subject(args)) for name in args.photos)
