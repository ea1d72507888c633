"""A web server of large files, and small archives in the layouts that the data sets really have."""

import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

CARS = ("AM General Hummer SUV 2000", "Acura TL Type-S 2008", "Ram C/V Cargo Van Minivan 2012")
LABELS = ("am_general_hummer_suv_2000", "acura_tl_type_s_2008", "ram_c_v_cargo_van_minivan_2012")
BOX = (31, 21, 70, 50)
"""As MATLAB counts: pixels 30 to 69 and 20 to 49, counted from 0."""


@dataclass
class Site:
    """What the web server does, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"1"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """For each of the next answers, after how many bytes of its body the connection ends."""
    statuses: list[int] = field(default_factory=list)
    """For each of the next answers, a status in place of the file."""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """The path, `Range` and `If-Range` of each request."""


class _Server(http.server.ThreadingHTTPServer):
    site: Site


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, wanted = self.server.site, self.headers["Range"]
        site.asked.append((self.path, wanted, self.headers["If-Range"]))
        if site.statuses:
            self._answer(site.statuses.pop(0), b"no")
        elif self.path == "/moved":
            self._answer(302, b"", Location="/data.tgz")
        elif self.path not in site.files:
            self._answer(404, b"no")
        else:
            self._file(site, site.files[self.path], wanted)

    def _file(self, site: Site, content: bytes, wanted: str | None) -> None:
        tag = {"ETag": site.etag} if site.etag else {}
        if not (wanted and site.ranges and self.headers["If-Range"] == site.etag):
            return self._answer(200, content, **tag)
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(content):
            return self._answer(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
        told = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return self._answer(206, content[first:], **tag, **{"Content-Range": told})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status in (200, 206) and self.server.site.cut_after:
            body = body[: self.server.site.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.site = Site(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.site
        server.shutdown()
        thread.join()


def photo(colour: str = "red") -> bytes:
    """A gray photo of 100 x 60 pixels whose car is of the colour, and fills BOX."""
    image = Image.new("RGB", (100, 60), "gray")
    image.paste(Image.new("RGB", (40, 30), colour), (30, 20))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def tgz(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, each in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(each)
            tar.addfile(info, io.BytesIO(each))
    return content.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, each in files.items():
            archive.writestr(name, each)
    return content.getvalue()


def matlab(rows: list[dict[str, object]], names: tuple[str, ...] = CARS) -> bytes:
    """A file of annotations as MATLAB wrote Stanford's: a row of structures, and a row of the names of the classes."""
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for place, row in enumerate(rows):
        table[0, place] = tuple(
            value if isinstance(value, str) else np.array([[value]], np.uint16) for value in row.values()
        )
    content = io.BytesIO()
    savemat(content, {"annotations": table, "class_names": np.array([names], dtype=object)})
    return content.getvalue()


def row(car: int, box: tuple[int, int, int, int] = BOX, **names: object) -> dict[str, object]:
    left, top, right, bottom = box
    return {"bbox_x1": left, "bbox_y1": top, "bbox_x2": right, "bbox_y2": bottom, "class": car, **names}


def devkit() -> dict[str, bytes]:
    """The devkit, for two train photos; its test photos have boxes and no classes."""
    return {
        "devkit/cars_meta.mat": matlab([row(1, fname="")]),
        "devkit/cars_train_annos.mat": matlab([row(1, fname="00001.jpg"), row(3, fname="00002.jpg")]),
        "devkit/cars_test_annos.mat": matlab([{"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": 9, "bbox_y2": 9, "fname": "1"}]),
    }
