"""What listens on the ports of sandboxes in tests, and raw connections to the server in front of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.raw_client import RawClient, Sandbox

# In a sandbox: `listen.py HOST PORT KIND` says "ready" once it listens.
LISTEN = r"""
import hashlib, socket, sys, threading, http.server
host, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if kind == "events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: first\n\n"); self.wfile.flush()
            sys.stdin.readline()
            self.wfile.write(b"data: second\n\n")
            self.close_connection = True
            return
        body = f"{self.command} {self.path} {self.headers.get('E2b-Traffic-Access-Token')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_HEAD = do_GET
    def do_PUT(self):
        digest, size, left = hashlib.sha256(), 0, int(self.headers["Content-Length"])
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            digest.update(piece); left -= len(piece)
        body = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

def shout(connection):
    connection.sendall(b"hello ")
    while data := connection.recv(65536):
        connection.sendall(data.upper())
    connection.sendall(b" bye")
    connection.close()

if kind in ("http", "events"):
    server = Server((host, port), Handler)
    print("ready", flush=True)
    server.serve_forever()
listener = socket.create_server((host, port), family=Server.address_family)
print("ready", flush=True)
while True:
    threading.Thread(target=shout, args=listener.accept()[:1], daemon=True).start()
"""


@contextmanager
def prepared(client: RawClient, **fields: object) -> Iterator[Sandbox]:
    with client.create(timeout=300, **fields) as made:
        path = {"path": "/tmp/listen.py"}
        kind = {"Content-Type": "application/octet-stream"}
        assert made.ask("POST", "/files", params=path, data=LISTEN, headers=kind).ok
        yield made


@contextmanager
def listening(sandbox: Sandbox, port: int, kind: str = "tcp", host: str = "127.0.0.1") -> Iterator[int]:
    """A server in the sandbox, which goes with the block; gives its pid."""
    events = sandbox.start(f"exec python3 /tmp/listen.py {host} {port} {kind}", stdin=True)
    pid = next(events)["start"]["pid"]
    assert "data" in next(events), "it listens"
    try:
        yield pid
    finally:
        sandbox.run(f"kill -9 {pid}")
        events.close()


@contextmanager
def connected(client: RawClient, head: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which a request was sent, and the head of the answer."""
    host, port = client.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall((head.strip() + "\n\n").replace("\n", "\r\n").encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            assert byte, answer
            answer += byte
        yield connection, answer


def rest_of(connection: socket.socket) -> bytes:
    text = b""
    while data := connection.recv(65536):
        text += data
    return text
