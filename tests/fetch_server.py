"""A server on this machine that serves files well, or badly in ways that servers have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Served", "Server", "serving"]


@dataclass
class Served:
    """A file, and how it is served.

    Attributes:
        content: what it holds.
        ranges: whether a piece may be asked for.
        tag: the ETag; none where it is empty.
        breaks: bytes after which the connection ends, once an entry, in turn.
        says: the length that is claimed, whatever is sent; negative for none.
        status: another answer than 200.
        to: where it leads on to.
        kind: its type.
        waits: seconds before each piece.
        piece: bytes in a piece.
        shifted: a piece begins so many bytes later than it was asked for.
        packed: claimed as Content-Encoding.
    """

    content: bytes = b""
    ranges: bool = True
    tag: str = '"1"'
    breaks: list[int] = field(default_factory=list)
    says: int | None = None
    status: int = 200
    to: str = ""
    kind: str = "application/octet-stream"
    waits: float = 0.0
    piece: int = 1 << 16
    shifted: int = 0
    packed: str = ""


@dataclass
class Server:
    """What is served and what was asked.

    Attributes:
        url: its address.
        files: by path.
        asked: path and headers of each request.
    """

    url: str
    files: dict[str, Served]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].lstrip("/")
        self.state.asked.append((name, {k.lower(): v for k, v in self.headers.items()}))
        served = self.state.files.get(name, Served(status=404))
        if served.to or served.status != 200:
            self.send_response(302 if served.to else served.status)
            self.send_header("Location", served.to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self.begin(served)
        if start is not None:
            self.send(served, start)

    def begin(self, served: Served) -> int | None:
        """Sends the head; returns where the piece begins, None if there is none."""
        start, size = 0, len(served.content)
        asked = self.headers.get("Range")
        if asked and served.ranges and self.headers.get("If-Range") in (None, served.tag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return None
            start += served.shifted
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        says = size if served.says is None else served.says
        length = str(says - start) if says >= 0 else ""
        head = {"Content-Length": length, "ETag": served.tag, "Content-Encoding": served.packed}
        for name, value in {**head, "Content-Type": served.kind}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        return start

    def send(self, served: Served, start: int) -> None:
        size = len(served.content)
        end = min(size, start + served.breaks.pop(0)) if served.breaks else size
        for at in range(start, end, served.piece):
            time.sleep(served.waits)
            try:
                self.wfile.write(served.content[at : min(at + served.piece, end)])
                self.wfile.flush()
            except OSError:  # whoever asked has gone
                return


@contextmanager
def serving(**files: Served) -> Iterator[Server]:
    """Serves files under their names until the block ends."""
    state = Server("", dict(files))
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
