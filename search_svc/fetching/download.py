"""Download large files: what has arrived stays, and the next try, or the next run, asks for the rest alone."""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, NoReturn

from vmmr import __version__

from search_svc.fetching.sources import RemoteFile
from svckit import cli
from svckit.artifact import atomic_write, flush_one, sha256
from svckit.redaction import without_secrets

_TIMEOUT_S = 60.0
"""Seconds in which a server has to send something."""
_TRIES = 5
"""Tries in a row that bring nothing new."""
_PAUSE_S = 2.0
_CHUNK = 1 << 20
_GONE = (404, 410)
_NOT_FOR_ALL = (401, 402, 403, 451)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PAGE = re.compile(rb"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)


class DownloadError(Exception):
    """A file can't be had; the message names its URL and says why."""

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class _CutError(Exception):
    """The connection failed or ended early: what is missing may come with the next try."""


def download(file: RemoteFile, folder: Path, *, pause_s: float = _PAUSE_S) -> Path:
    """Return the path of the file in the folder, downloaded unless it is there, and verified. Raise DownloadError.

    `pause_s` is the time before the second try in a row that brings nothing; each next one waits twice as long.
    """
    path = folder / file.name
    if path.exists():
        if fault := _fault(file, path):
            raise DownloadError(f"{path}: {fault}: delete it, or move it away")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = _Part(path)
    _complete(file, part, pause_s)
    if fault := _fault(file, part.path):
        part.discard()
        raise DownloadError(f"{file.url}: {fault}; it was deleted")
    flush_one(part.path)
    part.finish(path)
    return path


class _Part:
    """A file that has arrived in part, with what its server said it to be a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._about = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """Return what the server called this version of the file; None if it is of another URL, or was not called anything."""
        try:
            about = json.loads(self._about.read_bytes())
            return about["validator"] if about["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, validator: str | None) -> None:
        """Empty it, for the version that the server names so."""
        self.path.write_bytes(b"")
        atomic_write(self._about, json.dumps({"url": url, "validator": validator}).encode())

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        self.path.rename(path)
        self._about.unlink(missing_ok=True)


def _complete(file: RemoteFile, part: _Part, pause_s: float) -> None:
    """Bring the rest of the file, in as many tries as it takes while each brings something."""
    fruitless = 0
    while True:
        before = part.size
        try:
            return _bring(file, part)
        except _CutError as error:
            fruitless = 0 if part.size > before else fruitless + 1
            if fruitless >= _TRIES:
                raise DownloadError(f"{file.url}: {error}; {part.size} bytes are kept for the next run") from error
            if fruitless:
                time.sleep(pause_s * 2 ** (fruitless - 1))


def _bring(file: RemoteFile, part: _Part) -> None:
    """Ask once for what is missing, and write what comes."""
    response = _ask(file, part)
    if response is None:
        return
    with response:
        first, total = _extent(response, part.size)
        if file.bytes is not None and total is not None and total != file.bytes:
            raise DownloadError(f"{file.url}: has {total} bytes, and the file that is wanted {file.bytes}")
        if first == 0:
            part.begin(file.url, _validator(response))
        try:
            with part.path.open("r+b") as out:
                out.seek(first)
                out.truncate()
                _copy(response, out, first, total, file)
        except OSError as error:
            raise DownloadError(f"{part.path}: {error.strerror or error}") from error


def _ask(file: RemoteFile, part: _Part) -> http.client.HTTPResponse | None:
    """Return the server's answer, from the first byte that is missing or from the start; None if nothing is missing."""
    have, validator = part.size, part.validator(file.url)
    headers = {"User-Agent": f"vmmr/{__version__}", "Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    request = urllib.request.Request(file.url, headers=headers)  # noqa: S310 - the sources' URLs are http and https
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                _check_complete(error, part)
                return None
            _refuse(file, error)
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(_said(error)) from error
    return response


def _check_complete(error: urllib.error.HTTPError, part: _Part) -> None:
    """Return if the part is the whole file. Discard it, and raise _CutError, if it is longer."""
    if error.headers.get("Content-Range") != f"bytes */{part.size}":
        part.discard()
        raise _CutError("the server has another file than before")


def _refuse(file: RemoteFile, error: urllib.error.HTTPError) -> NoReturn:
    told = f"{error.code} {error.reason}"
    if error.code in _GONE:
        raise DownloadError(f"{file.url}: has gone ({told})")
    if error.code in _NOT_FOR_ALL:
        raise DownloadError(f"{file.url}: is not for everybody ({told})")
    if error.code in (408, 429) or error.code >= 500:
        raise _CutError(f"the server answered {told}")
    raise DownloadError(f"{file.url}: the server answered {told}")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return the place of the first byte that the answer brings, and the size of the whole file if the server tells it."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) > have:
            raise _CutError("the server sent another part than was asked for")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    return 0, response.length


def _validator(response: http.client.HTTPResponse) -> str | None:
    """Return what `If-Range` can be given: a strong ETag, or else the date of the last change (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _copy(response: http.client.HTTPResponse, out: IO[bytes], first: int, total: int | None, file: RemoteFile) -> None:
    most = file.bytes if file.bytes is not None else total
    bar = cli.progress(total=most and most >> 20, initial=first >> 20, desc=file.name, unit=" MiB")
    have = first
    with bar:
        while chunk := _read(response):
            if have == 0:
                _refuse_page(chunk, file)
            if file.bytes is not None and have + len(chunk) > file.bytes:
                raise DownloadError(f"{file.url}: has more than the {file.bytes} bytes of the file that is wanted")
            out.write(chunk)
            bar.update(((have + len(chunk)) >> 20) - (have >> 20))
            have += len(chunk)
    if total is not None and have < total:
        raise _CutError(f"the connection ended {total - have} bytes early")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(_said(error)) from error


def _refuse_page(beginning: bytes, file: RemoteFile) -> None:
    if _PAGE.match(beginning.removeprefix(b"\xef\xbb\xbf")):
        raise DownloadError(
            f"{file.url}: answers a web page in place of the file: a sign-in, a quota that is used up, or a site that has gone"
        )


def _fault(file: RemoteFile, path: Path) -> str | None:
    """Return why this is not the file that is wanted; None if nothing speaks against it."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"has {size} bytes, and the file that is wanted {file.bytes}"
    if file.sha256 is not None and (actual := sha256(path)) != file.sha256:
        return f"its sha256 is {actual}, and that of the file that is wanted {file.sha256}"
    return None


def _said(error: Any) -> str:
    """Return what went wrong, in words."""
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
