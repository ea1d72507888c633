"""Decodes photos in processes apart, one for each thread that asks: HEIC and AVIF.

Their decoders are large programs in C and C++, in which holes are found every year, and the header of a file does not bound what
decoding it takes. So a process is given so much memory and CPU time for a photo. A crash costs that photo, and nobody else.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from typing import Any

from PIL import Image

from svckit.photos.kinds import Format
from svckit.photos.refusals import PhotoError, PhotoReason, too_complex

CPU_S = 10.0
"""CPU seconds for a photo, for each 25 megapixels that it may have; one of 25 megapixels takes half a second."""

_mine = threading.local()


class _Process:
    """A process that decodes photos, one after another. It ends when this object is gone."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "svckit.photos.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a decoder says as it dies
            start_new_session=True,  # Ctrl-C is for the server, which then ends this
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        )
        self.end = weakref.finalize(self, _end, self._popen)
        assert self._popen.stdin
        assert self._popen.stdout
        self._requests, self._replies = self._popen.stdin, self._popen.stdout
        if self._replies.readline() != b"ready\n":
            self.end()
            raise RuntimeError("the process that decodes HEIC and AVIF did not start")

    @property
    def is_usable(self) -> bool:
        """Return whether it is there, and this process's own: after a fork the parent goes on using it."""
        return self._owner == os.getpid() and self._popen.poll() is None

    def ask(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the reply, and pixels if there are any. Raise OSError or ValueError if it ended instead."""
        self._requests.write(json.dumps(request | {"bytes": len(content)}).encode() + b"\n")
        self._requests.write(content)
        self._requests.flush()
        reply = json.loads(self._replies.readline())
        pixels = self._replies.read(reply["bytes"])
        if len(pixels) < reply["bytes"]:
            raise EOFError
        return reply, pixels


def decode(form: Format, content: bytes, max_pixels: int, cpu_s: float = CPU_S) -> Image.Image:
    """Return the upright RGB image of a HEIC or an AVIF. Raise PhotoError, also if it takes too much, or ends the decoder."""
    process = getattr(_mine, "process", None)
    if process is None or not process.is_usable:
        process = _mine.process = _Process()
    try:
        reply, pixels = process.ask({"form": form.value, "max_pixels": max_pixels, "cpu_s": cpu_s}, content)
    except (OSError, ValueError, EOFError) as error:
        del _mine.process
        process.end()
        raise too_complex(
            f"decoding this {form.value} takes more time or memory than a photo should, or breaks the decoder"
        ) from error
    if "reason" in reply:
        raise PhotoError(PhotoReason(reply["reason"]), reply["description"])
    return Image.frombytes("RGB", tuple(reply["size"]), pixels)


def _end(popen: "subprocess.Popen[bytes]") -> None:
    for pipe in (popen.stdin, popen.stdout):
        with contextlib.suppress(OSError):
            assert pipe
            pipe.close()
    popen.kill()
    popen.wait()
