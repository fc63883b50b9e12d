"""Connections whose sockets keep to deadlines, in the form that urllib3 uses them."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport

from sandbox_sync.transport.chunks import Chunks
from sandbox_sync.transport.sockets import DeadlineSocket, dial

# Bytes of a body that it pays to copy, so that it goes out together with the head.
_SHORT = 64 * 1024

NETWORK_ERRORS = (urllib3_errors.HTTPError, http.client.HTTPException, OSError)
"""What urllib3 raises; `pools.failure_of` tells what it means."""

MAX_IDLE_SECONDS = 55.0
"""Seconds after which an idle connection is not used again: less than what load balancers keep them for."""


class Answer(http.client.HTTPResponse):
    """An answer whose lines have to be there to their ends, and whose head to its last: http.client takes a
    broken head for a short one, and urllib3 the size "0" of "0fff" for the last chunk's."""

    def begin(self) -> None:
        reader: Any = self.fp
        head: Any = _Lines(reader)
        self.fp = head
        try:
            super().begin()
        except http.client.RemoteDisconnected:
            if not b"HTTP/".startswith(head.first[:5]):  # as of servers that speak HTTP/2 only
                raise http.client.BadStatusLine("the server does not speak HTTP/1.1") from None
            raise
        finally:
            if self.fp is head and not self.chunked:
                self.fp = reader
        if not head.last:
            raise http.client.RemoteDisconnected("the connection ended within the head of the answer")

    def blocks(self, size: int) -> Iterator[bytes]:
        """The content of an answer that comes in chunks, joined as far as it has arrived.

        Args:
            size: Bytes to read at once.

        Raises:
            http.client.HTTPException: It is cut short, or not in chunks as it should be.
            OSError: The connection broke.
        """
        reader = self.fp.file if isinstance(self.fp, _Lines) else self.fp
        chunks = Chunks()
        while not chunks.ended:
            data = reader.read1(size)
            if not data:
                raise http.client.IncompleteRead(b"")
            if content := chunks.feed(data):
                yield content
        self.close()


class _Lines:
    """Reads lines, whole ones, and knows the first and the last. All else is left to the file beneath."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.first = b""
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self.file.readline(limit)
        self.first = self.first or line
        self.last = line
        if line and not line.endswith(b"\n") and len(line) != limit:
            raise http.client.RemoteDisconnected("the connection ended within a line of the answer")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class ProxyRefusedError(OSError):
    """The proxy answered, and leads nowhere."""


class Connection(HTTPConnection):
    """A connection whose socket keeps to deadlines, also on its way through a proxy.

    Attributes:
        answer: What is being answered.
        link: The socket, also after http.client has let go of it to read an answer to its end.
        idle_since: Reading of the monotonic clock when its last call ended.
        has_connected_to_proxy: Whether errors are not the proxy's any more.
    """

    answer: Answer | None = None
    link: DeadlineSocket | None = None
    idle_since = 0.0
    has_connected_to_proxy = False
    _head: bytes | None = None  # what waits for the body; empty while it is to come, None if it does not wait
    _server: tuple[str, int | None, Mapping[str, str]] | None = None

    def response_class(self, *arguments: Any, **options: Any) -> Answer:  # type: ignore[override]
        """What http.client makes of an answer."""
        self.answer = Answer(*arguments, **options)
        return self.answer

    def request(self, method: str, url: str, body: Any = None, *arguments: Any, **options: Any) -> None:
        """Send a request; one with a short body in one piece, for which the server wakes up once."""
        self._head = b"" if isinstance(body, bytes) and 0 < len(body) <= _SHORT else None
        try:
            super().request(method, url, body, *arguments, **options)
        finally:
            self._head = None

    def send(self, data: Any) -> None:
        head = self._head
        if head == b"" and isinstance(data, bytes):  # the head itself, which the body follows at once
            self._head = data
            return
        if head:
            self._head = None
            data = head + data
        super().send(data)

    def set_tunnel(
        self,
        host: str,
        port: int | None = None,
        headers: Mapping[str, str] | None = None,
        scheme: str = "http",
    ) -> None:
        """Note the server that the proxy is to lead to."""
        super().set_tunnel(host, port, headers, scheme)
        self._server = (host, port, headers or {})

    def connect(self) -> None:
        try:
            self.sock = self.open()
        except NETWORK_ERRORS as error:
            raise urllib3_errors.NewConnectionError(self, str(error)) from error
        self.has_connected_to_proxy = self.proxy is not None

    def open(self) -> socket.socket:
        """A socket that leads to the server, or to the proxy that is asked for each URL."""
        self.link = dial(self.host, self.port, self.timeout)
        return self.link

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self.idle_since < MAX_IDLE_SECONDS and super().is_connected


class SecureConnection(Connection, HTTPSConnection):
    """The same over TLS, to the server or to a proxy."""

    def open(self) -> socket.socket:
        sock = super().open()
        try:
            name = self.host
            if self._server is not None:
                if self.proxy is not None and self.proxy.scheme == "https":
                    sock = self._encrypt(sock, name)
                name = self._server[0]
                _ask_for_way(sock, *self._server)
                self.has_connected_to_proxy = True
            sock = self._encrypt(sock, name)
        except BaseException:
            sock.close()
            raise
        self.is_verified = True  # the context checks the certificate and the name in it
        return sock

    def _encrypt(self, sock: socket.socket, name: str) -> socket.socket:
        context = cast("ssl.SSLContext", self.ssl_context)
        if isinstance(sock, ssl.SSLSocket):  # inside of the encryption that leads to a proxy
            return cast("socket.socket", SSLTransport(sock, context, name))
        self.link = cast("DeadlineSocket", context.wrap_socket(sock, server_hostname=name))
        return self.link


def _ask_for_way(sock: socket.socket, host: str, port: int | None, headers: Mapping[str, str]) -> None:
    """Have a proxy connect what is sent from now on to a server.

    Raises:
        ProxyRefusedError: It does not do so.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
    answer = Answer(sock, method="CONNECT")
    try:
        answer.begin()
        if not 200 <= answer.status < 300:
            raise ProxyRefusedError(f"{answer.status} {answer.reason}")
    finally:
        answer.close()
