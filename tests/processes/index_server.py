"""A package index on the loopback: pages, wheels in parts, and servers that misbehave."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html"
WHEEL = "made_up-1.0-py3-none-any.whl"
DRIPS = 3000
"""An end, so that a client that does not give up fails its test and does not hang it."""

Member = tuple[str, str | bytes]
"""Of a source archive: name below its folder, and content."""
Respond = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's table of paths; a path that is not there is a 404."""

    server: Server

    def do_GET(self) -> None:
        """Answer, and note what was asked."""
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        respond = self.server.answers.get(self.path)
        try:
            if respond is None:
                self.send_error(404)
            else:
                respond(self)
        except OSError:
            self.close_connection = True  # the client has hung up, as a client with limits does

    def send(self, body: bytes, kind: str = JSON, status: int = 200, **headers: str) -> None:
        """Send one whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """What it answers may be changed while it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Respond] = {}
        self.asked: list[tuple[str, str]] = []
        self.ended = Event()

    @property
    def address(self) -> str:
        """Return the address of the index."""
        return f"http://127.0.0.1:{self.server_port}/simple"

    def serve(self, package: str, body: bytes, kind: str = JSON, **headers: str) -> None:
        """Answer for a package with a page."""
        self.answers[f"/simple/{package}/"] = lambda on: on.send(body, kind, 200, **headers)

    def paths(self) -> list[str]:
        """Return the paths that were asked for."""
        return [path for path, _ in self.asked]


@contextmanager
def running() -> Iterator[Server]:
    """Run a server in a thread; what it still holds back ends with it."""
    server = Server()
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def file(name: str, **fields: Any) -> dict[str, Any]:
    """Return a file as the JSON form lists it; ``upload_time`` becomes ``upload-time``."""
    given = {key.replace("_", "-"): value for key, value in fields.items()}
    return {"filename": name, "url": f"/files/{name}", "hashes": {}} | given


def page(package: str, *files: Any, **fields: Any) -> bytes:
    """Return a page in the JSON form."""
    document = {"meta": {"api-version": "1.1"}, "name": package, "files": list(files)}
    return json.dumps(document | fields).encode()


def wheel(package: str, version: str, *requirements: str, padding: int = 0) -> bytes:
    """Return a wheel whose METADATA names requirements, behind so many bytes of other files."""
    lines = ["Metadata-Version: 2.1", f"Name: {package}", f"Version: {version}"]
    lines += [f"Requires-Dist: {item}" for item in requirements]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{package}/data.bin", bytes(padding))
        archive.writestr(f"{package}-{version}.dist-info/METADATA", "\n".join(lines) + "\n\n")
    return packed.getvalue()


def tar(root: str, *members: Member, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar of files, or of other members that point to ``/etc/passwd``."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members:
            raw = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"{root}/{name}")
            member.type, member.linkname = kind, "" if kind == tarfile.REGTYPE else "/etc/passwd"
            member.size = len(raw) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(raw))
    return packed.getvalue()


def sdist(root: str, *members: Member) -> bytes:
    """Return a source archive of files below one folder."""
    return gzip.compress(tar(root, *members))


def in_parts(body: bytes) -> Respond:
    """Return what answers for a file, and for parts of it."""

    def respond(on: Handler) -> None:
        requested = on.headers.get("Range", "")
        if not requested:
            on.send(body, "application/octet-stream")
            return
        first, _, last = requested.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(body) - int(last))
        end = min(int(last) + 1, len(body)) if first else len(body)
        where = f"bytes {start}-{end - 1}/{len(body)}"
        on.send(body[start:end], "application/octet-stream", 206, Content_Range=where)

    return respond


def drip(on: Handler) -> None:
    """Send a byte at a time, for a minute and more."""
    on.send_response(200)
    on.send_header("Content-Type", JSON)
    on.end_headers()
    for _ in range(DRIPS):
        if on.server.ended.wait(0.02):
            return
        on.wfile.write(b" ")
        on.wfile.flush()


def drip_headers(on: Handler) -> None:
    """Send headers a byte at a time, for a minute and more."""
    on.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(DRIPS):
        if on.server.ended.wait(0.02):
            return
        on.wfile.write(b"x")
        on.wfile.flush()


def silent(on: Handler) -> None:
    """Answer nothing for minutes, then hang up."""
    on.server.ended.wait(300)
