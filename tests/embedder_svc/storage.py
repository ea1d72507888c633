"""Storage that is a real server: a folder, read over HTTP by the protocol of WebHDFS, for which fsspec needs no cloud's library."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CUT = "cut"
"""What `Storage.refuse` returns for a connection that ends without an answer."""


class Storage:
    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.address = f"127.0.0.1:{port}"
        self.url = f"webhdfs://me:hidden@{self.address}"
        self.shown = f"webhdfs://{self.address}"
        self.opened: list[str] = []
        """The names of the files that were read, each as often as it was."""

    def refuse(self, op: str, path: str) -> str | None:
        """Called before an answer; tests replace it. Return CUT, the name of an exception of Hadoop's, or None."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path).removeprefix("/webhdfs/v1")
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        file = self.storage.root / path.lstrip("/")
        refused = self.storage.refuse(query["op"], path)
        if refused == CUT:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif refused or not file.exists():
            self._fail(refused or "FileNotFoundException")
        elif query["op"] == "GETFILESTATUS":
            kind = "DIRECTORY" if file.is_dir() else "FILE"
            self._answer(200, json.dumps({"FileStatus": {"type": kind, "length": file.stat().st_size}}).encode())
        else:
            self.storage.opened.append(file.name)
            start, length = int(query["offset"]), int(query["length"])
            self._answer(200, file.read_bytes()[start : start + length])

    def _fail(self, exception: str) -> None:
        status = {"FileNotFoundException": 404, "AccessControlException": 403}[exception]
        told = {"exception": exception, "message": f"{exception} at http://me:hidden@{self.storage.address}{self.path}"}
        self._answer(status, json.dumps({"RemoteException": told}).encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *about: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a connection lasts as long as its client
    request_queue_size = 128


@contextmanager
def serving(root: Path) -> Iterator[Storage]:
    """Serve a folder until the block ends."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        handler.storage = Storage(root, server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield handler.storage
        finally:
            server.shutdown()
            thread.join()
