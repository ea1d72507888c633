"""The process in which HEIC and AVIF are decoded: `apart` starts it, as `python -m svckit.photos.decoder_process`.

A request is a line of JSON and a file; a reply is a line of JSON, and the pixels if there are any. It ends when its input does.
"""

import contextlib
import json
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from svckit.photos import iso_media
from svckit.photos.kinds import Format
from svckit.photos.photo import Photo
from svckit.photos.refusals import PhotoError, PhotoReason, too_complex, truncated

_BYTES_A_PIXEL = 16
"""The memory for a pixel, of as many as a photo may have; of what was measured, an AVIF of 10 bits with an alpha channel took the most."""
_BYTES_BESIDE = 128 << 20
_FILES = 4
"""Copies of the file that may be there at once."""


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process when the timer says so
    with contextlib.suppress(PhotoError):
        iso_media.heif_plugin()  # so that its libraries are part of what is there already
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    used = _memory()
    replies.write(b"ready\n")
    replies.flush()
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["bytes"])
        _limit(used + _BYTES_A_PIXEL * request["max_pixels"] + _FILES * len(content) + _BYTES_BESIDE)
        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])
        reply, pixels = _answer(request, content)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply | {"bytes": len(pixels)}).encode() + b"\n")
        replies.write(pixels)
        replies.flush()


def _answer(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        image = Photo.open_here(Format(request["form"]), content, request["max_pixels"]).decode()
        return {"size": image.size}, image.tobytes()
    except PhotoError as error:
        is_cut = error.reason is PhotoReason.IMAGE_CORRUPT and iso_media.ends_early(content)
        return _refused(truncated() if is_cut else error)
    except MemoryError:
        return _refused(too_complex("decoding it takes more memory than a photo should"))


def _refused(error: PhotoError) -> tuple[dict[str, Any], bytes]:
    return {"reason": error.reason, "description": error.description}, b""


def _memory() -> int:
    """Return the bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(memory: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))


if __name__ == "__main__":
    main()
