"""A Hub on the loopback that has one repository."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "Qwen/Qwen1.5-14B-Chat-AWQ"
OLD, NEW = "a" * 40, "b" * 40


class Hub:
    """One repository: its main, its commits, and what was asked."""

    def __init__(self) -> None:
        self.main = OLD
        self.commits = {OLD, NEW}
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.raw: bytes | None = None
        self.status = 200

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        before, _, revision = path.rpartition("/")
        if before != f"/api/models/{REPOSITORY}/revision":
            return 404, b"{}"
        sha = self.main if revision == "main" else revision
        if sha not in self.commits:
            return 404, b'{"error": "Invalid rev id"}'
        if self.raw is not None:
            return self.status, self.raw
        return self.status, json.dumps({"id": REPOSITORY, "sha": sha}).encode()


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Give the address at which a Hub answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.tokens.append(self.headers["Authorization"])
            status, body = hub.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
