"""A server that does to a client exactly what a test says, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

WAIT = 20.0
"""Seconds after which a test that waits has failed."""


@dataclass
class Received:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")

    def receive(self) -> Received | None:
        """The next request, whole; None when the client has closed the connection."""
        line = self._file.readline()
        if not line:
            return None
        method, target, _ = line.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Received(method, target, headers, b"".join(self._body(headers)))

    def _body(self, headers: dict[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self._file.readline(), 16):
                yield self._file.read(size)
                self._file.readline()
            self._file.readline()
        else:
            yield self._file.read(int(headers.get("content-length", "0")))

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer. Header names are given with underscores."""
        lines = {"content-length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)

    def reset(self) -> None:
        """Close the connection the hard way."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def wait_for_end(self) -> None:
        """Wait until the client has ended the connection."""
        self.sock.settimeout(WAIT)
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass


@dataclass
class WireServer:
    """Runs a script for each connection, in a thread."""

    port: int
    requests: list[Received] = field(default_factory=list)
    connections: list[Peer] = field(default_factory=list)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def scripted(
    script: Callable[[Peer], object], *, context: ssl.SSLContext | None = None
) -> Iterator[WireServer]:
    """Serve each connection with `script`; its end closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = WireServer(listener.getsockname()[1])
    threads: list[threading.Thread] = []

    def run(sock: socket.socket) -> None:
        try:
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(sock)
        server.connections.append(peer)
        try:
            script(peer)
        except (OSError, ValueError):
            pass  # the client went away, or the test has ended
        finally:
            peer.close()
            server.ended.release()

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=run, args=(sock,), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(WAIT)
        for peer in server.connections:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(WAIT)


@contextlib.contextmanager
def answering(
    handler: Callable[[Peer, Received], None], *, context: ssl.SSLContext | None = None
) -> Iterator[WireServer]:
    """Serve requests one after the other, as servers do, and keep them in `requests`."""

    def script(peer: Peer) -> None:
        while (request := peer.receive()) is not None:
            server.requests.append(request)
            handler(peer, request)

    with scripted(script, context=context) as server:
        yield server


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(data: bytes, flags: int = 0) -> bytes:
    """One frame of a Connect stream."""
    return struct.pack(">BI", flags, len(data)) + data


END = frame(b"{}", 2)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n\r\n"
)
