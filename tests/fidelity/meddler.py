"""A proxy that changes answers on their way, so that a comparison has something to find."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

import requests

_CONNECTION = ("connection", "content-length", "date", "transfer-encoding")


class Passing(NamedTuple):
    """An answer as it passes."""

    path: str
    status: int
    headers: dict[str, str]
    body: bytes


Change = Callable[[Passing], Passing]


@contextmanager
def meddling(url: str, change: Change) -> Iterator[str]:
    """Give the URL of a proxy in front of a server, which changes every answer as it is told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            with requests.Session() as session:
                session.trust_env = False
                session.headers.clear()
                answer = session.request(
                    self.command, url + self.path, headers=headers, data=body or None, timeout=30
                )
            kept = {k.lower(): v for k, v in answer.headers.items() if k.lower() not in _CONNECTION}
            passed = change(Passing(self.path, answer.status_code, kept, answer.content))
            self.send_response_only(passed.status)
            for name, value in passed.headers.items():
                self.send_header(name, value)
            if passed.status != 204:
                self.send_header("Content-Length", str(len(passed.body)))
            self.end_headers()
            self.wfile.write(passed.body)

        do_GET = do_POST = do_DELETE = _pass

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def frames(body: bytes) -> list[bytes]:
    """The envelopes of a stream."""
    found = []
    while body:
        length = 5 + struct.unpack(">I", body[1:5])[0]
        found.append(body[:length])
        body = body[length:]
    return found
